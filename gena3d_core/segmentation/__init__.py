"""Objects in views: visible masks with ids that are consistent across views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import InputError
from ..types import BoxPrompt, Prompt, Segmentation, View


class Segmenter(Protocol):
    """Finds objects in views that have depth.

    A segmenter that takes more than boxes says so: `prompt_kinds`, the types of prompts that it takes; `prompt_kinds`
    below serves both.
    """

    def __call__(self, views: Sequence[View], prompts: Sequence[Prompt] = ()) -> Segmentation:
        """Objects with one visible mask a view; with `prompts`, the prompted objects only."""
        ...


def prompt_kinds(segmenter: Segmenter) -> frozenset[type]:
    """The types of prompts, out of `types.Prompt`, that the segmenter takes."""
    return getattr(segmenter, "prompt_kinds", frozenset({BoxPrompt}))


def _tabletop(device: str = "cpu", **options: Any) -> Segmenter:
    """Geometry is numpy on the CPU: `device` is accepted so that every segmenter is made alike."""
    from .tabletop import Tabletop, TabletopConfig

    return Tabletop(TabletopConfig(**options))


def _promptable(name: str) -> Callable[..., Segmenter]:
    def make(**options: Any) -> Segmenter:
        from .learned import make_promptable

        return make_promptable(name, **options)

    return make


def _grounded(**options: Any) -> Segmenter:
    from .learned import make_grounded

    return make_grounded(**options)


def _auto(device: str = "cpu") -> Segmenter:
    from .choice import make_auto

    return make_auto(device)


SEGMENTERS: Mapping[str, Callable[..., Segmenter]] = {
    "tabletop": _tabletop,
    "sam": _promptable("sam"),
    "sam2": _promptable("sam2"),
    "sam3": _promptable("sam3"),
    "grounded": _grounded,
    "auto": _auto,
}
"""Name -> factory that takes `device` and the fields of the segmenter's config; torch loads only when one needs it."""


def make_segmenter(name: str, **options: Any) -> Segmenter:
    """The segmenter called `name`, with `options` for its config and a torch `device`.

    Raises `InputError` for an unknown name or option, `DataFormatError` for weights that are absent, damaged or of
    another network, `MissingDependencyError` for a package that is not installed.
    """
    if name not in SEGMENTERS:
        raise InputError(f"unknown segmenter '{name}': choose one of {', '.join(sorted(SEGMENTERS))}")
    try:
        return SEGMENTERS[name](**options)
    except TypeError as error:
        raise InputError(f"segmenter '{name}': {error}") from error
