"""The completion step: object observations in, completed objects out, batched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .errors import IncompleteError, InputError
from .observed import ObservedSurface
from .types import (
    CancelCheck,
    CompletedObject,
    GeneratedScene,
    ObjectObservation,
    ProgressCallback,
    SceneObservation,
)


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
        when `cancelled()` becomes true, `InputError` for an observation that holds no points, and `IncompleteError`,
        which carries the objects that are done, where nothing comes out for some.
        """
        ...


class SceneGenerator(Protocol):
    """Imagines all assets of a scene together with their places to one another."""

    def generate(
        self,
        scene: SceneObservation,
        *,
        query: int | None = None,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> GeneratedScene:
        """Assets in the order of the observation, as far as they came out, and their poses.

        query: number of the asset in whose frame and unit the poses are. seed makes the result reproducible, whatever
        the order of the assets; hypotheses: samples drawn of the whole scene. Raises `CancelledError` when
        `cancelled()` becomes true, `InputError` for an asset that no image shows, `EmptyResultError` if nothing at all
        came out.
        """
        ...


MIN_POINTS = 20
"""Objects with fewer observed points are not completed: their place and size would be guesses."""


def free_space_resolution(generator: ObjectGenerator) -> int:
    """Voxels along a side of the free-space grid that a generator wants in its observations (0: it has no use for it).

    Generators say so by an attribute of this name.
    """
    return int(getattr(generator, "free_space_resolution", 0))


def complete_objects(
    generator: ObjectGenerator,
    observations: Sequence[ObjectObservation],
    *,
    seed: int = 0,
    hypotheses: int = 1,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
) -> tuple[list[CompletedObject], list[str]]:
    """One completed object for each observation, in their order, and warnings.

    Objects with too few points, and those for which nothing comes out, keep the surface that was observed, and a
    warning says so: one object must not cost the others. Other errors as of `ObjectGenerator.generate`.
    """
    observed = ObservedSurface()
    reasons: dict[int, str] = {}
    if not isinstance(generator, ObservedSurface):
        reasons = {item.id: reason for item in observations if (reason := _too_little(item))}
    wanted = [item for item in observations if item.id not in reasons]
    try:
        completed = generator.generate(wanted, seed=seed, hypotheses=hypotheses, progress=progress, cancelled=cancelled)
    except IncompleteError as error:
        completed = list(error.completed)
        reasons |= error.reasons
    found = {item.id: item for item in completed}
    for item in observations:
        if item.id not in found:
            found[item.id] = observed.generate([item])[0]
    warnings = [
        f"object {item.id} ('{item.label}') is not completed, only what was seen is shown: {reasons[item.id]}"
        for item in observations
        if item.id in reasons
    ]
    return [found[item.id] for item in observations], warnings


def _too_little(observation: ObjectObservation) -> str:
    """Why an object cannot be completed; empty if it can."""
    if len(observation.points_m) < MIN_POINTS:
        return f"it has {len(observation.points_m)} points with depth, fewer than {MIN_POINTS}"
    if not np.ptp(observation.points_m, axis=0).any():
        return "all its points coincide"
    return ""


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


SCENE_GENERATORS = ("edge_scene", "scenegen")
"""Generators of whole scenes: families of checkpoints."""


def make_scene_generator(name: str, **options: Any) -> SceneGenerator:
    """The generator of scenes called `name`, or `AUTO`: the one that comes with the package.

    options: of `generative.scene_generator.make_scene_generator`. Raises `InputError` for an unknown name or option,
    `DataFormatError` for a checkpoint that is not there.
    """
    from .generative.scene_generator import make_scene_generator as make  # imports torch

    name = SCENE_GENERATORS[0] if name == AUTO else name
    if name not in SCENE_GENERATORS:
        raise InputError(f"unknown generator of scenes '{name}'; choose one of: {', '.join([AUTO, *SCENE_GENERATORS])}")
    try:
        return make(**{"checkpoint": name, **options})
    except TypeError as error:
        raise InputError(f"generator '{name}' does not take the options {sorted(options)}: {error}") from error


AUTO = "auto"
"""`edge` where its weights are, `observed` elsewhere."""


def chosen_generator(name: str, *, checkpoint: object = None) -> str:
    """What `auto` stands for on this machine; other names as they are. checkpoint: that was asked for, if any."""
    if name != AUTO:
        return name
    if checkpoint:
        return "edge"
    from .checkpoints.locate import local_folder  # imports torch

    return "edge" if local_folder("edge") is not None else "observed"


def make_generator(name: str, **options: Any) -> ObjectGenerator:
    """The generator called `name`, or `AUTO`; raises `InputError` for an unknown name or option."""
    name = chosen_generator(name, checkpoint=options.get("checkpoint"))
    if name not in GENERATORS:
        raise InputError(f"unknown generator '{name}'; choose one of: {', '.join([AUTO, *sorted(GENERATORS)])}")
    try:
        return GENERATORS[name](**options)
    except TypeError as error:
        raise InputError(f"generator '{name}' does not take the options {sorted(options)}: {error}") from error
