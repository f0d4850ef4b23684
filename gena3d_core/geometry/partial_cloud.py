"""Partial point clouds of objects for the generators: the grid that an object lives in, and its occupied voxels.

Source: GENA3D, appendix A.1 (normalisation, voxels of 1/64, outlier filter). A grid is the cube [-0.5, 0.5]^3;
`S_world_grid` (4, 4) is its similarity to the world, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..types import BoolArray, Float64Array, ObjectObservation, SupportPlane, View, require_shape
from . import transforms, voxels

RESOLUTION = 64
MIN_NEIGHBOURS = 5
SIDE_FACTOR = 1.5
"""Side of an upright grid over the longest extent of what is known of its object: leaves room for the side that no
camera saw. A ball seen from one side shows half its depth, and just fits."""
WIDENING = 8.0
"""How many voxels' sides the outlier filter may look around in clouds that are sparse throughout."""
WALL = 1e-9
"""How far outside a grid rounding may put a point on its wall."""
MAX_HIDDEN = 0.75
"""Masks of hidden parts widen a grid's box by at most this much of its longest side, in each direction."""
MASK_PERCENTILES = (5.0, 95.0)
MAX_GAP = 1.0
"""An object reaches down to the support if what is seen of it ends at most this many of its longest extents above."""


def tight_grid(points_m: np.ndarray) -> Float64Array:
    """S_world_grid of the axis-aligned cube that just holds the points (N, 3): GENA3D's normalisation.

    NaN points are ignored; raises `InputError` when none is left or all coincide.
    """
    finite = _finite(points_m)
    low, high = finite.min(axis=0), finite.max(axis=0)
    return _grid((low + high) / 2.0, float((high - low).max()))


def place_grid(
    points_m: np.ndarray,
    support: SupportPlane | None = None,
    side_factor: float = SIDE_FACTOR,
    hidden_m: np.ndarray | None = None,
) -> Float64Array:
    """S_world_grid of an upright cube, z up, around the likely full extent of the object that points (N, 3) belong to.

    The extent is the box of the points without outliers, extended down to the support plane at its middle unless the
    gap is too large (`MAX_GAP`); the cube shares its centre and is `side_factor` times as wide as its longest side.
    It is not moved away from the cameras. hidden_m (M, 3): where hidden parts may be (`hidden_points`); they widen the
    box by at most `MAX_HIDDEN` of its longest side, and not into the support. NaN points are ignored; raises
    `InputError` when none is left or all coincide.
    """
    finite = _finite(points_m)
    extent = float(np.ptp(finite, axis=0).max())
    kept = finite[dense_points(finite, extent / RESOLUTION, widening=WIDENING)]
    if 2 * len(kept) < len(finite):  # not outliers, but a cloud without density
        kept = finite
    low, high = kept.min(axis=0), kept.max(axis=0)
    extent = float((high - low).max())
    floor = -np.inf if support is None else _height_of_plane(support, (low + high) / 2.0)
    if 0.0 < low[2] - floor <= MAX_GAP * extent:
        low[2] = floor
    if hidden_m is not None and len(hidden_m):
        reach = MAX_HIDDEN * float((high - low).max())
        lowest = np.clip(hidden_m.min(axis=0), low - reach, low)
        lowest[2] = max(lowest[2], min(low[2], floor))
        low, high = lowest, np.clip(hidden_m.max(axis=0), high, high + reach)
    return _grid((low + high) / 2.0, side_factor * float((high - low).max()))


