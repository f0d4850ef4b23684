"""How to sample: the checkpoint's defaults, and what the user sets instead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from ..checkpoints.bundle import ModelBundle, SamplerDefaults, ViewFusion
from ..errors import InputError
from ..sampling import FlowSchedule, Guidance, SampleStep
from ..types import CancelCheck


@dataclass(frozen=True)
class SamplingSettings:
    """What a user may set; None takes the checkpoint's default.

    steps, guidance_strength   of both stages
    method                     euler, or heun (second order, twice the evaluations)
    fusion                     how several views condition the flow
    max_memory_bytes           budget of the whole process on its device, weights included
    """

    steps: int | None = None
    guidance_strength: float | None = None
    method: Literal["euler", "heun"] = "euler"
    fusion: ViewFusion | None = None
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if self.guidance_strength is not None and self.guidance_strength < 0:
            raise InputError(f"guidance_strength must not be negative, got {self.guidance_strength}")


@dataclass(frozen=True)
class StageSampler:
    """How one stage is sampled.

    progress    told the done fraction of the stage, in [0, 1]
    cancelled   asked before every step
    """

    schedule: FlowSchedule
    guidance: Guidance
    method: Literal["euler", "heun"]
    fusion: ViewFusion
    sigma_min: float
    progress: Callable[[float], None] | None = None
    cancelled: CancelCheck | None = None

    def on_step(self, first: int, rows: int, total: int) -> Callable[[SampleStep], None] | None:
        """Reports progress while rows `first` to `first + rows` of `total` are sampled."""
        if self.progress is None:
            return None
        report = self.progress

        def told(step: SampleStep) -> None:
            report((first + rows * (step.index + 1) / step.count) / total)

        return told


def stage_sampler(
    bundle: ModelBundle,
    stage: str,
    settings: SamplingSettings,
    progress: Callable[[float], None] | None = None,
    cancelled: CancelCheck | None = None,
) -> StageSampler:
    """Sampler of `stage` ('sparse_structure' or 'structured_latent'): the settings, then the checkpoint's defaults."""
    defaults = bundle.samplers.get(stage, SamplerDefaults())
    strength = defaults.guidance_strength if settings.guidance_strength is None else settings.guidance_strength
    return StageSampler(
        FlowSchedule(settings.steps or defaults.steps, defaults.rescale_t),
        Guidance(strength, defaults.guidance_interval),
        settings.method,
        settings.fusion or bundle.fusion,
        defaults.sigma_min,
        progress,
        cancelled,
    )


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def chosen_dtype(name: str | None, device: str) -> torch.dtype | None:
    """The dtype called `name` for the matrix products; None: as the files have it, float32 on a CPU.

    Raises `InputError` for an unknown name.
    """
    if name is not None and name not in DTYPES:
        raise InputError(f"unknown dtype '{name}', one of {', '.join(DTYPES)}")
    if name is None:
        # CPUs compute float16 about ten times slower than the float32 that it was rounded from.
        return torch.float32 if torch.device(device).type == "cpu" else None
    return DTYPES[name]
