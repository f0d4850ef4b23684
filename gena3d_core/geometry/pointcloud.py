"""Point clouds: normals of depth images, voxel thinning, projection of masks."""

from __future__ import annotations

import numpy as np

from ..types import Float32Array


def depth_normals(points_m: np.ndarray, step: int = 4, max_jump: float = 0.03) -> Float32Array:
    """Unit normals (H, W, 3) float32 of an organised cloud (H, W, 3) in the camera frame, towards the camera.

    Central differences over `step` pixels to each side; NaN where a neighbour is missing or its range differs by
    more than `max_jump` times the range (another surface). Source: the usual organised-cloud normal estimate.
    """
    height, width = points_m.shape[:2]
    normals = np.full(points_m.shape, np.nan, dtype=np.float32)
    if height <= 2 * step or width <= 2 * step:
        return normals
    center = points_m[step:-step, step:-step]
    across = points_m[step:-step, 2 * step :] - points_m[step:-step, : -2 * step]
    down = points_m[2 * step :, step:-step] - points_m[: -2 * step, step:-step]
    limit = 2.0 * max_jump * center[..., 2]
    with np.errstate(invalid="ignore"):
        smooth = (np.abs(across[..., 2]) < limit) & (np.abs(down[..., 2]) < limit)
        smooth &= np.abs(points_m[step:-step, 2 * step :, 2] - center[..., 2]) < limit
        smooth &= np.abs(points_m[2 * step :, step:-step, 2] - center[..., 2]) < limit
    normal = np.cross(down, across)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        normal = normal / length
    # The sign follows from the image axes for every surface that the camera can see; noise may flip a few.
    normal = np.where((normal * center).sum(axis=-1, keepdims=True) > 0, -normal, normal)
    normals[step:-step, step:-step] = np.where(smooth[..., None], normal, np.nan)
    return normals


def voxel_keys(points_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """(N,) int64: one key for each voxel of side `voxel_size_m`, equal for points (N, 3) in the same voxel."""
    cells = np.floor(np.asarray(points_m, dtype=np.float64) / voxel_size_m).astype(np.int64)
    cells -= cells.min(axis=0, initial=0)
    extent = cells.max(axis=0, initial=0) + 1
    return (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]


def voxel_thin(points_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """Indices (M,) of one point for each occupied voxel of side `voxel_size_m`, in ascending order."""
    if not len(points_m):
        return np.zeros(0, dtype=np.int64)
    return np.sort(np.unique(voxel_keys(points_m, voxel_size_m), return_index=True)[1])
