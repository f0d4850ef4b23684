"""Time grid, step counts and guidance of flow-matching samplers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class FlowSchedule:
    """Grid of flow times 1 = t_0 > ... > t_steps = 0.

    rescale_t r > 1 spends more steps near the noise: t = r u / (1 + (r - 1) u) of an even grid u.
    """

    steps: int
    rescale_t: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"sampling needs at least one step, got {self.steps}")
        if not (math.isfinite(self.rescale_t) and self.rescale_t > 0):
            raise InputError(f"rescale_t must be positive, got {self.rescale_t}")

    @property
    def times(self) -> Tensor:
        """(steps + 1,) float64, on the CPU."""
        u = np.linspace(1.0, 0.0, self.steps + 1)
        return torch.from_numpy(self.rescale_t * u / (1.0 + (self.rescale_t - 1.0) * u))


def steps_for_views(steps: int, views: int) -> int:
    """Smallest multiple of `views` that is at least `steps`.

    A schedule that shows one view per step then shows every view equally often. GENA3D (A.1) raises its 12 steps
    "for multi-view image conditions that are not divisors of 12 ... to meet their minimum requirements"; this is our
    reading of it: 5 views take 15 steps, 20 views take 20.
    """
    if steps < 1 or views < 1:
        raise InputError(f"steps and views must be at least 1, got {steps} and {views}")
    return views * math.ceil(steps / views)


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance v = (1 + w) v_cond - w v_uncond at flow times inside an interval, both ends included.

    Strength w = 0 is no guidance: the unconditional velocity is then never computed. (With the other convention,
    v_uncond + s (v_cond - v_uncond), s = 1 + w.)
    """

    strength: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise InputError(f"guidance strength must be finite and not negative, got {self.strength}")
        if not low <= high:
            raise InputError(f"the guidance interval must be (low, high), got {self.interval}")

    def active(self, t: float) -> bool:
        """Whether a step that begins at flow time t (float64) is guided."""
        return self.strength != 0 and self.interval[0] <= t <= self.interval[1]

    def combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """The guided velocity."""
        return (1.0 + self.strength) * conditional - self.strength * unconditional


NO_GUIDANCE = Guidance()
