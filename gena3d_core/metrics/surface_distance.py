"""Distances of points to the surface of a mesh, exact but for the choice of the face."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..geometry import mesh as mesh_ops
from ..geometry.triangles import distance_to_triangles
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
