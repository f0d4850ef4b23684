"""Stage 1: conditions to occupancy logits, batched over objects, hypotheses and guidance branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..memory import chunk_rows, in_chunks
from ..models.conditioning import Contexts, FlowCondition, repeat_contexts, with_unconditional
from ..models.view_fusion import concatenate_views, view_at_step
from ..sampling import BatchedDenoiser, CyclingViews, Denoiser, FlowSchedule, draw_noise, sample, steps_for_views
from .rows import copies_of, groups_by_views, single_view_rows, take_objects, view_counts
from .settings import StageSampler

ACTIVATIONS_PER_TOKEN = 14.0
"""Numbers of a token's width that are alive at once in a block: stream, q, k, v, hidden layer of the feed-forward."""
DECODER_COPIES = 6.0
"""Copies of the decoder's finest feature map that are alive at once."""


@torch.no_grad()
def sample_structures(
    bundle: ModelBundle,
    condition: FlowCondition,
    objects: Tensor,
    seeds: Sequence[int],
    sampler: StageSampler,
    budget_bytes: int | None = None,
) -> Tensor:
    """Occupancy logits (n, R, R, R) float32 on the CPU, one row for each of `objects` (n,) and its seed.

    objects are indices into the condition's batch; an object that appears several times is sampled several times.
    A row's result depends on its own object and seed only, not on the rows beside it. budget_bytes is for what comes
    beside the weights; raises `MemoryBudgetError` if not even one row fits.
    """
    flow, decoder = bundle.modules["sparse_structure_flow"], bundle.modules["sparse_structure_decoder"]
    shape = (flow.config.in_channels, *(flow.config.resolution,) * 3)

    def work(group: Tensor, done: int, schedule: FlowSchedule, start: int, stop: int) -> Tensor:
        rows = group[start:stop]
        noise = draw_noise([seeds[row] for row in rows.tolist()], shape, condition.views.tokens.device)
        present, copies = copies_of(objects[rows])
        found = sample(
            structure_denoiser(flow, take_objects(condition, present), copies, sampler.fusion),
            noise,
            schedule,
            sampler.guidance,
            method=sampler.method,
            sigma_min=sampler.sigma_min,
            on_step=sampler.on_step(done + start, len(rows), len(objects)),
            cancelled=sampler.cancelled,
        )
        return decoder(found.x)[:, 0].float().cpu()

    chunk = chunk_rows(len(objects), structure_row_bytes(bundle, condition), budget_bytes)
    logits: list[Tensor] = []
    order: list[Tensor] = []
    # One view a step needs a number of steps that its views divide, so only equals can walk together.
    together = (
        groups_by_views(condition, objects) if sampler.fusion == "stochastic" else [(1, torch.arange(len(objects)))]
    )
    for views, group in together:
        schedule = replace(sampler.schedule, steps=steps_for_views(sampler.schedule.steps, views))
        logits += in_chunks(len(group), chunk, partial(work, group, sum(map(len, order)), schedule))
        order.append(group)
    return torch.cat(logits)[torch.cat(order).argsort()]


def structure_denoiser(flow: Any, condition: FlowCondition, copies: int, fusion: str) -> Denoiser:
    """Denoiser of `copies` rows (hypotheses) for each object of the condition.

    Keys and values are projected here, once. `stochastic` needs objects with equally many views.
    """

    def contexts(seen: FlowCondition) -> Contexts:
        return repeat_contexts(flow.contexts(seen), copies)

    if fusion == "stochastic":
        views = int(view_counts(condition).max())
        return CyclingViews([batched(flow, contexts(view_at_step(condition, view))) for view in range(views)])
    if fusion == "multidiffusion":
        owner = condition.views.owner[:, None] * copies + torch.arange(copies, device=condition.views.owner.device)
        return batched(flow, contexts(single_view_rows(condition)), owner.flatten())
    return batched(flow, contexts(concatenate_views(condition) if fusion == "concatenated" else condition))


def batched(flow: Any, contexts: Contexts, owner: Tensor | None = None) -> BatchedDenoiser:
    """The flow under `contexts`, with the unconditional branch in the same pass."""
    return BatchedDenoiser(flow, contexts, with_unconditional(contexts, flow.blocks), owner)


def structure_row_bytes(bundle: ModelBundle, condition: FlowCondition) -> float:
    """Estimated memory of one row while it is sampled (with guidance) and decoded, beside the weights.

    Contexts of all blocks, the widest activations of both guidance branches, and the decoder's finest level.
    """
    flow = bundle.modules["sparse_structure_flow"]
    config = flow.config
    width, size = config.model_channels, next(flow.blocks.parameters()).element_size()
    tokens = (config.resolution // config.patch_size) ** 3
    views = int(view_counts(condition).max())
    keys = views * condition.views.tokens.shape[1]
    if condition.views.occlusion is not None:
        keys += views * condition.views.occlusion.shape[1]
    if config.stereo_attention:
        keys += tokens
    contexts = config.num_blocks * keys * 2 * width * size
    activations = 2 * tokens * width * size * ACTIVATIONS_PER_TOKEN * max(1.0, views / 2)
    decoder = bundle.modules["sparse_structure_decoder"].config
    finest = (config.resolution * decoder.scale // decoder.patch_size) ** 3 * decoder.channels[-1] * 4
    return contexts + max(activations, DECODER_COPIES * finest)
