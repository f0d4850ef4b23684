"""Stage 2: occupied voxels and conditions to structured latents, batched over objects and guidance branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..errors import InputError
from ..models.conditioning import Contexts, FlowCondition, with_unconditional
from ..models.view_fusion import concatenate_views, view_at_step
from ..nn.sparse import Geometry, SparseTensor
from ..sampling import (
    CyclingViews,
    Denoiser,
    MeanOfViews,
    Prediction,
    draw_sparse_noise,
    network_time,
    sample,
    steps_for_views,
)
from .rows import view_counts
from .settings import StageSampler


@dataclass(frozen=True, eq=False)
class SparseDenoiser:
    """A flow over sparse features x (N, C) of `geometry`; a guided prediction is one pass over it twice."""

    flow: Any
    geometry: Geometry
    twice: Geometry
    contexts: Contexts
    guided_contexts: Contexts

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return Prediction(self._run(x, self.geometry, t, self.contexts))

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        both = self._run(torch.cat([x, x]), self.twice, t, self.guided_contexts)
        return Prediction(both[: len(x)]), Prediction(both[len(x) :])

    def _run(self, x: Tensor, geometry: Geometry, t: float, contexts: Contexts) -> Tensor:
        return self.flow(SparseTensor(geometry, x), network_time(t, geometry.batch, x.device), contexts).feats


@torch.no_grad()
def sample_structured_latents(
    bundle: ModelBundle, condition: FlowCondition, coords: Tensor, seeds: Sequence[int], sampler: StageSampler
) -> SparseTensor:
    """Latents at the voxels `coords` (N, 4) int32 (object, i, j, k), denormalised, float32.

    The objects are those of the condition, in its order, all with the same number of views; seeds one for each. A
    result depends on its own object and seed only. Raises `InputError` for objects without a voxel.
    """
    flow = bundle.modules["structured_latent_flow"]
    views = view_counts(condition)
    if not bool((views == views[0]).all()):
        raise InputError(f"objects of one call must have equally many views, got {views.tolist()}")
    device = condition.views.tokens.device
    grid = SparseTensor.create(coords.to(device), torch.zeros(len(coords), 0, device=device), condition.batch).geometry
    steps = sampler.schedule.steps
    schedule = replace(
        sampler.schedule, steps=steps_for_views(steps, int(views[0])) if sampler.fusion == "stochastic" else steps
    )
    found = sample(
        latent_denoiser(flow, condition, grid, sampler.fusion),
        draw_sparse_noise(seeds, grid.sizes, flow.config.in_channels, device),
        schedule,
        sampler.guidance,
        method=sampler.method,
        sigma_min=sampler.sigma_min,
        on_step=sampler.on_step(0, 1, 1),
        cancelled=sampler.cancelled,
    )
    latents = found.x
    if bundle.slat_mean is not None and bundle.slat_std is not None:
        latents = latents * bundle.slat_std.to(latents) + bundle.slat_mean.to(latents)
    return SparseTensor(grid, latents)


def latent_denoiser(flow: Any, condition: FlowCondition, grid: Geometry, fusion: str) -> Denoiser:
    """Denoiser of the objects of the condition, whose voxels `grid` lists; keys and values are projected here, once."""
    twice = doubled(grid)

    def seen(part: FlowCondition) -> SparseDenoiser:
        contexts = flow.contexts(part)
        return SparseDenoiser(flow, grid, twice, contexts, with_unconditional(contexts, flow.blocks))

    if fusion in ("view_wise", "concatenated"):
        return seen(concatenate_views(condition) if fusion == "concatenated" else condition)
    each = [seen(view_at_step(condition, view)) for view in range(int(view_counts(condition)[0]))]
    return MeanOfViews(each) if fusion == "multidiffusion" else CyclingViews(each)


def doubled(grid: Geometry) -> Geometry:
    """Every sample of the grid twice: samples B to 2B - 1 repeat 0 to B - 1."""
    again = grid.coords.clone()
    again[:, 0] += grid.batch
    return Geometry(torch.cat([grid.coords, again]), 2 * grid.batch)
