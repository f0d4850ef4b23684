"""Sampling of flow-matching models: time grid, guidance, integration, several views, noise.

Flow time is 1 at the noise and 0 at the data; a network predicts the velocity dx/dt. Nothing here knows a network:
`Denoiser` is the seam, and x may be any tensor that it understands, dense (B, C, R, R, R) or sparse features (N, C).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from .errors import CancelledError, Gena3DError, InputError

SIGMA_MIN = 1e-5
NETWORK_TIME = 1000.0
"""Networks are given flow time times this."""

ContextT = TypeVar("ContextT")


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
    for index, (t, t_next) in enumerate(zip(times[:-1], times[1:], strict=True)):
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


def network_time(t: float, rows: int, device: torch.device | str | None = None) -> Tensor:
    """(rows,) float32: flow time as networks take it."""
    return torch.full((rows,), NETWORK_TIME * t, dtype=torch.float32, device=device)


Network = Callable[[Tensor, Tensor, ContextT], "Tensor | Prediction"]
"""(x (rows, ...), t (rows,) from `network_time`, context) -> velocity, or a `Prediction` whose extra is (rows, ...)."""


@dataclass(frozen=True)
class BatchedDenoiser(Generic[ContextT]):
    """A network whose samples are rows of x (B, ...); a guided prediction is one pass.

    conditional_context  serves P rows
    guided_context       serves those P rows, then B rows without the condition
    owner                (P,) int64: sample of each conditional row, for P > B: several views of a sample, whose
                         predictions are averaged ('multidiffusion'); None: P = B, row p is sample p
    """

    network: Network[ContextT]
    conditional_context: ContextT
    guided_context: ContextT
    owner: Tensor | None = None

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        rows = x if self.owner is None else x[self.owner]
        return self._mean(self._run(rows, t, self.conditional_context), len(x))

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        rows = x if self.owner is None else x[self.owner]
        both = self._run(torch.cat([rows, x]), t, self.guided_context)
        conditional, unconditional = split_rows(both, len(rows))
        return self._mean(conditional, len(x)), unconditional

    def _run(self, x: Tensor, t: float, context: ContextT) -> Prediction:
        found = self.network(x, network_time(t, len(x), x.device), context)
        return found if isinstance(found, Prediction) else Prediction(found)

    def _mean(self, prediction: Prediction, batch: int) -> Prediction:
        """Averages over the rows of each sample."""
        if self.owner is None:
            return prediction
        owner, extra = self.owner, prediction.extra
        counts = torch.bincount(owner, minlength=batch)

        def mean(values: Tensor) -> Tensor:
            total = values.new_zeros((batch, *values.shape[1:])).index_add(0, owner, values)
            return total / counts.to(values).reshape(-1, *[1] * (values.ndim - 1))

        return Prediction(mean(prediction.velocity), None if extra is None else mean(extra))


def split_rows(prediction: Prediction, rows: int) -> tuple[Prediction, Prediction]:
    """The first `rows` rows of velocity and extra, and the others."""
    velocity, extra = prediction.velocity, prediction.extra
    if extra is None:
        return Prediction(velocity[:rows]), Prediction(velocity[rows:])
    return Prediction(velocity[:rows], extra[:rows]), Prediction(velocity[rows:], extra[rows:])


@dataclass(frozen=True)
class CyclingViews:
    """One view per step ('stochastic'): step s asks views[s mod K] only.

    last  asked at step `last_step` instead: SceneGen ends on the average over all views
    """

    views: Sequence[Denoiser]
    last: Denoiser | None = None
    last_step: int | None = None

    def at(self, step: int) -> Denoiser:
        """The denoiser that serves `step`."""
        return self.last if self.last is not None and step == self.last_step else self.views[step % len(self.views)]

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return self.at(step).conditional(x, t, step)

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        return self.at(step).guided(x, t, step)


def mean_extra(extras: Sequence[Any]) -> Any:
    """Plain mean of tensors; None stays None."""
    return None if extras[0] is None else torch.stack(list(extras)).mean(dim=0)


@dataclass(frozen=True)
class MeanOfViews:
    """Average of several denoisers' velocities, where their rows cannot share one pass (see `BatchedDenoiser.owner`).

    Guidance is linear, so the average of guided velocities is the guided average; the unconditional velocity is the
    same for every view and computed once.
    """

    views: Sequence[Denoiser]
    average_extra: Callable[[Sequence[Any]], Any] = mean_extra

    def conditional(self, x: Tensor, t: float, step: int) -> Prediction:
        return self._mean([view.conditional(x, t, step) for view in self.views])

    def guided(self, x: Tensor, t: float, step: int) -> tuple[Prediction, Prediction]:
        first, unconditional = self.views[0].guided(x, t, step)
        return self._mean([first, *(view.conditional(x, t, step) for view in self.views[1:])]), unconditional

    def _mean(self, found: Sequence[Prediction]) -> Prediction:
        velocity = torch.stack([prediction.velocity for prediction in found]).mean(dim=0)
        return Prediction(velocity, self.average_extra([prediction.extra for prediction in found]))


def object_seed(seed: int, object_id: str | int, hypothesis: int = 0, purpose: str = "") -> int:
    """Seed of one object's noise, the same in every process and on every machine, in [0, 2^63).

    purpose tells apart the draws of one hypothesis (such as the two stages).
    """
    text = json.dumps([int(seed), str(object_id), int(hypothesis), purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_noise(
    seeds: Sequence[int],
    shape: Sequence[int],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(len(seeds), *shape) of standard normal numbers, entry b from seeds[b] alone.

    Drawn in float32 on the CPU, so that neither the device nor the other objects of the batch change a result.
    """
    return torch.stack([_normal(seed, tuple(shape)) for seed in seeds]).to(device=device, dtype=dtype)


def draw_sparse_noise(
    seeds: Sequence[int],
    counts: Sequence[int],
    channels: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(sum of counts, channels): counts[b] rows from seeds[b] alone, samples in order (see `draw_noise`)."""
    if len(seeds) != len(counts):
        raise InputError(f"one seed per sample: got {len(seeds)} seeds for {len(counts)} samples")
    rows = [_normal(seed, (int(count), channels)) for seed, count in zip(seeds, counts, strict=True)]
    return torch.cat(rows).to(device=device, dtype=dtype)


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed)))
