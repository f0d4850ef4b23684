"""What every measurement of the generators is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..sampling import FlowSchedule, Guidance

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GUIDANCE = Guidance(3.0, (0.0, 1.0))
"""Every step is guided: with a guidance interval some are not, and cost half."""


@dataclass(frozen=True)
class Settings:
    """How to measure.

    dtype        of the matrix products, a name of `DTYPES`
    threads      of a CPU; None: as torch finds it
    repeat       runs that a median is taken of
    patience_s   runs of one measurement that take longer together are cut down to one
    matrix_rate  measured operations a second of matrix products on this device in this dtype
    """

    device: str
    dtype: str
    threads: int | None
    steps: int
    repeat: int
    patience_s: float
    matrix_rate: float

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]

    @property
    def schedule(self) -> FlowSchedule:
        return FlowSchedule(self.steps, 3.0)

    def floor_s(self, operations: float) -> float:
        """Seconds of so many operations at the measured rate of matrix products."""
        return operations / self.matrix_rate

    def with_steps(self, steps: int) -> Settings:
        """The same with another number of sampling steps."""
        return Settings(**{**asdict(self), "steps": steps})


def labels(settings: Settings, part: str, size: str, **more: Any) -> dict[str, Any]:
    """The fields that say what a row is about."""
    return {
        "part": part,
        "size": size,
        **more,
        "steps": settings.steps,
        "device": settings.device,
        "dtype": settings.dtype,
        "threads": torch.get_num_threads() if settings.device == "cpu" else None,
    }


def not_measured(settings: Settings, part: str, size: str, reason: str, **more: Any) -> dict[str, Any]:
    """A row that says why it has no figures."""
    return {**labels(settings, part, size, **more), "measured": "no", "reason": reason}
