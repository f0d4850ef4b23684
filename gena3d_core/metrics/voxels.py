"""Intersection over union of two meshes as voxels."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..geometry import mesh as mesh_ops
from ..geometry.mesh_voxelization import voxelize_surface
from ..types import BoolArray, Float64Array, Mesh

RESOLUTION = 64
"""Voxels along the longest side of the true object."""
MAX_MARGIN = 64
"""Voxels by which the lattice is extended at most on each side to hold a result larger than the object."""


def longest_side(mesh: Mesh) -> float:
    """Longest side of the bounding box, in the mesh's unit. Raises `InputError` for a mesh without vertices."""
    low, high = mesh_ops.bounds(mesh)
    return float((high - low).max())


def enclosed(surface: np.ndarray) -> BoolArray:
    """(X, Y, Z) bool: voxels off the `surface` (X, Y, Z) that no path over faces of voxels joins to the border."""
    labels, _ = ndimage.label(~surface)
    outside = np.zeros(int(labels.max()) + 1, dtype=bool)
    for axis in range(3):
        for end in (0, -1):
            outside[np.take(labels, end, axis=axis)] = True
    outside[0] = True  # the surface itself
    return ~outside[labels]


def occupancy(mesh: Mesh, center: np.ndarray, side: float, margin: int, resolution: int = RESOLUTION) -> BoolArray:
    """(R + 2m, ...) bool: voxels that the mesh touches or encloses.

    The lattice has R = `resolution` voxels along the cube of `side` around `center` (3,), and m = `margin` more on each
    side; what lies outside is moved to its walls. Surfaces that are open by more than a voxel enclose nothing: they
    count as the voxels they touch, so that partial surfaces and solids can be compared.
    """
    size = resolution + 2 * margin
    points: Float64Array = (mesh.vertices.astype(np.float64) - center) / side * (resolution / size)
    surface = voxelize_surface(points, mesh.faces, size)
    return surface | enclosed(np.pad(surface, 1))[1:-1, 1:-1, 1:-1]


def true_occupancy(truth: Mesh, resolution: int = RESOLUTION) -> BoolArray:
    """(R + 2, ...) bool: what `truth` takes up of a lattice around its own box, with a rim of one voxel."""
    low, high = mesh_ops.bounds(truth)
    return occupancy(truth, (low + high) / 2.0, longest_side(truth), 1, resolution)


def voxel_iou(predicted: Mesh, truth: Mesh, resolution: int = RESOLUTION, *, known: BoolArray | None = None) -> float:
    """Intersection over union of what both meshes (same frame) touch or enclose.

    Voxels measure 1 / `resolution` of the longest side of `truth`, whose box is the middle of the lattice; parts of
    `predicted` outside that box count as wrong. known: `true_occupancy` of `truth`, where it is at hand. 0 for a mesh
    without faces. Raises `InputError` if `truth` has none.
    """
    low, high = mesh_ops.bounds(truth)
    center, side = (low + high) / 2.0, longest_side(truth)
    if not len(predicted.faces):
        return 0.0
    reach = np.abs(predicted.vertices.astype(np.float64) - center).max() / side - 0.5
    margin = int(np.clip(np.ceil(reach * resolution), 1, MAX_MARGIN))
    ours = occupancy(predicted, center, side, margin, resolution)
    theirs = np.pad(true_occupancy(truth, resolution) if known is None else known, margin - 1)
    return float((ours & theirs).sum() / (ours | theirs).sum())
