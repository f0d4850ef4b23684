"""Completion without training: what a generator has to beat. Each is an `ObjectGenerator`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import InputError
from ..generation import ObjectGenerator
from ..observed import ObservedSurface
from .hull import HullBaseline
from .mirror import MirrorBaseline
from .nearest import NearestBaseline
from .shape_library import open_library

__all__ = ["BASELINES", "HullBaseline", "MirrorBaseline", "NearestBaseline", "make_baseline", "open_library"]


def _nearest(library: str | Path | None, split: str | None) -> ObjectGenerator:
    if library is None:
        raise InputError("the baseline 'nearest' needs a folder of shapes: give --library")
    return NearestBaseline(open_library(library, split))


BASELINES: dict[str, Callable[[str | Path | None, str | None], ObjectGenerator]] = {
    "observed": lambda library, split: ObservedSurface(),
    "hull": lambda library, split: HullBaseline(),
    "mirror": lambda library, split: MirrorBaseline(),
    "nearest": _nearest,
}
"""Name -> maker from a folder of shapes and its split, which only retrieval needs."""


def make_baseline(name: str, library: str | Path | None = None, split: str | None = None) -> ObjectGenerator:
    """The baseline called `name`. Raises `InputError` for an unknown name or a missing library."""
    if name not in BASELINES:
        raise InputError(f"unknown baseline '{name}'; choose one of: {', '.join(BASELINES)}")
    return BASELINES[name](library, split)
