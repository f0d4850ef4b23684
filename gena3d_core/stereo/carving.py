"""Free-space carving: which voxels do the depth images prove empty, and which hold observed surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import minimum_filter

from ..errors import InputError
from ..geometry import camera, transforms, voxels
from ..types import BoolArray, Float32Array, View, VoxelGrid

DEPTH_NOISE_M = 0.005
"""Least margin by default: what depth cameras at table distance err by."""
VOXELS_PER_BATCH = 1 << 19
"""Bounds the memory of one batch of voxels x views."""


def carve_free_space(
    views: Sequence[View],
    low_m: np.ndarray,
    high_m: np.ndarray,
    voxel_size_m: float,
    *,
    margin_m: float | None = None,
    surface_margin_m: float | None = None,
    min_confidence: float = 0.3,
) -> VoxelGrid:
    """Carve the box `low_m` (3,) .. `high_m` (3,) of the world by the depth of `views`.

    A voxel is SURFACE when it holds a trusted depth point or its centre lies within `surface_margin_m` of the depth
    seen through it (default: half its diagonal, at most `margin_m`); else FREE when at least one trusted depth lies
    more than `margin_m` behind its centre along the optical axis (default: half its diagonal, at least 5 mm); else
    UNKNOWN. A depth is trusted when finite and its confidence is at least `min_confidence`. Views without depth
    prove nothing. Raises `InputError` when no view has depth, or for bad bounds, size or margins.
    """
    shape = voxels.shape_of_bounds(low_m, high_m, voxel_size_m)
    half_diagonal_m = voxel_size_m * 3**0.5 / 2.0
    margin_m = max(half_diagonal_m, DEPTH_NOISE_M) if margin_m is None else margin_m
    surface_margin_m = min(half_diagonal_m, margin_m) if surface_margin_m is None else surface_margin_m
    if not (0 <= surface_margin_m <= margin_m < np.inf):
        raise InputError(f"margins must satisfy 0 <= surface <= free, got {surface_margin_m} and {margin_m} metres")
    seeing = [view for view in views if view.depth_m is not None]
    if not seeing:
        raise InputError("free-space carving needs at least one view with depth; run stereo first")

    origin_m = np.asarray(low_m, dtype=np.float64)
    depth_of_view = [_trusted_depth(view, min_confidence) for view in seeing]
    x_axis, y_axis, z_axis = (origin_m[a] + (np.arange(shape[a]) + 0.5) * voxel_size_m for a in range(3))
    yz = np.stack(np.meshgrid(y_axis, z_axis, indexing="ij"), axis=-1).reshape(-1, 2)
    lookup = _DepthLookup(seeing, depth_of_view)
    free, surface = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    rows = max(1, VOXELS_PER_BATCH // (len(yz) * len(seeing)))
    for start in range(0, shape[0], rows):
        x = x_axis[start : start + rows]
        centers = np.concatenate([np.repeat(x, len(yz))[:, None], np.tile(yz, (len(x), 1))], axis=1)
        block = (len(x), shape[1], shape[2])
        behind_m, least_behind_m = lookup(centers)
        with np.errstate(invalid="ignore"):
            free[start : start + rows] = (least_behind_m > margin_m).any(axis=0).reshape(block)
            surface[start : start + rows] = (np.abs(behind_m) <= surface_margin_m).any(axis=0).reshape(block)
    for view, depth_m in zip(seeing, depth_of_view, strict=True):
        points_m = transforms.apply(view.T_world_camera, camera.backproject(depth_m, view.intrinsics))
        surface |= voxels.points_to_occupancy(points_m.reshape(-1, 3), origin_m, voxel_size_m, shape)

    state = np.full(shape, VoxelGrid.UNKNOWN, dtype=np.uint8)
    state[free] = VoxelGrid.FREE
    # An observed surface is never carved away by another view: poses and depth of two views disagree by the noise.
    state[surface] = VoxelGrid.SURFACE
    return VoxelGrid(origin_m, float(voxel_size_m), state)


def _trusted_depth(view: View, min_confidence: float) -> Float32Array:
    assert view.depth_m is not None
    trusted: BoolArray = np.isfinite(view.depth_m) & (view.depth_m > 0)
    if view.depth_confidence is not None:
        trusted &= view.depth_confidence >= min_confidence
    return np.where(trusted, view.depth_m, np.float32(np.nan))


def _nearest_around(depth_m: Float32Array) -> Float32Array:
    """(H, W) least depth of each pixel's 3x3 neighbours, NaN where the pixel has none itself.

    At a silhouette the pixel nearest to a point of the object may look past the object: that must not carve it.
    """
    least = minimum_filter(np.where(np.isfinite(depth_m), depth_m, np.float32(np.inf)), size=3, mode="nearest")
    return np.where(np.isfinite(depth_m), least, np.float32(np.nan))


class _DepthLookup:
    """How far behind world points the depth of each view lies, all views in one batch."""

    def __init__(self, views: Sequence[View], depth_of_view: Sequence[Float32Array]) -> None:
        T = np.stack([transforms.inverse(view.T_world_camera) for view in views])
        K = np.stack([view.intrinsics.matrix for view in views])
        self.P = (K @ T[:, :3]).astype(np.float32)
        self.sizes = np.array([(v.intrinsics.height, v.intrinsics.width) for v in views], dtype=np.int64)
        counts = self.sizes.prod(axis=1)
        self.first = np.cumsum(counts) - counts
        # One NaN at the end answers for points that no pixel sees.
        unknown = np.array([np.nan], dtype=np.float32)
        self.depth_m = np.concatenate([d.ravel() for d in depth_of_view] + [unknown])
        self.least_m = np.concatenate([_nearest_around(d).ravel() for d in depth_of_view] + [unknown])

    def __call__(self, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V, N) metres from `points_m` (N, 3) to the depth at their nearest pixel, and to the least depth around it.

        NaN where none is known.
        """
        uvw = self.P[:, :, :3] @ points_m.astype(np.float32).T + self.P[:, :, 3:]
        z = uvw[:, 2]
        in_front = z > 1e-6
        scale = 1.0 / np.where(in_front, z, np.float32(1.0))
        height, width = self.sizes[:, :1], self.sizes[:, 1:]
        cols, rows = uvw[:, 0] * scale + 0.5, uvw[:, 1] * scale + 0.5
        inside = in_front & (cols >= 0) & (cols < width) & (rows >= 0) & (rows < height)
        cols, rows = np.where(inside, cols, 0).astype(np.int64), np.where(inside, rows, 0).astype(np.int64)
        index = np.where(inside, self.first[:, None] + rows * width + cols, len(self.depth_m) - 1)
        return self.depth_m[index] - z, self.least_m[index] - z
