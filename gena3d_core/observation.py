"""Gathers, for each segmented object, everything the views tell about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .amodal.occlusion import occlusion_masks
from .errors import InputError
from .geometry import camera, transforms
from .geometry.partial_cloud import observed_grid
from .geometry.registration import refine_poses_around
from .stereo.carving import carve_free_space
from .types import Float32Array, ObjectMask, ObjectObservation, Segmentation, View

ALIGNMENT_MARGIN_M = 0.08
"""The table this far around an object helps to align the views of it."""


def build_observations(
    views: Sequence[View],
    segmentation: Segmentation,
    *,
    free_space_resolution: int = 0,
    align_objects: bool = False,
) -> list[ObjectObservation]:
    """One observation for each object that has at least one pixel with valid depth.

    free_space_resolution: voxels along a side of the cube around each object that is carved (0: no carving). It is the
    cube of `partial_cloud.observed_grid`, so that generators of that resolution find their own voxels in it.
    align_objects: align the views once more around each object; its observation then carries views with poses that
    hold for this object, because errors of depth cameras differ from place to place.
    """
    scene_views = views
    # Poses change from object to object; points in the camera frames do not.
    points_camera_m = [_points_camera_m(view) for view in views]
    observations = []
    for mask in segmentation.objects:
        views = scene_views
        points_m, colors, view_index = _gather_points(views, points_camera_m, mask)
        if not len(points_m):
            continue
        if align_objects and len(np.unique(view_index)) > 1:
            views = _aligned(scene_views, points_m)
            points_m, colors, view_index = _gather_points(views, points_camera_m, mask)
        observation = ObjectObservation(
            id=mask.id,
            label=mask.label,
            score=mask.score,
            views=tuple(views),
            visible_masks=mask.visible_masks,
            occlusion_masks=occlusion_masks(views, mask.visible_masks, points_m, segmentation.support),
            points_m=points_m,
            point_colors=colors,
            point_view=view_index,
            support=segmentation.support,
        )
        observations.append(with_free_space(observation, free_space_resolution))
    return observations


def with_free_space(observation: ObjectObservation, resolution: int) -> ObjectObservation:
    """The observation with its cube carved in `resolution`^3 voxels; 0, or points that all coincide: unchanged."""
    if resolution == 0 or not np.ptp(observation.points_m, axis=0).any():
        return observation
    S_world_grid = observed_grid(observation)
    side_m = float(S_world_grid[0, 0])
    center = S_world_grid[:3, 3]
    carved = carve_free_space(observation.views, center - side_m / 2.0, center + side_m / 2.0, side_m / resolution)
    return replace(observation, free_space=carved)


def _aligned(views: Sequence[View], points_m: np.ndarray) -> list[View]:
    """The views with poses refined around an object's points."""
    low, high = np.percentile(points_m, [2.0, 98.0], axis=0)
    radius_m = float(np.linalg.norm(high - low)) / 2.0 + ALIGNMENT_MARGIN_M
    return refine_poses_around(views, (low + high) / 2.0, radius_m)[0]


def _points_camera_m(view: View) -> Float32Array:
    if view.depth_m is None:
        raise InputError(f"view '{view.name}' has no depth after stereo")
    return camera.backproject(view.depth_m, view.intrinsics)


def _gather_points(
    views: Sequence[View], points_camera_m: Sequence[Float32Array], mask: ObjectMask
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """World points (N, 3), their colours (N, 3) and view indices (N,) of the masked pixels with valid depth."""
    points, colors, counts = [], [], []
    for view, in_camera, visible in zip(views, points_camera_m, mask.visible_masks, strict=True):
        chosen = visible & np.isfinite(in_camera[..., 2])
        points.append(transforms.apply(view.T_world_camera, in_camera[chosen]))
        colors.append(view.color[chosen])
        counts.append(len(points[-1]))
    index = np.repeat(np.arange(len(views), dtype=np.int32), counts)
    return np.concatenate(points).astype(np.float32), np.concatenate(colors), index
