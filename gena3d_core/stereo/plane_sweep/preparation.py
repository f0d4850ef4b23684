"""What features tell before the sweep: corrected poses, and points that bound the depth."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...geometry.bundle_adjustment import MIN_TRACKS, adjust, well_triangulated
from ...geometry.feature_tracks import find_tracks
from ...types import Float64Array, View
from .config import PlaneSweepConfig

SUSPICIOUS_RESIDUAL_PX = 3.0


def prepare(views: Sequence[View], config: PlaneSweepConfig) -> tuple[list[View], Float64Array | None]:
    """The views with corrected poses (as they were with `refine_poses` off), and scene points (N, 3) in the world.

    The points are None when nothing needs them or too few features match. Warns when features contradict the poses.
    """
    range_is_given = config.min_depth_m is not None and config.max_depth_m is not None
    if range_is_given and not config.refine_poses:
        return list(views), None
    tracks = find_tracks(views)
    if tracks.count < MIN_TRACKS:
        return list(views), None
    sigmas = {} if config.refine_poses else {"sigma_position_m": 1e-9, "sigma_rotation_rad": 1e-9}
    result = adjust(views, tracks, **sigmas)
    residual_px = float(np.median(result.residual_px))
    if residual_px > SUSPICIOUS_RESIDUAL_PX:
        warnings.warn(
            f"plane_sweep: matched features miss the given poses by {residual_px:.1f} px (median): "
            "check that poses, intrinsics and image stamps belong together"
        )
    if config.refine_poses:
        views = [replace(view, T_world_camera=T) for view, T in zip(views, result.T_world_camera, strict=True)]
    return list(views), result.points_m[well_triangulated(views, tracks, result)]
