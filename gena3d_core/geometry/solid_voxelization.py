"""How full the voxels of a grid are with the inside of a closed mesh, from its crossings with a raster of columns."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import Float32Array, Float64Array, Mesh, require_shape
from . import transforms
from .column_crossings import crossings, inside_intervals, is_closed, welded

RESOLUTION = 64


def is_solid(mesh: Mesh) -> bool:
    """Whether the faces bound a volume: each edge is passed as often forwards as backwards, by position.

    Wider than `geometry.mesh.is_watertight`: parts may touch along edges, overlap or lie inside each other, and
    vertices may be doubled for the sake of colours.
    """
    _, faces = welded(mesh)
    return len(faces) > 0 and is_closed(faces)


def solid_occupancy(
    mesh: Mesh, S_world_grid: np.ndarray, resolution: int = RESOLUTION, *, subsamples: int = 2
) -> Float32Array:
    """(R, R, R) float32 in [0, 1]: share of each voxel of the grid that lies inside the mesh.

    The grid is the cube [-0.5, 0.5]^3 of its own frame, index order x, y, z; S_world_grid (4, 4) is the similarity that
    maps that frame to the frame of the mesh, which may reach beyond the cube. Inside is where the winding number is not
    zero: overlapping closed parts are united, inner shells that face inwards are holes. The share is exact along the
    grid's z and sampled by `subsamples`^2 columns in each voxel.

    Raises `InputError` for a mesh that is not closed (`is_solid`), vertices that are not finite, or sizes below 1.
    """
    if resolution < 1 or subsamples < 1:
        raise InputError(f"resolution and subsamples must be at least 1, got {resolution} and {subsamples}")
    require_shape("S_world_grid", S_world_grid, (4, 4))
    vertices, faces = welded(mesh)
    if not len(faces) or not is_closed(faces):
        count = len(mesh.faces)
        raise InputError(
            f"a mesh must be closed to have an inside; this one of {count} faces is open or winds unevenly"
        )
    S_grid_world = np.linalg.inv(np.asarray(S_world_grid, dtype=np.float64))
    # Columns are the unit of x and y, voxels that of z.
    scale = np.array([subsamples, subsamples, 1.0]) * resolution
    points = (transforms.apply(S_grid_world, vertices) + 0.5) * scale
    column, height, step = crossings(points, faces, resolution * subsamples)
    low, high, column = inside_intervals(column, height, step, 0.0, float(resolution))
    x, y = np.divmod(column, resolution * subsamples)
    voxel_column = (x // subsamples) * resolution + y // subsamples
    filled = _covered(voxel_column, low, resolution) - _covered(voxel_column, high, resolution)
    # Differences of sums leave rounding of 1e-15 on empty and full voxels.
    return np.clip(np.round(filled / subsamples**2, 9), 0.0, 1.0).astype(np.float32)


def _covered(column: np.ndarray, start: Float64Array, resolution: int) -> Float64Array:
    """(R, R, R) sum over half-lines from `start` (M,) in [0, R] upwards of their length within each voxel.

    column (M,): number of the voxel column of each half-line, x * R + y.
    """
    cell = np.minimum(start.astype(np.int64), resolution)
    rest = start - cell
    size = resolution + 2
    place = column * size + cell
    # From one voxel to the next the length rises by what the start leaves of its own voxel, then by the rest.
    rise = np.bincount(place, weights=1.0 - rest, minlength=resolution**2 * size)
    rise += np.bincount(place + 1, weights=rest, minlength=resolution**2 * size)
    length: Float64Array = np.cumsum(rise.reshape(resolution, resolution, size), axis=2)
    return length[..., :resolution]
