"""The surface that cameras measured, as signed distances at the voxels of a generator's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..meshing.tsdf import BAND_VOXELS, choose_voxel_size, fused_distance, make_patches, without_strays
from ..types import BoolArray, Float32Array, ObjectObservation

FULL_TRUST_WEIGHT = 0.25
"""Summed weight of the views (cosine of incidence times confidence of the depth) from which on they decide alone."""
BEHIND = 2.0
"""A measurement tells that so many voxels behind its surface are filled, and less and less over one more: how thick
an object is, no camera measured."""


@dataclass(frozen=True, eq=False)
class MeasuredDistance:
    """distance (R, R, R) float32: to the measured surface in voxels, positive outside; 0 where nothing was measured.

    trust  (R, R, R) float32 in [0, 1]: what that measurement counts against other knowledge; 0 where there is none
    """

    distance: Float32Array
    trust: Float32Array


def measured_distance(
    observation: ObjectObservation, centers_m: np.ndarray, cloud: BoolArray
) -> MeasuredDistance | None:
    """Depth of all views fused around the observed voxels `cloud` (R, R, R); None without depth, points or voxels.

    centers_m (R, R, R, 3): the voxels' centres in the world. Where voxels are finer than the depth images, the band in
    which views are fused is as wide as it is for the generator `observed`, and so its noise averages out.
    """
    finite = np.isfinite(observation.points_m).all(axis=1)
    with_depth = [number for number, view in enumerate(observation.views) if view.depth_m is not None]
    if not cloud.any() or not finite.any() or not with_depth:
        return None
    points_m, point_view = observation.points_m[finite], observation.point_view[finite]
    kept = without_strays(points_m)
    points_m, point_view = points_m[kept], point_view[kept]
    views = [observation.views[number] for number in with_depth]
    patches = make_patches(views, [observation.visible_masks[number] for number in with_depth], points_m)
    voxel_m = float(np.linalg.norm(centers_m[1, 0, 0] - centers_m[0, 0, 0]))
    near = ndimage.binary_dilation(cloud, np.ones((3, 3, 3), dtype=bool), iterations=BAND_VOXELS)
    spacing_m = max(voxel_m, choose_voxel_size(observation.views, points_m, point_view))
    distance_m, weight, _ = fused_distance(patches, centers_m[near].astype(np.float32), spacing_m)
    voxels = np.where(weight > 0, distance_m / voxel_m, 0.0)
    inside = np.clip(BEHIND + 1.0 + voxels, 0.0, 1.0)
    distance, trust = np.zeros(cloud.shape, dtype=np.float32), np.zeros(cloud.shape, dtype=np.float32)
    distance[near], trust[near] = voxels, np.minimum(weight / FULL_TRUST_WEIGHT, 1.0) * inside
    return MeasuredDistance(distance, trust)
