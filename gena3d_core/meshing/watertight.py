"""A closed solid from an open surface: smoothed winding numbers by convolution on a grid."""

from __future__ import annotations

import numpy as np
from scipy import fft, ndimage
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..types import Mesh
from .cleaning import drop_small_components
from .simplification import with_nearest_attributes
from .surface import surface_from_occupancy

SAMPLES_PER_VOXEL_FACE = 6.0
HULL_DIRECTIONS = 128
SHELL_VOXELS = 1.5
"""Least thickness of the solid: more than one voxel, so that no sheet falls between the grid points."""
UNSEEN_CONFIDENCE = 0.1
"""Confidence of surface that closes what no view saw."""


def make_watertight(mesh: Mesh, resolution: int = 72, seed: int = 0) -> Mesh:
    """A watertight mesh with positive volume around an open one; a closed mesh is returned as it is.

    Solid is where the winding number of the surface (smoothed over about a voxel) exceeds the mean that it has on the
    surface itself, within the convex hull; sheets become one to two voxels thick. `resolution` voxels span the longest
    side. Vertices that lie farther than 1.5 voxels from the open surface count as not observed. Raises `InputError`
    for a mesh without area.
    """
    if mesh_ops.is_watertight(mesh) and mesh_ops.volume(mesh) > 0:
        return mesh
    low, high = mesh_ops.bounds(mesh)
    voxel = float((high - low).max()) / resolution
    if not voxel > 0:
        raise InputError("cannot close a mesh whose bounding box has no extent")
    origin = low - 3.0 * voxel
    shape = tuple(int(n) for n in np.ceil((high - low) / voxel) + 7)
    count = int(np.clip(SAMPLES_PER_VOXEL_FACE * mesh_ops.area(mesh) / voxel**2, 2_000, 400_000))
    points, faces = mesh_ops.sample_surface(mesh, count, np.random.default_rng(seed))
    normals = mesh_ops.face_normals(mesh)[faces] * (mesh_ops.area(mesh) / count)
    local = (points - origin) / voxel

    winding = winding_field(local, normals / voxel**2, shape)
    on_surface = ndimage.map_coordinates(winding, local.T, order=1)
    field = winding - float(on_surface.mean()) if len(on_surface) else winding
    field = np.minimum(field, _hull_indicator(local, shape))
    # Keeps sheets and thin walls, whose winding number cancels: about a voxel of solid around every sample.
    field = np.maximum(field, _shell(local, mesh_ops.face_normals(mesh)[faces], shape))
    field = _fill_cavities(np.where(np.isfinite(field), field, -0.5))
    solid = surface_from_occupancy(field, voxel, transforms.rigid(t=origin), level=0.0)
    solid = drop_small_components(solid, min_share=0.01)
    return _with_observed(solid, mesh, points, 1.5 * voxel)


def winding_field(points: np.ndarray, area_normals: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Winding number on the grid points of `shape`: 1 deep inside a closed surface, 0 far outside, smooth between.

    points (N, 3) in voxels; area_normals (N, 3) outward normals times the area in voxels squared. The dipole field of
    the samples is a convolution, done by FFT with zero padding.
    """
    size = tuple(fft.next_fast_len(2 * n, real=True) for n in shape)
    density = np.zeros((3, *shape))
    base = np.floor(points).astype(np.intp)
    fraction = points - base
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(corner, fraction, 1.0 - fraction), axis=1)
        flat = np.ravel_multi_index(tuple((base + corner).T), shape, mode="clip")
        for axis in range(3):
            density[axis].reshape(-1)[:] += np.bincount(
                flat, weights=share * area_normals[:, axis], minlength=density[axis].size
            )
    offsets = [np.minimum(np.arange(n), n - np.arange(n)) * np.where(np.arange(n) <= n // 2, 1, -1) for n in size]
    x, y, z = (o.astype(np.float64) for o in np.meshgrid(*offsets, indexing="ij", sparse=True))
    # Softened within a voxel, so that the field passes through the surface instead of jumping.
    cube = 1.0 / (4.0 * np.pi * (x * x + y * y + z * z + 0.5) ** 1.5)
    total = sum(
        fft.rfftn(density[axis], size, workers=-1) * fft.rfftn(-offset * cube, workers=-1)
        for axis, offset in enumerate((x, y, z))
    )
    return fft.irfftn(total, size, workers=-1)[tuple(slice(n) for n in shape)]


def _hull_indicator(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """About the distance in voxels inside the convex hull (of fixed face directions), clipped to [-0.5, 0.5]."""
    inside = np.full(shape, 0.5, dtype=np.float32)
    x, y, z = (np.arange(n, dtype=np.float32) for n in shape)
    for direction in mesh_ops.sphere_directions(HULL_DIRECTIONS).astype(np.float32):
        reach = np.float32((points @ direction).max() + 0.25)
        plane = (direction[0] * x)[:, None, None] + (direction[1] * y)[:, None] + direction[2] * z
        np.minimum(inside, reach - plane, out=inside)
    return np.maximum(inside, -0.5)


def _shell(points: np.ndarray, normals: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Positive within `SHELL_VOXELS` behind the nearest sample, by its normal; at least -0.5."""
    near = np.zeros(shape, dtype=bool)
    near[tuple(np.round(points).astype(np.intp).T)] = True
    index = np.argwhere(ndimage.maximum_filter(near, size=3))
    _, nearest = cKDTree(points).query(index)
    height = np.einsum("ni,ni->n", index - points[nearest], normals[nearest])
    shell = np.full(shape, -0.5)
    shell[tuple(index.T)] = np.clip(np.minimum(-height, SHELL_VOXELS + height), -0.5, 0.5)
    return shell


def _fill_cavities(field: np.ndarray) -> np.ndarray:
    """The field made solid in hollows that no path connects to the outside."""
    solid = field > 0
    hollow = ndimage.binary_fill_holes(solid) & ~solid
    return np.where(hollow, 0.25, field)


def _with_observed(solid: Mesh, source: Mesh, samples: np.ndarray, reach: float) -> Mesh:
    """Attributes of the nearest source vertex; what is farther than `reach` from the source is not observed."""
    solid = with_nearest_attributes(solid, source)
    distance, _ = cKDTree(samples).query(solid.vertices, distance_upper_bound=reach)
    near = np.isfinite(distance)
    observed = near if solid.vertex_observed is None else near & solid.vertex_observed
    confidence = np.ones(len(near), np.float32) if solid.vertex_confidence is None else solid.vertex_confidence
    return Mesh(
        vertices=solid.vertices,
        faces=solid.faces,
        vertex_colors=solid.vertex_colors,
        vertex_confidence=np.where(near, confidence, np.minimum(confidence, UNSEEN_CONFIDENCE)).astype(np.float32),
        vertex_observed=observed,
    )
