"""Quadric simplification to a face budget; vertex attributes follow."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..types import Mesh
from .cleaning import drop_bad_faces

AGGRESSIVENESS = (5, 7, 10)
"""Tried in turn until the budget is met: lower values keep the shape better."""


def simplify(mesh: Mesh, max_faces: int) -> Mesh:
    """At most `max_faces` faces; colours, confidence and observed flags come from the nearest original vertex.

    A closed mesh stays closed, at the price of more faces where the budget cannot hold it. Raises `InputError` for a
    budget under 4 faces.
    """
    if max_faces < 4:
        raise InputError(f"max_faces must be at least 4, got {max_faces}")
    if len(mesh.faces) <= max_faces:
        return mesh
    import fast_simplification  # slow to import, and needed only for meshes over the budget

    closed = mesh_ops.is_watertight(mesh)
    vertices, faces = mesh.vertices, mesh.faces
    for aggressiveness in AGGRESSIVENESS:
        vertices, faces = fast_simplification.simplify(vertices, faces, target_count=max_faces, agg=aggressiveness)
        if len(faces) <= max_faces:
            break
    result = drop_bad_faces(with_nearest_attributes(mesh_ops.make_mesh(vertices, faces), mesh))
    if closed and not mesh_ops.is_watertight(result):
        return _simplify_closed(mesh, max_faces)
    return result


def _simplify_closed(mesh: Mesh, max_faces: int) -> Mesh:
    """Edge collapses of the manifold library, which never open a closed mesh, at a growing tolerance."""
    import manifold3d

    solid = manifold3d.Manifold(manifold3d.Mesh(mesh.vertices, mesh.faces.astype(np.uint32)))
    low, high = mesh_ops.bounds(mesh)
    result = mesh
    for tolerance in np.geomspace(1e-4, 0.1, 16) * np.linalg.norm(high - low):
        simpler = solid.simplify(float(tolerance)).to_mesh()
        if not len(simpler.tri_verts):
            break
        result = mesh_ops.make_mesh(np.asarray(simpler.vert_properties)[:, :3], simpler.tri_verts)
        if len(result.faces) <= max_faces:
            break
    return with_nearest_attributes(result, mesh) if result is not mesh else mesh


def with_nearest_attributes(mesh: Mesh, source: Mesh) -> Mesh:
    """`mesh` with the colours, confidence and observed flags of the nearest vertex of `source`."""
    if not len(mesh.vertices) or not len(source.vertices):
        return mesh
    _, nearest = cKDTree(source.vertices).query(mesh.vertices)

    def take(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[nearest]

    return Mesh(
        vertices=mesh.vertices,
        faces=mesh.faces,
        vertex_colors=take(source.vertex_colors),
        vertex_confidence=take(source.vertex_confidence),
        vertex_observed=take(source.vertex_observed),
    )