def hidden_points(views: Sequence[View], occlusion_masks: Sequence[np.ndarray], points_m: np.ndarray) -> Float64Array:
    """(M, 3) corners in the world of where hidden parts of an object may be: its occlusion masks at its own depth.

    occlusion_masks (H, W) bool for each view; points_m (N, 3): what is seen of the object. Of each view the box of its
    mask without the outermost twentieths, at the median depth of the points.
    """
    finite = _finite(points_m)
    corners = []
    for view, mask in zip(views, occlusion_masks, strict=True):
        rows, cols = np.nonzero(mask)
        depth_m = float(np.median(transforms.apply(transforms.inverse(view.T_world_camera), finite)[:, 2]))
        if not len(rows) or depth_m <= 0:
            continue
        top, bottom = np.percentile(rows, MASK_PERCENTILES)
        left, right = np.percentile(cols, MASK_PERCENTILES)
        pixels = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
        lens = view.intrinsics
        rays = np.ones((4, 3))
        rays[:, :2] = (pixels - [lens.cx, lens.cy]) / [lens.fx, lens.fy]
        corners.append(transforms.apply(view.T_world_camera, rays * depth_m))
    return np.concatenate(corners) if corners else np.zeros((0, 3))


def observed_grid(observation: ObjectObservation) -> Float64Array:
    """S_world_grid of frame `observed`: `place_grid` of the points and of where hidden parts may be."""
    hidden_m = hidden_points(observation.views, observation.occlusion_masks, observation.points_m)
    return place_grid(observation.points_m, observation.support, hidden_m=hidden_m)


def prepare_cloud(
    points_m: np.ndarray, S_world_grid: np.ndarray, resolution: int = RESOLUTION, min_neighbours: int = MIN_NEIGHBOURS
) -> BoolArray:
    """(R, R, R) bool: voxels of the grid that hold points (N, 3) with enough neighbours within a voxel's side.

    Of clouds that are sparse throughout the neighbours may be farther (see `dense_points`). All False if no point is
    left: there is nothing then to condition on.
    """
    points = np.asarray(points_m, dtype=np.float64)
    require_shape("points_m", points, (None, 3))
    in_grid = transforms.apply(transforms.inverse(S_world_grid), points[np.isfinite(points).all(axis=1)])
    kept = in_grid[dense_points(in_grid, 1.0 / resolution, min_neighbours, WIDENING)]
    # Points on the walls, which every cloud has in a tight grid, belong to the outermost voxels.
    kept = np.where(np.abs(kept) < 0.5 + WALL, np.clip(kept, WALL - 0.5, 0.5 - WALL), kept)
    return voxels.points_to_occupancy(kept, np.full(3, -0.5), 1.0 / resolution, (resolution,) * 3)


def dense_points(
    points: np.ndarray, radius: float, min_neighbours: int = MIN_NEIGHBOURS, widening: float = 1.0
) -> BoolArray:
    """(N,) True for points (N, 3), finite, with at least `min_neighbours` others within `radius`.

    The point itself does not count; others at the same place do. widening: clouds so sparse that the filter would
    take most of them are judged by a wider radius, twice the median distance to that neighbour, but at most
    `widening` times `radius`; 1 is the paper's filter.
    """
    if len(points) <= min_neighbours:
        return np.zeros(len(points), dtype=bool)
    # The nearest few tell: counting all neighbours of dense clouds takes many times as long. The point itself is one
    # of those found.
    distance = cKDTree(points).query(points, k=[min_neighbours + 1])[0][:, 0]
    return distance <= np.clip(2.0 * np.median(distance), radius, widening * radius)


def _finite(points_m: np.ndarray) -> Float64Array:
    points = np.asarray(points_m, dtype=np.float64)
    require_shape("points_m", points, (None, 3))
    finite = points[np.isfinite(points).all(axis=1)]
    if not len(finite):
        raise InputError("an object without points has no grid: leave it out, or give it depth")
    return finite


def _grid(center_m: np.ndarray, side_m: float) -> Float64Array:
    if side_m <= 0:
        raise InputError("all points coincide: the size of their grid is undefined")
    return transforms.rigid(side_m * np.eye(3), center_m)


def _height_of_plane(support: SupportPlane, at_m: np.ndarray) -> float:
    """World z of the plane under or over a point; -inf for a plane that is upright."""
    if support.normal[2] <= 1e-6:
        return -np.inf
    return float(-(support.normal[:2] @ at_m[:2] + support.offset_m) / support.normal[2])
