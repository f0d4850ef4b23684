"""What an evaluation of single objects shows its methods: conditions, the examples they lead to, and their seeds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import InputError
from ..meshing.solid_closing import close_mesh, normalise
from ..simulation.example_settings import ExampleSettings, evaluation_settings, with_text_settings
from ..simulation.object_example import ObjectExample, make_example
from ..types import Mesh

FREE_SPACE_RESOLUTION = 64
VISIBLE_SPREAD = 0.15
"""Behind other objects, the visible share of views lies this far around what the occlusion leaves."""


@dataclass(frozen=True)
class Condition:
    """views: pictures of the object; occlusion: share of its surface that is hidden, in [0, 1).

    changes: `key=value` changes of the examples' settings, on top of those of a whole evaluation
    """

    views: int
    occlusion: float
    changes: tuple[str, ...] = ()


def _surface(condition: Condition) -> ExampleSettings:
    return evaluation_settings(condition.views, condition.occlusion)


def _objects(condition: Condition) -> ExampleSettings:
    shown = 1.0 - condition.occlusion
    return replace(
        evaluation_settings(condition.views),
        occlusion="objects" if condition.occlusion > 0 else "none",
        visible_share=(max(0.05, shown - VISIBLE_SPREAD), min(1.0, shown + VISIBLE_SPREAD)),
    )


PROTOCOLS: dict[str, tuple[str, Callable[[Condition], ExampleSettings]]] = {
    "surface": ("GENA3D's 3D-consistent masks over that share of the surface, 30-70 % visible in each view", _surface),
    "objects": ("other objects in front, which hide about that share of the object's picture", _objects),
}
"""Kinds of occlusion: what they are, and the settings of a condition."""


def example_settings(protocol: str, condition: Condition, changes: Sequence[str] = ()) -> ExampleSettings:
    """Settings of `make_example`, with `key=value` texts applied. Raises `InputError` for what does not exist."""
    if protocol not in PROTOCOLS:
        raise InputError(f"unknown protocol '{protocol}'; choose one of: {', '.join(PROTOCOLS)}")
    if condition.views < 1 or not 0.0 <= condition.occlusion < 1.0:
        raise InputError(f"an example needs at least one view and an occlusion in [0, 1), got {condition}")
    settings = replace(PROTOCOLS[protocol][1](condition), free_space_resolution=FREE_SPACE_RESOLUTION)
    return with_text_settings(settings, (*changes, *condition.changes))


def example_seed(seed: int, object_id: str, condition: Condition) -> int:
    """Seed of an example, of the object and the occlusion alone: fewer views are then the first of those of more, and
    what changes the settings changes nothing else."""
    return zlib.crc32(f"{seed}/{object_id}/{condition.occlusion:.6f}".encode())


def evaluation_example(mesh: Mesh, settings: ExampleSettings, seed: int, scale_m: float | None) -> ObjectExample:
    """The example of a mesh in the unit cube, which is closed as for training. Raises `InputError` if it makes none."""
    return make_example(normalise(close_mesh(mesh)), settings, seed, scale_m=scale_m)
