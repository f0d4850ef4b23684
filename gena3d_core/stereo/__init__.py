"""Depth and free space from posed views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import InputError
from ..types import View


class StereoMatcher(Protocol):
    """Fills in the depth of views."""

    def __call__(self, views: Sequence[View]) -> list[View]:
        """The same views in the same order, each with `depth_m` and `depth_confidence` set (NaN / 0 where unknown)."""
        ...


def _depth_camera(device: str = "cpu", **options: Any) -> StereoMatcher:
    """Cleaning is numpy on the CPU: `device` is accepted so that every matcher is made alike."""
    from .depth_camera import DepthCamera, DepthCameraConfig

    return DepthCamera(DepthCameraConfig(**options))


def _plane_sweep(device: str = "cpu", **options: Any) -> StereoMatcher:
    from .plane_sweep import PlaneSweep, PlaneSweepConfig

    return PlaneSweep(PlaneSweepConfig(**options), device=device)


STEREO_MATCHERS: Mapping[str, Callable[..., StereoMatcher]] = {
    "depth_camera": _depth_camera,
    "plane_sweep": _plane_sweep,
}
"""Name -> factory that takes `device` and the fields of the matcher's config; torch loads only when one needs it."""


def make_stereo_matcher(name: str, **options: Any) -> StereoMatcher:
    """The matcher called `name`, with `options` for its config and a torch `device`.

    Raises `InputError` for an unknown name or option.
    """
    if name not in STEREO_MATCHERS:
        raise InputError(f"unknown stereo matcher '{name}': choose one of {', '.join(sorted(STEREO_MATCHERS))}")
    try:
        return STEREO_MATCHERS[name](**options)
    except TypeError as error:
        raise InputError(f"stereo matcher '{name}': {error}") from error
