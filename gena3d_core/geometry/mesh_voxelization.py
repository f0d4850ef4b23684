"""Voxels that the surface of a mesh touches, by the exact triangle-box test.

Source: separating axes of a triangle and a box (Akenine-Möller 2001), all candidate cells at once.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import BoolArray, Float64Array, require_shape

RESOLUTION = 64
CLIP_MARGIN = 1e-6
"""Vertices are kept this far inside the cube [-0.5, 0.5]^3, so that none falls out by rounding."""
CHUNK = 1 << 19
"""Candidate pairs of a triangle and a cell that are tested at once: bounds the memory (some 100 MB)."""


def normalise_vertices(vertices: np.ndarray) -> Float64Array:
    """Vertices (V, 3) scaled and shifted so that the longest side of their box is 1 and its centre the origin.

    Raises `InputError` if they are not finite or all coincide.
    """
    require_shape("vertices", vertices, (None, 3))
    points = np.asarray(vertices, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        raise InputError("a mesh to be normalised needs finite vertices")
    extent = np.ptp(points, axis=0).max()
    if extent <= 0:
        raise InputError("all vertices coincide: the mesh has no size")
    points = points / extent
    return points - (points.min(axis=0) + points.max(axis=0)) / 2.0


def voxelize_surface(
    vertices: np.ndarray, faces: np.ndarray, resolution: int = RESOLUTION, grown: float = 0.0
) -> BoolArray:
    """(R, R, R) bool: cells of the cube [-0.5, 0.5]^3 whose closed box a triangle touches; surface only.

    vertices (V, 3), faces (F, 3). Vertices outside are moved to the cube's walls, as the published data tools do.
    grown: what is added to every box on each side (negative: taken away), in units of the cube. Raises `InputError`
    for vertices that are not finite, faces that name none, or a resolution below 1.
    """
    triangles = _triangles_in_cells(vertices, faces, resolution)
    grown = grown * resolution
    occupancy = np.zeros((resolution,) * 3, dtype=bool)
    # A closed box is touched from below also by what ends on its wall, hence the ceil.
    first = np.maximum(np.ceil(triangles.min(axis=1) - grown).astype(np.int64) - 1, 0)
    last = np.minimum(np.floor(triangles.max(axis=1) + grown).astype(np.int64), resolution - 1)
    spans = np.maximum(last - first + 1, 0)
    counts = spans.prod(axis=1)
    ends = np.cumsum(counts)
    for start in range(0, int(counts.sum()), CHUNK):
        pair = np.arange(start, min(start + CHUNK, int(ends[-1])))
        triangle = np.searchsorted(ends, pair, side="right")
        cell = first[triangle] + _cell_offsets(pair - (ends - counts)[triangle], spans[triangle])
        new = ~occupancy[cell[:, 0], cell[:, 1], cell[:, 2]]
        group = slice(triangle[0], triangle[-1] + 1)
        hit = cell[new][_touches(triangles[group], triangle[new] - triangle[0], cell[new], 0.5 + grown)]
        occupancy[hit[:, 0], hit[:, 1], hit[:, 2]] = True
    return occupancy


def _triangles_in_cells(vertices: np.ndarray, faces: np.ndarray, resolution: int) -> Float64Array:
    """(F, 3, 3) corners in cells: cell (i, j, k) is the box [i, i + 1] x [j, j + 1] x [k, k + 1]."""
    require_shape("vertices", vertices, (None, 3))
    require_shape("faces", faces, (None, 3))
    if resolution < 1:
        raise InputError(f"resolution must be at least 1, got {resolution}")
    points = np.asarray(vertices, dtype=np.float64)
    if not np.isfinite(points).all():
        raise InputError("a mesh to be voxelised needs finite vertices")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(points)):
        raise InputError(f"mesh faces index vertices outside 0..{len(points) - 1}")
    limit = 0.5 - CLIP_MARGIN
    return (np.clip(points, -limit, limit)[faces] + 0.5) * resolution


def occupied_indices(occupancy: np.ndarray) -> np.ndarray:
    """(N, 3) int32 indices of the True cells of (X, Y, Z), sorted by x, then y, then z."""
    return np.argwhere(occupancy).astype(np.int32)


def cell_centers(index: np.ndarray, resolution: int = RESOLUTION) -> Float64Array:
    """(..., 3) centres in [-0.5, 0.5] of the cells `index` (..., 3)."""
    return (np.asarray(index) + 0.5) / resolution - 0.5


def _cell_offsets(number: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """(N, 3) place of cell `number` (N,) in a box of `spans` (N, 3) cells, z fastest."""
    rest, z = np.divmod(number, spans[:, 2])
    x, y = np.divmod(rest, spans[:, 1])
    return np.stack([x, y, z], axis=1)


def _touches(triangles: np.ndarray, triangle: np.ndarray, cell: np.ndarray, half: float) -> BoolArray:
    """(N,) whether triangle number `triangle` (N,) of (F, 3, 3) touches the box of half side `half` around the middle
    of `cell` (N, 3), by the directions in which the two could be apart: axes, plane, edges with axes.
    """
    center = cell + 0.5
    found = np.ones(len(cell), dtype=bool)
    for direction in _separating_directions(triangles):
        left = np.nonzero(found)[0]
        owner = triangle[left]
        extent = np.einsum("fvi,fi->fv", triangles, direction)
        reach = half * np.abs(direction).sum(axis=1)
        low, high = extent.min(axis=1) - reach, extent.max(axis=1) + reach
        middle = np.einsum("ni,ni->n", direction[owner], center[left])
        found[left] = (low[owner] <= middle) & (middle <= high[owner])
    return found


def _separating_directions(triangles: np.ndarray) -> list[Float64Array]:
    """The 13 directions (F, 3) each of a triangle and an axis-aligned box."""
    edges = np.roll(triangles, -1, axis=1) - triangles
    axes = [np.broadcast_to(axis, edges[:, 0].shape) for axis in np.eye(3)]
    normal = np.cross(edges[:, 0], edges[:, 1])
    return [*axes, normal, *(np.cross(edges[:, edge], axis) for axis in axes for edge in range(3))]
