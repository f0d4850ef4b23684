"""Objects in views: visible masks with ids that are consistent across views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import InputError
from ..types import BoxPrompt, Segmentation, View


class Segmenter(Protocol):
    """Finds objects in views that have depth."""

    def __call__(self, views: Sequence[View], prompts: Sequence[BoxPrompt] = ()) -> Segmentation:
        """Objects with one visible mask a view; with `prompts`, the prompted objects only."""
        ...


def _tabletop(**options: Any) -> Segmenter:
    from .tabletop import Tabletop, TabletopConfig

    return Tabletop(TabletopConfig(**options))


SEGMENTERS: Mapping[str, Callable[..., Segmenter]] = {"tabletop": _tabletop}
"""Name -> factory that takes the fields of the segmenter's config."""


def make_segmenter(name: str, **options: Any) -> Segmenter:
    """The segmenter called `name`, with `options` for its config; raises `InputError` for an unknown name or option."""
    if name not in SEGMENTERS:
        raise InputError(f"unknown segmenter '{name}': choose one of {', '.join(sorted(SEGMENTERS))}")
    try:
        return SEGMENTERS[name](**options)
    except TypeError as error:
        raise InputError(f"segmenter '{name}': {error}") from error
