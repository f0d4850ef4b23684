"""The completion step: object observations in, completed objects out, batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .types import CancelCheck, CompletedObject, ObjectObservation, ProgressCallback


class ObjectGenerator(Protocol):
    """Completes objects; every implementation takes the whole list at once so that it can batch."""

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """One completed object for each observation, in their order.

        seed makes the result reproducible, independent of which other objects are in the list; hypotheses is the
        number of samples drawn for each object (their agreement gives the confidence). Raises `CancelledError`
        when `cancelled()` becomes true and `InputError` for an observation that holds no points.
        """
        ...
