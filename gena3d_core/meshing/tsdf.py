"""Truncated signed distance fusion of the masked depth of several views into a narrow band around one object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import transforms
from ..types import BoolArray, Float32Array, Float64Array, SupportPlane, View
from .patches import DepthPatch, crop_patch, sample_patch

BAND_VOXELS = 3
"""Truncation distance, and half width of the band in which the field is known, in voxels."""
FREE_WEIGHT = 0.2
"""Weight of a view that only says 'empty here' against 1 for one that measured a surface in the band."""
LAYERS_BELOW = 2
"""Grid layers below the support plane, which lies half-way above the last of them."""
STRAY_CELL_M = 0.01
"""Points in small groups farther than about two such cells from the rest are strays of the depth or the masks."""
MAX_VOXELS = 24_000_000
MAX_SIDE_VOXELS = 128
BEHIND_SUPPORT = 0.6
"""Share of the interpolation that must lie on the surface for a point behind it to count as inside."""
CHUNK_POINTS = 400_000


@dataclass(frozen=True, eq=False)
class TsdfVolume:
    """Signed distance samples on a regular grid whose third axis points up from the support.

    T_world_grid  (4, 4) grid axes (metres) to world; grid point (i, j, k) lies at `voxel_size_m * (i, j, k)`
    voxel_size_m  spacing
    distance_m    (X, Y, Z) float32, positive outside the object; NaN where no view says anything
    weight        (X, Y, Z) float32: summed weight of the views that measured a surface in the band
    deviation_m   (X, Y, Z) float32: spread between those views
    """

    T_world_grid: Float64Array
    voxel_size_m: float
    distance_m: Float32Array
    weight: Float32Array
    deviation_m: Float32Array


def choose_voxel_size(views: Sequence[View], points_m: np.ndarray, point_view: np.ndarray) -> float:
    """Voxel size in metres: about one pixel's footprint, 2 to 6 mm, coarser for objects over a quarter metre."""
    footprints = [
        float(np.median(_camera_depth(view, points_m[point_view == n])) / view.intrinsics.fx)
        for n, view in enumerate(views)
        if (point_view == n).any()
    ]
    longest = float(np.ptp(points_m, axis=0).max())
    return max(float(np.clip(min(footprints), 0.002, 0.006)), longest / MAX_SIDE_VOXELS)


def without_strays(points_m: np.ndarray, cell_m: float = STRAY_CELL_M, min_share: float = 0.01) -> BoolArray:
    """(N,) bool: points in groups of at least `min_share` of all; groups are apart by more than about two cells."""
    grid = np.floor((points_m - points_m.min(axis=0)) / cell_m).astype(np.int64)
    # One integer a cell (21 bits an axis): sorting rows as such is far slower.
    key = np.minimum(grid, 2**21 - 1) @ np.array([1 << 42, 1 << 21, 1])
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    cells = grid[first]
    pairs = cKDTree(cells).query_pairs(2.3, output_type="ndarray")
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(cells), len(cells)))
    _, label = connected_components(graph, directed=False)
    group = label[inverse.reshape(-1)]
    sizes = np.bincount(group)
    return sizes[group] >= min(max(min_share * len(points_m), 3.0), sizes.max())


def _camera_depth(view: View, points_m: np.ndarray) -> np.ndarray:
    return transforms.apply(transforms.inverse(view.T_world_camera), points_m)[:, 2]


