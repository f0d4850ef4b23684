"""Depth and free space from posed views."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..types import View


class StereoMatcher(Protocol):
    """Fills in the depth of views."""

    def __call__(self, views: Sequence[View]) -> list[View]:
        """The same views in the same order, each with `depth_m` and `depth_confidence` set (NaN / 0 where unknown)."""
        ...
