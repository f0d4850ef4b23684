"""Objects in views: visible masks with ids that are consistent across views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..types import BoxPrompt, Segmentation, View


class Segmenter(Protocol):
    """Finds objects in views that have depth."""

    def __call__(self, views: Sequence[View], prompts: Sequence[BoxPrompt] = ()) -> Segmentation:
        """Objects with one visible mask a view; with `prompts`, the prompted objects only."""
        ...
