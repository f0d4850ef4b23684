"""Integration of a flow-matching model's velocity from noise to data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ..errors import CancelledError, Gena3DError, InputError
from .schedule import NO_GUIDANCE, FlowSchedule, Guidance

SIGMA_MIN = 1e-5
"""Noise that is left at flow time 0 in the published models."""


@dataclass(frozen=True)
class Prediction:
    """velocity like x; extra is whatever else the network gives (SceneGen: the assets' poses)."""

    velocity: Tensor
    extra: Any = None


class Denoiser(Protocol):
    """A network with its conditions. t is the flow time in [0, 1], step the index of the sampling step."""

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        """Prediction under the condition."""
        ...

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        """Predictions with and without the condition, from one batched pass where it can be had."""
        ...


@dataclass(frozen=True)
class SampleStep:
    """What `on_step` is told after step `index` of `count`: x at flow time `t_next`, which came from `x_before` at `t`.

    velocity and extra are those at the begin of the step, the velocity guided if the step was.
    """

    index: int
    count: int
    t: float
    t_next: float
    x_before: Tensor
    x: Tensor
    velocity: Tensor
    extra: Any
    sigma_min: float

    @property
    def x0(self) -> Tensor:
        """The data as the step's velocity sees them (computed when asked for)."""
        return estimate_x0(self.x_before, self.velocity, self.t, self.sigma_min)


@dataclass(frozen=True)
class Sample:
    """x at flow time 0, and `extra` of the last conditional prediction."""

    x: Tensor
    extra: Any = None


def estimate_x0(x: Tensor, velocity: Tensor, t: float | Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """(1 - σ) x - (σ + (1 - σ) t) v: the data that x at flow time t leads to along a straight path; t broadcasts."""
    return (1.0 - sigma_min) * x - (sigma_min + (1.0 - sigma_min) * t) * velocity


@torch.no_grad()
def sample(
    denoiser: Denoiser,
    noise: Tensor,
    schedule: FlowSchedule,
    guidance: Guidance = NO_GUIDANCE,
    *,
    method: Literal["euler", "heun"] = "euler",
    sigma_min: float = SIGMA_MIN,
    on_step: Callable[[SampleStep], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Sample:
    """Integrate from `noise` at flow time 1 to the data at 0, without gradients.

    euler: `steps` evaluations of the network. heun (second order): 2 steps - 1, the last step is Euler's, since no
    network was trained at t = 0. A guided evaluation counts once here and costs two rows per sample.
    Whether a step is guided is decided at its begin and holds for both of Heun's velocities: half-guided steps
    would belong to neither velocity field. `cancelled` is asked before every step.
    Raises `CancelledError`, `InputError` for an unknown method, `Gena3DError` for a result that is not finite.
    """
    if method not in ("euler", "heun"):
        raise InputError(f"unknown sampling method '{method}', one of euler, heun")
    times = schedule.times.tolist()
    x, extra = noise, None
    for index, (t, t_next) in enumerate(pairwise(times)):
        if cancelled is not None and cancelled():
            raise CancelledError(f"sampling was cancelled after {index} of {schedule.steps} steps")
        active = guidance.active(t)
        prediction = predict(denoiser, x, t, index, guidance, active=active)
        before, velocity, extra = x, prediction.velocity, prediction.extra
        x = before - (t - t_next) * velocity
        if method == "heun" and t_next > 0:
            second = predict(denoiser, x, t_next, index, guidance, active=active)
            x, extra = before - (t - t_next) * 0.5 * (velocity + second.velocity), second.extra
        if on_step is not None:
            on_step(SampleStep(index, schedule.steps, t, t_next, before, x, velocity, prediction.extra, sigma_min))
    if not bool(torch.isfinite(x).all()):
        raise Gena3DError("sampling ended in values that are not finite: compute in float32 or check the checkpoint")
    return Sample(x, extra)


def predict(denoiser: Denoiser, x: Tensor, t: float, step: int, guidance: Guidance, *, active: bool) -> Prediction:
    """Guided velocity if `active`, else the conditional one; extra is always the conditional one's."""
    if not active:
        return denoiser.conditional(x, t, step)
    conditional, unconditional = denoiser.guided(x, t, step)
    return replace(conditional, velocity=guidance.combine(conditional.velocity, unconditional.velocity))
