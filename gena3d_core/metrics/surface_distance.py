"""Distances of points to the surface of a mesh, exact but for the choice of the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..geometry import mesh as mesh_ops
from ..types import Float32Array, Float64Array, Int32Array, Mesh

TREE_SAMPLES = 40_000
CANDIDATES = 3
"""Samples nearest to a point whose faces are looked at."""


@dataclass(frozen=True, eq=False)
class MeasuredSurface:
    """A mesh with samples spread over it that lead to the nearest face."""

    mesh: Mesh
    normals: Float64Array
    sample_face: Int32Array
    tree: cKDTree

    @staticmethod
    def of(mesh: Mesh, samples: int = TREE_SAMPLES, seed: int = 0) -> MeasuredSurface:
        """Raises `InputError` for a mesh without area."""
        points, faces = mesh_ops.sample_surface(mesh, samples, np.random.default_rng(seed))
        return MeasuredSurface(mesh, mesh_ops.face_normals(mesh), faces, cKDTree(points))

    def sample(self, count: int, seed: int) -> tuple[Float32Array, Float64Array, Int32Array]:
        """`count` points (N, 3) uniform by area, the unit normals (N, 3) and numbers (N,) of their faces."""
        points, faces = mesh_ops.sample_surface(self.mesh, count, np.random.default_rng(seed))
        return points, self.normals[faces], faces

    def nearest(self, points: np.ndarray) -> tuple[Float64Array, Int32Array]:
        """Distance (N,) of points (N, 3), finite, to the surface, and the face (N,) that is nearest."""
        _, index = self.tree.query(points, k=min(CANDIDATES, self.tree.n))
        faces = self.sample_face[index.reshape(len(points), -1)]
        corners = self.mesh.vertices.astype(np.float64)[self.mesh.faces[faces]]
        distance = distance_to_triangles(np.asarray(points, dtype=np.float64)[:, None], corners)
        best = distance.argmin(axis=1)
        rows = np.arange(len(points))
        return distance[rows, best], faces[rows, best]


def distance_to_triangles(points: np.ndarray, corners: np.ndarray) -> Float64Array:
    """(...) distances from points (..., 3) to triangles with corners (..., 3, 3); shapes broadcast."""
    points = np.broadcast_to(points, (*corners.shape[:-2], 3))
    a, ab, ac = corners[..., 0, :], corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    ap = points - a
    aa, bb, cross = (np.einsum("...i,...i->...", u, v) for u, v in ((ab, ab), (ac, ac), (ab, ac)))
    pa, pb = np.einsum("...i,...i->...", ap, ab), np.einsum("...i,...i->...", ap, ac)
    area = aa * bb - cross * cross
    flat = area > 1e-12 * np.maximum(aa * bb, 1e-300)
    scale = np.divide(1.0, area, out=np.zeros_like(area), where=flat)
    v, w = (bb * pa - cross * pb) * scale, (aa * pb - cross * pa) * scale
    inside = flat & (v >= 0) & (w >= 0) & (v + w <= 1)
    squared = ((ap - v[..., None] * ab - w[..., None] * ac) ** 2).sum(axis=-1)
    edges = np.stack([_squared_to_segment(points, corners[..., k, :], corners[..., (k + 1) % 3, :]) for k in range(3)])
    return np.sqrt(np.where(inside, squared, edges.min(axis=0)))


def _squared_to_segment(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> Float64Array:
    along = end - start
    length = (along**2).sum(axis=-1)
    share = np.einsum("...i,...i->...", points - start, along)
    share = np.clip(np.divide(share, length, out=np.zeros_like(share), where=length > 0), 0.0, 1.0)
    return np.asarray(((points - start - share[..., None] * along) ** 2).sum(axis=-1))
