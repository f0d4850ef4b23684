"""Meshes of voxels drawn to measured points, which say more precisely where the surface lies than voxels can."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.spatial import cKDTree

from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..types import Float64Array, Mesh, SupportPlane

NEIGHBOURS = 16
"""Measured points that have a say at a vertex."""
REACH_VOXELS = 1.5
MAX_SHIFT_VOXELS = 0.75
"""A vertex moves at most so far: what is wrong by more is not the voxels' coarseness."""
TRUSTED_POINTS = 2.0
"""So much weight of points moves a vertex halfway to them."""
MAX_POINTS = 20_000
SMOOTHING_STEPS = 2


@dataclass(frozen=True, eq=False)
class Measured:
    """Surface samples: points (N, 3), and unit vectors (N, 3) from each towards the camera that saw it."""

    points: Float64Array
    towards_camera: Float64Array


def pull_to_measured(mesh: Mesh, measured: Measured, voxel: float) -> Mesh:
    """The mesh with vertices moved along their normals onto the measured points around them, in its own unit.

    Only points seen from the outer side of the surface count, and those on the normal more than those beside it. Noise
    is averaged over neighbours; far from all points nothing moves. voxel: size of the voxels that the mesh comes from.
    """
    if not len(measured.points) or not len(mesh.vertices):
        return mesh
    stride = -(-len(measured.points) // MAX_POINTS)
    points, towards = measured.points[::stride], measured.towards_camera[::stride]
    average = _neighbour_average(mesh)
    normals = average @ mesh_ops.vertex_normals(mesh).astype(np.float64)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    count = min(NEIGHBOURS, len(points))
    vertices = mesh.vertices.astype(np.float64)
    distance, index = cKDTree(points).query(vertices, k=count, distance_upper_bound=REACH_VOXELS * voxel)
    distance, index = distance.reshape(-1, count), index.reshape(-1, count)
    near = np.flatnonzero(np.isfinite(distance[:, 0]))
    found = np.isfinite(distance[near])
    chosen = np.where(found, index[near], 0)
    along = np.einsum("nki,ni->nk", points[chosen] - vertices[near, None], normals[near])
    facing = np.einsum("nki,ni->nk", towards[chosen], normals[near])
    beside2 = np.where(found, distance[near] ** 2 - along**2, 0.0)
    weight = np.where(found, np.clip(facing, 0.0, None) * np.exp(-0.5 * beside2 / (0.5 * voxel) ** 2), 0.0)
    total = np.zeros(len(vertices))
    pull = np.zeros(len(vertices))
    total[near] = weight.sum(axis=1)
    pull[near] = (weight * along).sum(axis=1)
    # Averaging numerator and denominator over neighbours lets vertices between points follow those beside them.
    for _ in range(SMOOTHING_STEPS):
        total, pull = average @ total, average @ pull
    shift = np.clip(pull / (total + TRUSTED_POINTS / NEIGHBOURS), -MAX_SHIFT_VOXELS * voxel, MAX_SHIFT_VOXELS * voxel)
    return replace(mesh, vertices=(vertices + shift[:, None] * normals).astype(np.float32))


def rest_on_plane(mesh: Mesh, support: SupportPlane, S_world_mesh: np.ndarray, depth: float) -> Mesh:
    """The mesh with what lies under the support plane by at most `depth` (its own unit) lifted onto it."""
    scale = float(np.linalg.norm(S_world_mesh[:3, 0]))
    height = support.height_m(transforms.apply(S_world_mesh, mesh.vertices.astype(np.float64))) / scale
    up = S_world_mesh[:3, :3].T @ support.normal / scale
    lift = np.where((height < 0) & (height >= -depth), -height, 0.0)
    return replace(mesh, vertices=(mesh.vertices + lift[:, None] * up).astype(np.float32))


def _neighbour_average(mesh: Mesh) -> csr_matrix:
    """(V, V) rows that average each vertex, counted once, and its neighbours."""
    count = len(mesh.vertices)
    edges = mesh_ops.directed_edges(mesh.faces)
    own = np.arange(count)
    rows = np.concatenate([edges[:, 0], edges[:, 1], own])
    cols = np.concatenate([edges[:, 1], edges[:, 0], own])
    graph = csr_matrix((np.ones(len(rows)), (rows, cols)), shape=(count, count))
    graph.data[:] = 1.0
    degree = np.asarray(graph.sum(axis=1)).reshape(-1)
    return csr_matrix(diags(1.0 / degree) @ graph)
