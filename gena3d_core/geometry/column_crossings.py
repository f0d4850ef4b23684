"""Where a mesh crosses a raster of parallel lines, and the intervals of those lines that lie inside it."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import Float64Array, Mesh
from .mesh import directed_edges

CHUNK = 1 << 20
"""Candidate pairs of a triangle and a column that are tested at once: bounds the memory (some 100 MB)."""
GOLDEN = 0.6180339887498949
"""Columns lie off the middle of their cell by multiples of the golden section, in x from row to row and in y from line
to line: walls along the grid are then met by the right share of columns, and round coordinates by none."""


def welded(mesh: Mesh) -> tuple[Float64Array, np.ndarray]:
    """Vertices (V, 3) without those at equal positions, and faces (F, 3) without those that then repeat a vertex."""
    if not np.isfinite(mesh.vertices).all():
        raise InputError("a mesh whose inside is wanted needs finite vertices")
    # adding zero turns -0.0 into 0.0: rows are compared as bytes, which is far faster than by value
    rows = np.ascontiguousarray(mesh.vertices.astype(np.float32) + np.float32(0.0))
    _, first, inverse = np.unique(rows.view("V12").reshape(-1), return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[mesh.faces].reshape(-1, 3)
    proper = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return rows[first].astype(np.float64), faces[proper]


def is_closed(faces: np.ndarray) -> bool:
    """Whether every directed edge is met as often as its reverse."""
    edges = directed_edges(faces).astype(np.int64)
    count = int(faces.max()) + 1
    forward, backward = edges @ np.array([count, 1]), edges @ np.array([1, count])
    return bool(np.array_equal(np.sort(forward), np.sort(backward)))


def crossings(points: Float64Array, faces: np.ndarray, columns: int) -> tuple[np.ndarray, Float64Array, np.ndarray]:
    """Where faces cross the columns: column (N,), height (N,) and change of the winding number (N,) when going up.

    points (V, 3): x and y in columns, so that column (i, j) is a vertical line somewhere over the cell (i, j).
    """
    a, b, c = (points[faces[:, k], :2] for k in range(3))
    shift = (np.arange(1, columns + 1) * GOLDEN) % 1.0
    first = np.clip(np.floor(np.minimum(np.minimum(a, b), c)), 0, columns).astype(np.int64)
    last = np.clip(np.floor(np.maximum(np.maximum(a, b), c)), -1, columns - 1).astype(np.int64)
    spans = np.maximum(last - first + 1, 0)
    counts = spans[:, 0] * spans[:, 1]
    ends = np.cumsum(counts)
    found = []
    for start in range(0, int(ends[-1]), CHUNK):
        pair = np.arange(start, min(start + CHUNK, int(ends[-1])))
        face = np.searchsorted(ends, pair, side="right")
        x, y = np.divmod(pair - (ends - counts)[face], spans[face, 1])
        x, y = x + first[face, 0], y + first[face, 1]
        inside, height, step = _crossing_of_pair(points, faces, face, x + shift[y], y + shift[x])
        found.append((x[inside] * columns + y[inside], height, step))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64)
    column, height, step = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return column, height, step


def _crossing_of_pair(
    points: Float64Array, faces: np.ndarray, face: np.ndarray, x: Float64Array, y: Float64Array
) -> tuple[np.ndarray, Float64Array, np.ndarray]:
    """Which faces `face` (N,) the vertical lines over (x, y) (N,) cross: index (M,), height (M,), step (M,) of +-1."""
    weights = np.empty((3, len(face)))
    for corner in range(3):
        start, end = faces[:, (corner + 1) % 3], faces[:, (corner + 2) % 3]
        # Both faces of an edge compute its side from the same end, so that a line is on one side for both.
        low, high = points[np.minimum(start, end)], points[np.maximum(start, end)]
        along = (high - low)[:, :2]
        sign = np.where(start < end, 1.0, -1.0)
        side = along[face, 0] * (y - low[face, 1]) - along[face, 1] * (x - low[face, 0])
        # A line exactly on the edge counts as being to the left of the edge from its lower vertex.
        side[side == 0.0] = np.finfo(np.float64).tiny
        weights[corner] = side * sign[face]
    left = weights > 0.0
    hit = np.nonzero(left.all(axis=0) | ~left.any(axis=0))[0]
    weights = weights[:, hit] / weights[:, hit].sum(axis=0)
    z = points[faces, 2][face[hit]]
    height = np.clip(np.einsum("kn,nk->n", weights, z), z.min(axis=1), z.max(axis=1))
    # A face seen counter-clockwise from above looks up: going up through it leaves the inside.
    return hit, height, np.where(left[0, hit], -1, 1)


def inside_intervals(
    column: np.ndarray, height: Float64Array, step: np.ndarray, low: float = -np.inf, high: float = np.inf
) -> tuple[Float64Array, Float64Array, np.ndarray]:
    """Lower and upper ends (M,), within [low, high], of the intervals of non-zero winding, and the column (M,) of each.

    Ordered by column, then height.
    """
    if not len(column):
        return height, height, column
    order = np.lexsort((height, column))
    column, height, step = column[order], height[order], step[order]
    _, first, number = np.unique(column, return_index=True, return_inverse=True)
    ends = np.cumsum(step)
    before = (ends - step)[first]
    # All steps in a column of a closed mesh cancel; where rounding lost a crossing, the column counts as empty.
    balanced = np.append(before[1:], ends[-1]) == before
    number = number.reshape(-1)
    winding = ends - before[number]
    within = (winding[:-1] != 0) & (number[:-1] == number[1:]) & balanced[number[:-1]]
    height = np.clip(height, low, high)
    return np.asarray(height[:-1][within]), np.asarray(height[1:][within]), np.asarray(column[:-1][within])


def outer_intervals(column: np.ndarray, height: Float64Array) -> tuple[Float64Array, Float64Array, np.ndarray]:
    """Like `inside_intervals` for meshes that are not closed: in each column all between the ends counts as inside."""
    if not len(column):
        return height, height, column
    order = np.lexsort((height, column))
    column, height = column[order], height[order]
    found, first = np.unique(column, return_index=True)
    last = np.append(first[1:], len(column)) - 1
    return np.asarray(height[first]), np.asarray(height[last]), found
