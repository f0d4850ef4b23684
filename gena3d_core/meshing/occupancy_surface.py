"""Closed surface of the occupancy logits that a sparse-structure decoder gives, with sub-voxel precision."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..geometry import transforms
from ..types import Mesh
from .surface import surface_from_occupancy


def surface_from_logits(logits: np.ndarray, *, cube: float = 1.0) -> Mesh:
    """Watertight surface where the logits change sign, in the grid frame [-cube/2, cube/2]³.

    logits  (R, R, R) float, axes x, y, z, positive inside; voxel (i, j, k) has its centre at
            ((i, j, k) + 0.5) · cube / R - cube / 2. What reaches the border of the grid
            is closed at the faces of the cube
    cube    edge length of the grid; its unit is that of the mesh

    Raises `InputError` for another shape, values that are not finite, or no positive logit (nothing is occupied).
    """
    values = np.asarray(logits, dtype=np.float32)
    if values.ndim != 3 or len(set(values.shape)) != 1 or not values.size:
        raise InputError(f"occupancy logits: shape {values.shape}, want (R, R, R)")
    if not np.isfinite(values).all():
        raise InputError("occupancy logits hold values that are not finite")
    if not (values > 0).any():
        raise InputError(f"no positive logit in the {values.shape} grid: nothing is occupied")
    voxel = cube / len(values)
    # The mirror image of the outermost values, where they are inside, puts the surface on the cube's faces.
    closed = -np.abs(np.pad(values, 1, mode="edge"))
    closed[1:-1, 1:-1, 1:-1] = values
    T_cube_grid = transforms.rigid(t=np.full(3, -0.5 * voxel - 0.5 * cube))
    return surface_from_occupancy(closed, voxel, T_cube_grid, level=0.0)