def support_frame(support: SupportPlane | None, points_m: np.ndarray) -> Float64Array:
    """`T_world_plane` (4, 4): z along the support's normal (world z without one), origin on it below the points."""
    normal = np.array([0.0, 0.0, 1.0]) if support is None else np.asarray(support.normal, dtype=np.float64)
    side = np.array([1.0, 0.0, 0.0]) if abs(normal[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    x_axis = side - normal * (side @ normal)
    x_axis /= np.linalg.norm(x_axis)
    center = points_m.astype(np.float64).mean(axis=0)
    if support is not None:
        center = center - normal * (center @ normal + support.offset_m)
    return transforms.rigid(np.stack([x_axis, np.cross(normal, x_axis), normal], axis=1), center)


def make_patches(views: Sequence[View], masks: Sequence[np.ndarray], points_m: np.ndarray) -> list[DepthPatch]:
    """The patches of the views in which the points (N, 3) or the masks (H, W) are in sight."""
    patches = (crop_patch(view, mask, points_m) for view, mask in zip(views, masks, strict=True))
    return [patch for patch in patches if patch is not None]


def fuse(
    patches: Sequence[DepthPatch], points_m: np.ndarray, voxel_size_m: float, support: SupportPlane | None = None
) -> TsdfVolume:
    """Fuse the patches' depth around the observed surface points (N, 3).

    Only grid points within the band around `points_m` are evaluated, so no surface arises far from data. With a
    `support` the grid stands on it: layers 0 and 1 lie half a voxel and more below the plane and stay NaN.
    Raises `InputError` for no points or a voxel size that is not positive.
    """
    if not len(points_m):
        raise InputError("fusion needs at least one observed surface point")
    if not voxel_size_m > 0:
        raise InputError(f"voxel size must be positive, got {voxel_size_m}")
    T_world_grid, shape, occupied = _grid_around(points_m, voxel_size_m, support)
    size = 2 * BAND_VOXELS + 1
    band = ndimage.maximum_filter(occupied, size=size, mode="constant")
    if support is not None:
        band[:, :, :LAYERS_BELOW] = False
    points = grid_points_m(np.argwhere(band), voxel_size_m, T_world_grid)
    distance, weight, deviation = fused_distance(patches, points, voxel_size_m)

    def dense(values: np.ndarray, fill: float) -> np.ndarray:
        grid = np.full(shape, fill, dtype=np.float32)
        grid[band] = values
        return grid

    return TsdfVolume(T_world_grid, voxel_size_m, dense(distance, np.nan), dense(weight, 0.0), dense(deviation, 0.0))


def grid_points_m(index: np.ndarray, voxel_size_m: float, T_world_grid: np.ndarray) -> Float32Array:
    """(N, 3) float32 world positions of the grid points `index` (N, 3)."""
    return transforms.apply(T_world_grid, index.astype(np.float32) * np.float32(voxel_size_m))


def _grid_around(
    points_m: np.ndarray, voxel_size_m: float, support: SupportPlane | None
) -> tuple[Float64Array, tuple[int, ...], np.ndarray]:
    """Grid frame, shape and the (X, Y, Z) bool voxels nearest to a point."""
    T_world_plane = support_frame(support, points_m)
    local = transforms.apply(transforms.inverse(T_world_plane), points_m.astype(np.float64))
    if support is not None:
        # Points under the plane (drift, noise) still mark the layers just above it.
        local[:, 2] = np.maximum(local[:, 2], 0.0)
    cells = np.round(local / voxel_size_m).astype(np.int64)
    pad = BAND_VOXELS + 1
    low, high = cells.min(axis=0) - pad, cells.max(axis=0) + pad
    origin = low * voxel_size_m
    if support is not None:
        low[2] = -LAYERS_BELOW
        origin = low * voxel_size_m + np.array([0.0, 0.0, 0.5 * voxel_size_m])
    shape = tuple(int(n) for n in high - low + 1)
    if np.prod(shape, dtype=np.float64) > MAX_VOXELS:
        raise InputError(
            f"the observed points span {np.round(high - low + 1) * voxel_size_m} m, too much for voxels of "
            f"{voxel_size_m * 1000:.1f} mm; remove stray points or choose larger voxels"
        )
    occupied = np.zeros(shape, dtype=bool)
    marked = np.clip(np.round((local - origin) / voxel_size_m).astype(np.int64), 0, np.array(shape) - 1)
    occupied[tuple(marked.T)] = True
    return T_world_plane @ transforms.rigid(t=origin), shape, occupied


def fused_distance(
    patches: Sequence[DepthPatch], points_m: np.ndarray, voxel_size_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What all patches say about points (N, 3), as the fields of `TsdfVolume`: distance in metres, weight, deviation.

    The band is that of volumes with voxels of `voxel_size_m`. Points go in chunks that bound the memory.
    """
    chunks = range(0, max(len(points_m), 1), CHUNK_POINTS)
    parts = [_fuse_chunk(patches, points_m[start : start + CHUNK_POINTS], voxel_size_m) for start in chunks]
    distance, weight, deviation = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return distance, weight, deviation


def _fuse_chunk(
    patches: Sequence[DepthPatch], points_m: np.ndarray, voxel_size_m: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    band = BAND_VOXELS * voxel_size_m
    total, first, second, surface = (np.zeros(len(points_m), dtype=np.float32) for _ in range(4))
    for patch in patches:
        distance, weight, on_surface = signed_distance(patch, points_m, band)
        total += weight
        first += weight * distance
        second += np.where(on_surface, weight * distance * distance, 0.0)
        surface += np.where(on_surface, weight, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, first / total, np.nan).astype(np.float32)
        variance = np.where(surface > 0, second / surface - np.where(total > 0, mean, 0.0) ** 2, 0.0)
    return mean, surface, np.sqrt(np.maximum(variance, 0.0)).astype(np.float32)


def signed_distance(
    patch: DepthPatch, points_m: np.ndarray, band_m: float
) -> tuple[Float32Array, Float32Array, np.ndarray]:
    """What one patch says about N points: signed distance (clipped to the band), weight, and 'in the band' (N,) bool.

    Weight 0 means nothing is known: behind the band, beside the image, or at and behind other objects' surfaces.
    """
    samples = sample_patch(patch, points_m)
    with np.errstate(invalid="ignore"):
        along = samples.surface_m - samples.depth_m
        distance = along * samples.slope
        in_band = samples.on_object & (np.abs(distance) < band_m) & (samples.depth_m > 0)
        # Rays that pass an edge by less than a pixel say nothing about what lies behind it.
        in_band &= (distance > 0) | (samples.support > BEHIND_SUPPORT)
        free = ~in_band & (along > np.where(samples.on_object, 0.0, band_m)) & (samples.depth_m > 0)
    # The share of a measurement falls behind its surface: thin walls must not be outvoted by their far side.
    fade = np.clip(1.0 + distance / band_m, 0.0, 1.0)
    weight = np.where(in_band, samples.weight * fade, np.where(free, FREE_WEIGHT * samples.weight, 0.0))
    value = np.where(in_band, distance, band_m)
    return value.astype(np.float32), np.where(weight > 0, weight, 0.0).astype(np.float32), in_band & (weight > 0)
