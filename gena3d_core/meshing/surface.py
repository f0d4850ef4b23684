"""Surfaces from volumes: marching cubes of signed distance bands and of occupancy."""

from __future__ import annotations

import numpy as np
from skimage.measure import marching_cubes

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..types import Mesh

MAX_STEP_VOXELS = 3.0
"""Largest span of distances in one cube, in voxels: a true distance spans at most sqrt(3), a depth edge far more."""


def cube_corners(grid: np.ndarray) -> np.ndarray:
    """(8, X-1, Y-1, Z-1) values at the corners of each cube of a grid (X, Y, Z)."""
    x, y, z = grid.shape
    return np.stack([grid[i : x - 1 + i, j : y - 1 + j, k : z - 1 + k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])


def surface_from_distance(distance: np.ndarray, voxel_size_m: float, T_world_grid: np.ndarray) -> Mesh:
    """Open surface where all eight corners of a cube are known and the field is smooth there.

    distance (X, Y, Z) metres, positive outside, NaN = unknown. Returns a mesh in the world, possibly without faces.
    """
    corners = cube_corners(distance)
    with np.errstate(invalid="ignore"):
        span = corners.max(axis=0) - corners.min(axis=0)
        crossing = (corners.max(axis=0) > 0) & (corners.min(axis=0) <= 0) & (span < MAX_STEP_VOXELS * voxel_size_m)
    if not crossing.any():
        return mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    mask = np.zeros(distance.shape, dtype=bool)
    # The marching cubes of scikit-image looks up a cube's mask at its highest corner.
    mask[1:, 1:, 1:] = crossing
    return _extract(np.nan_to_num(distance, nan=1.0), 0.0, voxel_size_m, T_world_grid, mask)


def surface_from_occupancy(
    occupancy: np.ndarray, voxel_size_m: float, T_world_grid: np.ndarray, level: float = 0.5
) -> Mesh:
    """Watertight surface of an occupancy or indicator (X, Y, Z), larger inside, at `level`.

    `T_world_grid` (4, 4) may be a similarity; the volume is padded with empty space, so that the surface closes.
    Raises `InputError` if no voxel lies above the level.
    """
    if not (occupancy > level).any():
        raise InputError(f"no voxel of the {occupancy.shape} grid lies above the level {level}")
    padded = np.pad(occupancy.astype(np.float32), 1, constant_values=min(0.0, float(occupancy.min())))
    # Values at the level itself make faces without area, which break the closed surface.
    padded = np.where(np.abs(padded - level) < 1e-5, level - 1e-5, padded).astype(np.float32)
    shift = transforms.rigid(t=np.full(3, -voxel_size_m))
    return _extract(level - padded, 0.0, voxel_size_m, T_world_grid @ shift, None)


def _extract(
    field: np.ndarray, level: float, voxel_size_m: float, T_world_grid: np.ndarray, mask: np.ndarray | None
) -> Mesh:
    try:
        vertices, faces, _, _ = marching_cubes(field, level, mask=mask, gradient_direction="descent")
    except (RuntimeError, ValueError):
        return mesh_ops.make_mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    return mesh_ops.make_mesh(transforms.apply(T_world_grid, vertices.astype(np.float64) * voxel_size_m), faces)
