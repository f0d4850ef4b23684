"""Axis-aligned voxel grids: indices, occupancy of points, change of resolution, sampling.

A grid is (origin_m (3,), voxel_size_m, shape (X, Y, Z)), with axes x, y, z in array order; voxel (i, j, k) spans
`origin_m + voxel_size_m * [(i, j, k), (i, j, k) + 1)`. Nothing here depends on metres: the generators' cube
[-0.5, 0.5]^3 is `origin -0.5, size 1 / 64, shape (64, 64, 64)`.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import BoolArray, Float64Array, UInt8Array, VoxelGrid

Shape3 = tuple[int, int, int]
SHAPE_EPSILON = 1e-6
"""Share of a voxel that bounds may exceed a whole number of voxels by before one more voxel is added."""


def shape_of_bounds(low_m: np.ndarray, high_m: np.ndarray, voxel_size_m: float) -> Shape3:
    """Number of voxels along x, y, z that cover the box `low_m` (3,) .. `high_m` (3,).

    Raises `InputError` for a size that is not positive or a box that is empty or not finite.
    """
    low, high = np.asarray(low_m, dtype=np.float64), np.asarray(high_m, dtype=np.float64)
    if not np.isfinite(voxel_size_m) or voxel_size_m <= 0:
        raise InputError(f"voxel_size_m must be positive, got {voxel_size_m}")
    if low.shape != (3,) or high.shape != (3,) or not np.isfinite([low, high]).all() or (high <= low).any():
        raise InputError(f"a grid needs bounds low < high of three numbers each, got {low.tolist()}, {high.tolist()}")
    counts = np.ceil((high - low) / voxel_size_m - SHAPE_EPSILON).astype(int)
    x, y, z = np.maximum(counts, 1).tolist()
    return x, y, z


def grid_around(points_m: np.ndarray, resolution: int, padding: float = 0.0) -> tuple[Float64Array, float]:
    """Origin (3,) and voxel size of the cube of `resolution` voxels a side that is centred on `points_m` (N, 3).

    padding: free room on each side as a share of the longest extent of the points. NaN points are ignored; raises
    `InputError` when none is left or all coincide.
    """
    finite = points_m[np.isfinite(points_m).all(axis=-1)].astype(np.float64)
    if not len(finite) or resolution < 1:
        raise InputError(f"a grid needs at least one finite point and one voxel, got {len(finite)}, {resolution}")
    low, high = finite.min(axis=0), finite.max(axis=0)
    side = float((high - low).max()) * (1.0 + 2.0 * padding)
    if side <= 0:
        raise InputError("all points coincide: the size of their grid is undefined")
    return (low + high) / 2.0 - side / 2.0, side / resolution


def points_to_index(points_m: np.ndarray, origin_m: np.ndarray, voxel_size_m: float) -> np.ndarray:
    """(..., 3) int64 indices of the voxels that hold `points_m` (..., 3), which must be finite; may lie outside."""
    return np.floor((points_m - np.asarray(origin_m)) / voxel_size_m).astype(np.int64)


def index_to_center(index: np.ndarray, origin_m: np.ndarray, voxel_size_m: float) -> Float64Array:
    """(..., 3) centres of the voxels `index` (..., 3)."""
    return np.asarray(origin_m, dtype=np.float64) + (np.asarray(index) + 0.5) * voxel_size_m


def voxel_centers(origin_m: np.ndarray, voxel_size_m: float, shape: Shape3) -> Float64Array:
    """(X, Y, Z, 3) centres of all voxels."""
    axes = [float(o) + (np.arange(n) + 0.5) * voxel_size_m for o, n in zip(origin_m, shape, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def inside_grid(index: np.ndarray, shape: Shape3) -> BoolArray:
    """(...) True where `index` (..., 3) names a voxel of a grid of `shape`."""
    return np.all((index >= 0) & (index < np.asarray(shape)), axis=-1)


def count_points(points_m: np.ndarray, origin_m: np.ndarray, voxel_size_m: float, shape: Shape3) -> np.ndarray:
    """(X, Y, Z) int64 number of `points_m` (N, 3) in each voxel; points that are NaN or outside are ignored."""
    index = points_to_index(points_m[np.isfinite(points_m).all(axis=-1)], origin_m, voxel_size_m)
    index = index[inside_grid(index, shape)]
    flat = np.ravel_multi_index((index[:, 0], index[:, 1], index[:, 2]), shape)
    return np.bincount(flat, minlength=int(np.prod(shape))).reshape(shape)


def points_to_occupancy(
    points_m: np.ndarray, origin_m: np.ndarray, voxel_size_m: float, shape: Shape3, min_points: int = 1
) -> BoolArray:
    """(X, Y, Z) bool, True in voxels that hold at least `min_points` of `points_m` (N, 3)."""
    return count_points(points_m, origin_m, voxel_size_m, shape) >= min_points


def occupied_centers(occupancy: np.ndarray, origin_m: np.ndarray, voxel_size_m: float) -> Float64Array:
    """(N, 3) centres of the True voxels of `occupancy` (X, Y, Z), in array order."""
    return index_to_center(np.argwhere(occupancy), origin_m, voxel_size_m)


def _blocks(array: np.ndarray, factor: int) -> np.ndarray:
    """View of (X, Y, Z) as (X/f, Y/f, Z/f, f^3); raises `InputError` unless every side is a multiple of `factor`."""
    if array.ndim != 3 or factor < 1 or any(n % factor for n in array.shape):
        raise InputError(f"a grid of shape {array.shape} cannot be divided into blocks of {factor} voxels a side")
    x, y, z = (n // factor for n in array.shape)
    return array.reshape(x, factor, y, factor, z, factor).transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, factor**3)


def downsample_occupancy(occupancy: np.ndarray, factor: int, min_fraction: float = 0.0) -> BoolArray:
    """Occupancy (X, Y, Z) at `factor` times the voxel size.

    A block is occupied when it holds an occupied voxel and at least `min_fraction` of its voxels are occupied.
    """
    count = _blocks(np.asarray(occupancy, dtype=bool), factor).sum(axis=-1)
    return (count > 0) & (count >= min_fraction * factor**3)


def upsample(array: np.ndarray, factor: int) -> np.ndarray:
    """Array (X, Y, Z) at 1 / `factor` of the voxel size: every voxel repeated `factor` times along each axis."""
    if array.ndim != 3 or factor < 1:
        raise InputError(f"upsample needs a (X, Y, Z) array and a factor >= 1, got shape {array.shape} and {factor}")
    return array.repeat(factor, axis=0).repeat(factor, axis=1).repeat(factor, axis=2)


def downsample_grid(grid: VoxelGrid, factor: int) -> VoxelGrid:
    """Grid at `factor` times the voxel size: SURFACE where any voxel is, FREE where all are, else UNKNOWN."""
    blocks = _blocks(grid.state, factor)
    state = np.full(blocks.shape[:3], VoxelGrid.UNKNOWN, dtype=np.uint8)
    state[(blocks == VoxelGrid.FREE).all(axis=-1)] = VoxelGrid.FREE
    state[(blocks == VoxelGrid.SURFACE).any(axis=-1)] = VoxelGrid.SURFACE
    return VoxelGrid(grid.origin_m, grid.voxel_size_m * factor, state)


def sample_grid(grid: VoxelGrid, points_m: np.ndarray) -> UInt8Array:
    """(...) uint8 state of the voxels that hold `points_m` (..., 3); UNKNOWN outside the grid and for NaN."""
    finite = np.isfinite(points_m).all(axis=-1)
    index = points_to_index(np.where(finite[..., None], points_m, grid.origin_m), grid.origin_m, grid.voxel_size_m)
    x, y, z = grid.state.shape
    inside = finite & inside_grid(index, (x, y, z))
    index = np.where(inside[..., None], index, 0)
    states = grid.state[index[..., 0], index[..., 1], index[..., 2]]
    return np.where(inside, states, np.uint8(VoxelGrid.UNKNOWN)).astype(np.uint8)
