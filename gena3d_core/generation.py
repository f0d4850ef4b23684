"""The completion step: object observations in, completed objects out, batched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from .errors import InputError
from .observed import ObservedSurface
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


def _from_checkpoint(family: str) -> Callable[..., ObjectGenerator]:
    def make(checkpoint: str = family, **options: Any) -> ObjectGenerator:
        from .generative.flow_generator import make_flow_generator  # imports torch, which `observed` does without

        return make_flow_generator(checkpoint, **options)

    return make


CHECKPOINT_GENERATORS = ("edge", "gena3d", "amodal3r", "trellis-image-large")
"""Generators that are families of checkpoints; the option `checkpoint` names their files."""
GENERATORS: dict[str, Callable[..., ObjectGenerator]] = {
    "observed": ObservedSurface,
    **{family: _from_checkpoint(family) for family in CHECKPOINT_GENERATORS},
}
"""Generators by name."""


def make_generator(name: str, **options: Any) -> ObjectGenerator:
    """The generator called `name`; raises `InputError` for an unknown name or option."""
    if name not in GENERATORS:
        raise InputError(f"unknown generator '{name}'; choose one of: {', '.join(sorted(GENERATORS))}")
    try:
        return GENERATORS[name](**options)
    except TypeError as error:
        raise InputError(f"generator '{name}' does not take the options {sorted(options)}: {error}") from error
