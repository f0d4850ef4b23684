"""Stage 1 of the generators: seconds and memory an object, beside the arithmetic floor and with savings off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..checkpoints.presets import random_bundle
from ..generative.settings import StageSampler
from ..generative.structure import sample_structures, structure_denoiser
from ..sampling import SIGMA_MIN, draw_noise
from .measuring import Timing, interleaved, parameter_bytes, seconds_of, timed, with_peak_memory
from .savings import SAVINGS, Saving, StructureProblem
from .settings import GUIDANCE, Settings, labels, not_measured
from .workload import (
    StructureOperations,
    cloud,
    crops,
    latent_shape,
    structure_operations,
    synthetic_condition,
    token_shape,
)

PART, FAST = "stage 1", "all savings on"
EXPECTED_TIMES_FLOOR = 2.0
"""How much slower than its floor a run is expected to be, to decide what can be measured in reasonable time."""


def measure_structure(settings: Settings, size: str, views: int, objects: int) -> dict[str, Any]:
    """The row of stage 1 for `objects` of `views` each.

    A run that would take much longer than the patience is extrapolated from one guided step, and left out if even
    that would; the single object with a single view is always measured.
    """
    operations = structure_operations(size, views, objects)
    what = {"views": views, "objects": objects}
    expected = EXPECTED_TIMES_FLOOR * settings.floor_s(operations.sampling(settings.steps))
    expected_step = EXPECTED_TIMES_FLOOR * settings.floor_s(operations.sampling(1))
    whole = expected <= 2 * settings.patience_s
    if not whole and expected_step > 2 * settings.patience_s and (views, objects) != (1, 1):
        reason = f"one step would take about {expected_step:.0f} s; --patience sets the limit"
        return not_measured(settings, PART, size, reason, **what)
    torch.manual_seed(0)
    bundle = random_bundle(size, device=settings.device, dtype=settings.torch_dtype)
    condition = synthetic_condition(token_shape(size), latent_shape(bundle), views, objects, settings.device)
    flow, decoder = bundle.modules["sparse_structure_flow"], bundle.modules["sparse_structure_decoder"]
    seeds = list(range(objects))
    noise = draw_noise(seeds, latent_shape(bundle), settings.device)
    problem = StructureProblem(flow, decoder, condition, noise, settings.schedule)
    row: dict[str, Any] = {
        **labels(settings, PART, size, **what),
        "measured": "whole" if whole else "extrapolated from 1 step",
        "operations_per_object": operations.sampling(settings.steps) / objects,
        "weights_bytes": parameter_bytes(flow, decoder),
        "weights_bytes_with_encoders": parameter_bytes(*bundle.modules.values()),
    }
    savings = [saving for saving in SAVINGS if views >= saving.least_views and objects >= saving.least_objects]
    if whole:
        sampler = StageSampler(settings.schedule, GUIDANCE, "euler", "view_wise", SIGMA_MIN)
        fast = partial(sample_structures, bundle, condition, torch.arange(objects), seeds, sampler)
        timing, row["working_bytes"], row["without"] = _whole(settings, fast, problem, savings)
        parts, seconds = _parts(settings, problem), timing.seconds
    else:
        parts, row["working_bytes"] = _one_step(settings, problem)
        timing, seconds = None, parts["contexts"] + settings.steps * parts["step"] + parts["decoder"]
        row["without"] = _unmeasured(savings, "no whole run")
    row |= _figures(settings, seconds, objects, operations)
    row |= {"runs": timing.runs if timing else 1, "warmed_up": timing.warmed_up if timing else False}
    working = row["working_bytes"]
    row["working_bytes_per_object"] = None if working is None else working / objects
    row["parts_s"] = parts | _encoders(settings, bundle)
    return row


def _whole(
    settings: Settings, fast: Callable[[], Tensor], problem: StructureProblem, savings: Sequence[Saving]
) -> tuple[Timing, int | None, list[dict[str, Any]]]:
    """Time, working memory, and what happens without each saving; the memory is that of the very first run."""
    (first_s, reference), working = with_peak_memory(lambda: seconds_of(fast, settings.device), settings.device)
    if first_s > settings.patience_s:
        return Timing(first_s, 1, False), working, _unmeasured(savings, f"a run takes {first_s:.0f} s")
    rounds = max(1, min(settings.repeat, int(settings.patience_s / max(first_s, 1e-9))))
    runs: dict[str, Callable[[], Tensor]] = {
        FAST: fast,
        **{saving.name: partial(saving.solve, problem) for saving in savings},
    }
    found = interleaved(runs, settings.device, rounds)
    timing, scale = found[FAST].timing, float(reference.abs().max())
    without: list[dict[str, Any]] = []
    for saving in savings:
        if saving.name not in found:
            without += _unmeasured([saving], "out of memory")
            continue
        own = found[saving.name]
        without.append(
            {
                "saving": saving.name,
                "seconds_per_object": own.timing.seconds / problem.condition.batch,
                "ratio": own.timing.seconds / timing.seconds,
                "max_difference": float((own.result - reference).abs().max()),
                "largest_logit": scale,
            }
        )
    return timing, working, without


def _unmeasured(savings: Sequence[Saving], reason: str) -> list[dict[str, Any]]:
    return [{"saving": saving.name, "reason": reason} for saving in savings]


@torch.no_grad()
def _parts(settings: Settings, problem: StructureProblem) -> dict[str, float]:
    """Seconds of all objects together: contexts, one guided step, decoder."""

    def seconds(run: Callable[[], Any]) -> float:
        return timed(run, settings.device, settings.repeat, settings.patience_s)[0].seconds

    denoiser = structure_denoiser(problem.flow, problem.condition, 1, "view_wise")
    return {
        "contexts": seconds(lambda: structure_denoiser(problem.flow, problem.condition, 1, "view_wise")),
        "step": seconds(lambda: denoiser.guided(problem.noise, 1.0, 0)),
        "decoder": seconds(lambda: problem.decoder(problem.noise)),
    }


@torch.no_grad()
def _one_step(settings: Settings, problem: StructureProblem) -> tuple[dict[str, float], int | None]:
    """As `_parts`, each run once and nothing warmed up, and the working memory of the three."""

    def run() -> dict[str, float]:
        contexts_s, denoiser = seconds_of(
            lambda: structure_denoiser(problem.flow, problem.condition, 1, "view_wise"), settings.device
        )
        step_s, _ = seconds_of(lambda: denoiser.guided(problem.noise, 1.0, 0), settings.device)
        decoder_s, _ = seconds_of(lambda: problem.decoder(problem.noise), settings.device)
        return {"contexts": contexts_s, "step": step_s, "decoder": decoder_s}

    return with_peak_memory(run, settings.device)


@torch.no_grad()
def _encoders(settings: Settings, bundle: ModelBundle) -> dict[str, float]:
    """Seconds of one crop and of one partial cloud."""
    image, latents = bundle.modules["image_encoder"], bundle.modules["sparse_structure_encoder"]
    crop, occupancy = crops(bundle, settings.device), cloud(bundle, settings.device)
    timing_of = {"image_encoder_per_view": lambda: image.encode(crop), "cloud_encoder": lambda: latents(occupancy)}
    return {
        name: timed(run, settings.device, settings.repeat, settings.patience_s)[0].seconds
        for name, run in timing_of.items()
    }


def _figures(settings: Settings, seconds: float, objects: int, operations: StructureOperations) -> dict[str, float]:
    floor = settings.floor_s(operations.sampling(settings.steps))
    return {
        "seconds_per_object": seconds / objects,
        "floor_s_per_object": floor / objects,
        "times_floor": seconds / floor,
        "share_of_matrix_rate": floor / seconds,
    }
