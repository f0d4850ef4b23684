"""Quadric simplification to a face budget; vertex attributes follow."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..types import Mesh
from .cleaning import boundary_loops, drop_bad_faces, drop_small_components, fill_holes

AGGRESSIVENESS = (5, 7, 10)
"""Tried in turn until the budget is met: lower values keep the shape better."""
CLOSED_SHARE = 0.8
"""A repair that leaves less of the area than this costs more than the holes it closes."""


def simplify(mesh: Mesh, max_faces: int) -> Mesh:
    """At most `max_faces` faces; colours, confidence and observed flags come from the nearest original vertex.

    A closed mesh stays closed unless the budget is too small to hold its shape. Raises `InputError` for a
    budget under 4 faces.
    """
    if max_faces < 4:
        raise InputError(f"max_faces must be at least 4, got {max_faces}")
    if len(mesh.faces) <= max_faces:
        return mesh
    import fast_simplification  # slow to import, and needed only for meshes over the budget

    closed = mesh_ops.is_watertight(mesh)
    # Quadrics are products of coordinates: far from the origin their thresholds fail, and the budget with them.
    center = mesh.vertices.mean(axis=0)
    scale = np.float32(max(np.ptp(mesh.vertices, axis=0).max(), 1e-9))
    unit = (mesh.vertices - center) / scale
    best = mesh
    for aggressiveness in AGGRESSIVENESS:
        vertices, faces = fast_simplification.simplify(
            unit, mesh.faces, target_count=int(0.97 * max_faces), agg=aggressiveness
        )
        best = drop_bad_faces(mesh_ops.make_mesh(vertices * scale + center, faces))
        if closed:
            repaired = reclose(best)
            # Crumpled meshes, which touch themselves in many places, would be cut to nothing.
            if len(best.faces) > max_faces or mesh_ops.area(repaired) >= CLOSED_SHARE * mesh_ops.area(best):
                best = repaired
        if len(best.faces) <= max_faces and (not closed or mesh_ops.is_watertight(best)):
            break
    return with_nearest_attributes(best, mesh)


def reclose(mesh: Mesh, rounds: int = 6) -> Mesh:
    """Repair the few edges that edge collapses left with more or fewer than two faces.

    Faces at the corners of such edges are cut out and the holes closed with fans, as long as that opens new ones.
    """
    for _ in range(rounds):
        if mesh_ops.is_watertight(mesh):
            break
        edges = mesh_ops.directed_edges(mesh.faces).astype(np.int64)
        key, reverse = edges @ np.array([len(mesh.vertices), 1]), edges @ np.array([1, len(mesh.vertices)])
        unique, counts = np.unique(key, return_counts=True)
        repeated = np.isin(key, unique[counts > 1]) | np.isin(reverse, unique[counts > 1])
        unmatched = ~np.isin(reverse, unique)
        _, _, simple = boundary_loops(mesh)
        bad = np.zeros(len(mesh.vertices), dtype=bool)
        bad[edges[repeated].reshape(-1)] = True
        if not simple.all():
            bad[edges[unmatched].reshape(-1)] = True
        mesh = drop_small_components(mesh_ops.select_faces(mesh, ~np.any(bad[mesh.faces], axis=1)), min_share=0.005)
        mesh = drop_bad_faces(fill_holes(mesh, np.inf))
    return mesh


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
