"""Denoisers: a network over rows with one pass for guidance, and the ways to show it several views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..errors import InputError
from .integration import Denoiser, Prediction

NETWORK_TIME = 1000.0
"""Networks are given flow time times this."""

ContextT = TypeVar("ContextT")


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

    @cached_property
    def _groups(self) -> tuple[Tensor, Tensor]:
        """Rows sorted by sample, and the number of rows of each sample."""
        assert self.owner is not None
        counts = torch.bincount(self.owner)
        if not bool((counts > 0).all()):
            raise InputError("`owner` leaves samples without a conditional row")
        return self.owner.argsort(stable=True), counts

    def _mean(self, prediction: Prediction, batch: int) -> Prediction:
        """Averages over the rows of each sample."""
        if self.owner is None:
            return prediction
        order, counts = self._groups
        if len(counts) != batch:
            raise InputError(f"`owner` names {len(counts)} samples, x holds {batch}")

        def mean(values: Tensor) -> Tensor:
            # Not index_add: on a GPU its order of summation, and with it the last digit, changes from run to run.
            return torch.segment_reduce(values[order], "mean", lengths=counts)

        extra = prediction.extra
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

    Samples with K_b views of their own share one list if its length is a multiple of every K_b: entry k then holds
    view k mod K_b of sample b.
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
