"""Depth and free space from views, and the poses of views that have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import InputError
from ..types import View

if TYPE_CHECKING:
    from .placement import StereoResult


class StereoMatcher(Protocol):
    """Fills in the depth of views.

    Matchers that also find poses or a scale have `match(views) -> StereoResult` besides; `match_views` serves both.
    """

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


def _learned(name: str) -> Callable[..., StereoMatcher]:
    def make(
        device: str = "cpu", checkpoint: str | None = None, load_now: bool = True, **options: Any
    ) -> StereoMatcher:
        """load_now: read the weights at once; else only that they are there and fit is checked."""
        from ..checkpoints.scene_geometry import checked_scene_geometry
        from .learned import LearnedStereo, LearnedStereoConfig

        config = LearnedStereoConfig(**options)
        matcher = LearnedStereo(name, checked_scene_geometry(name, checkpoint, device=device), config, device)
        return matcher.load() if load_now else matcher

    return make


def _sfm(device: str = "cpu", **options: Any) -> StereoMatcher:
    from .sfm import StructureFromMotion, StructureFromMotionConfig

    return StructureFromMotion(StructureFromMotionConfig(**options), device=device)


STEREO_MATCHERS: Mapping[str, Callable[..., StereoMatcher]] = {
    "depth_camera": _depth_camera,
    "plane_sweep": _plane_sweep,
    "pi3": _learned("pi3"),
    "pi3x": _learned("pi3x"),
    "vggt": _learned("vggt"),
    "sfm": _sfm,
}
"""Name -> factory that takes `device` and the fields of the matcher's config; torch loads only when one needs it."""

LEARNED: Mapping[str, tuple[str, ...]] = {
    "pi3x": ("pi3x",),
    "pi3": ("pi3",),
    "vggt": ("vggt-commercial", "vggt"),
}
"""Matchers that need weights, best first -> the models of `checkpoints.front_end_table` of which they need one."""
NEED_POSES = ("depth_camera", "plane_sweep")
"""Matchers that take every pose as given."""


def make_stereo_matcher(name: str, **options: Any) -> StereoMatcher:
    """The matcher called `name`, with `options` for its config and a torch `device`.

    Raises `InputError` for an unknown name or option, `DataFormatError` for weights that are absent, damaged or of
    another network, `MissingDependencyError` for a package that is not installed.
    """
    if name not in STEREO_MATCHERS:
        raise InputError(f"unknown stereo matcher '{name}': choose one of {', '.join(sorted(STEREO_MATCHERS))}")
    try:
        return STEREO_MATCHERS[name](**options)
    except TypeError as error:
        raise InputError(f"stereo matcher '{name}': {error}") from error


def match_views(matcher: StereoMatcher, views: Sequence[View]) -> StereoResult:
    """What any matcher makes of `views`, with how far to trust the scale."""
    from .placement import StereoResult

    match = getattr(matcher, "match", None)
    return StereoResult(tuple(matcher(views))) if match is None else match(views)
