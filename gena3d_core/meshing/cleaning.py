"""Mesh repair: stray components, degenerate and doubled faces, pin holes, winding, smoothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.csgraph import connected_components

from ..geometry import mesh as mesh_ops
from ..types import BoolArray, Int32Array, Mesh


def merge_vertices(mesh: Mesh, tolerance: float = 0.0) -> Mesh:
    """Join vertices that coincide (after rounding to `tolerance`, if positive); attributes of the first are kept."""
    keys = np.round(mesh.vertices / tolerance).astype(np.int64) if tolerance > 0 else mesh.vertices
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1).astype(np.int32)[mesh.faces]
    merged = mesh_ops.select_vertices(replace(mesh, faces=np.zeros((0, 3), np.int32)), first)
    return drop_bad_faces(replace(merged, faces=faces))


def drop_bad_faces(mesh: Mesh) -> Mesh:
    """Without faces that repeat a corner, have no area, or hold the same corners as an earlier face."""
    if not len(mesh.faces):
        return mesh
    ordered = np.sort(mesh.faces, axis=1).astype(np.int64)
    proper = (ordered[:, 0] != ordered[:, 1]) & (ordered[:, 1] != ordered[:, 2]) & (mesh_ops.face_areas(mesh) > 0)
    _, first = np.unique(ordered, axis=0, return_index=True)
    unique = np.zeros(len(ordered), dtype=bool)
    unique[first] = True
    return mesh_ops.select_faces(mesh, proper & unique)


def drop_small_components(mesh: Mesh, min_share: float = 0.02, min_area: float = 0.0) -> Mesh:
    """Without components whose area is under `min_share` of the largest one's, or under `min_area`.

    The largest component always stays.
    """
    count, component = mesh_ops.face_components(mesh)
    if count <= 1:
        return mesh
    areas = np.bincount(component, weights=mesh_ops.face_areas(mesh), minlength=count)
    keep = areas >= max(min_share * areas.max(), min_area)
    keep[np.argmax(areas)] = True
    return mesh_ops.select_faces(mesh, keep[component])


def boundary_loops(mesh: Mesh) -> tuple[Int32Array, Int32Array, BoolArray]:
    """Directed boundary edges (E, 2), the loop (E,) of each, and 'is a simple closed loop' (L,) bool of each loop."""
    edges = mesh_ops.boundary_edges(mesh)
    count = len(mesh.vertices)
    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    labels, loop = np.unique(label[edges[:, 0]], return_inverse=True)
    leaving = np.bincount(edges[:, 0], minlength=count)
    arriving = np.bincount(edges[:, 1], minlength=count)
    bad_vertex = (leaving != arriving) | (leaving > 1)
    bad = np.bincount(loop, weights=bad_vertex[edges[:, 0]] | bad_vertex[edges[:, 1]], minlength=len(labels)) > 0
    return edges, loop.astype(np.int32), ~bad


def fill_holes(mesh: Mesh, max_perimeter: float) -> Mesh:
    """Close simple boundary loops no longer than `max_perimeter` with a fan around their centre.

    The new centre vertices take the mean colour and confidence of the loop and count as not observed.
    """
    edges, loop, simple = boundary_loops(mesh)
    if not len(edges):
        return mesh
    lengths = np.linalg.norm(mesh.vertices[edges[:, 0]] - mesh.vertices[edges[:, 1]], axis=1)
    count = len(simple)
    chosen = simple & (np.bincount(loop, weights=lengths, minlength=count) <= max_perimeter)
    if not chosen.any():
        return mesh
    edges, loop = edges[chosen[loop]], (np.cumsum(chosen) - 1)[loop[chosen[loop]]]
    total = int(chosen.sum())
    size = np.bincount(loop, minlength=total)

    def mean(values: np.ndarray) -> np.ndarray:
        columns = np.asarray(values, dtype=np.float64)[edges[:, 0]].reshape(len(edges), -1)
        sums = [np.bincount(loop, weights=column, minlength=total) for column in columns.T]
        return np.stack(sums, axis=1) / size[:, None]

    centers = mean(mesh.vertices)
    fan = np.stack([edges[:, 1], edges[:, 0], len(mesh.vertices) + loop], axis=1)
    colors, confidence, observed = mesh.vertex_colors, mesh.vertex_confidence, mesh.vertex_observed
    if colors is not None:
        colors = np.concatenate([colors, np.round(mean(colors)).astype(np.uint8)])
    if confidence is not None:
        confidence = np.concatenate([confidence, mean(confidence)[:, 0].astype(np.float32)])
    if observed is not None:
        observed = np.concatenate([observed, np.zeros(total, dtype=bool)])
    return mesh_ops.make_mesh(
        np.concatenate([mesh.vertices, centers]),
        np.concatenate([mesh.faces, fan]),
        vertex_colors=colors,
        vertex_confidence=confidence,
        vertex_observed=observed,
    )


def orient_faces(mesh: Mesh) -> Mesh:
    """Make neighbouring faces wind the same way, and closed components outwards.

    Works per edge-connected component; on a non-orientable one the winding stays as it was.
    """
    count = len(mesh.faces)
    if not count:
        return mesh
    edges = mesh_ops.directed_edges(mesh.faces)
    face = np.tile(np.arange(count), 3)
    forward = edges[:, 0] < edges[:, 1]
    key = np.sort(edges, axis=1).astype(np.int64) @ np.array([len(mesh.vertices), 1], dtype=np.int64)
    order = np.argsort(key, kind="stable")
    pair = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    one, other = order[pair], order[pair + 1]
    # A node for each face as it is and one for the face flipped: connected nodes agree in winding.
    agree = forward[one] != forward[other]
    rows = np.concatenate([face[one], face[one] + count])
    cols = np.concatenate([face[other] + np.where(agree, 0, count), face[other] + np.where(agree, count, 0)])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(2 * count, 2 * count))
    _, label = connected_components(graph, directed=False)
    as_is, flipped = label[:count], label[count:]
    component = np.minimum(as_is, flipped)
    flip = as_is > flipped
    faces = np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces)
    # Of both consistent windings take the one that encloses a positive volume (open parts: keeps most faces).
    corners = mesh.vertices.astype(np.float64)[faces] - mesh.vertices.astype(np.float64).mean(axis=0)
    signed = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    size = len(label)
    closed = np.bincount(component, weights=_open_edges(mesh, face, key), minlength=size) == 0
    inwards = np.bincount(component, weights=signed, minlength=size) < 0
    mostly_flipped = np.bincount(component, weights=np.where(flip, 1.0, -1.0), minlength=size) > 0
    reverse = np.where(closed, inwards, mostly_flipped)[component]
    return replace(mesh, faces=np.where(reverse[:, None], faces[:, ::-1], faces).astype(np.int32))


def _open_edges(mesh: Mesh, face: np.ndarray, key: np.ndarray) -> np.ndarray:
    """(F,) number of edges of each face that no other face shares."""
    _, inverse, counts = np.unique(key, return_inverse=True, return_counts=True)
    return np.bincount(face, weights=counts[inverse] == 1, minlength=len(mesh.faces))


def taubin_smooth(mesh: Mesh, iterations: int = 5, shrink: float = 0.5, inflate: float = -0.53) -> Mesh:
    """Smooth without shrinking (Taubin 1995): alternating Laplacian steps; boundary vertices stay in place."""
    count = len(mesh.vertices)
    if not len(mesh.faces) or iterations <= 0:
        return mesh
    edges = mesh_ops.directed_edges(mesh.faces)
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    adjacency = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(count, count)).tocsr()
    adjacency.data[:] = 1.0
    degree = np.asarray(adjacency.sum(axis=1)).reshape(-1)
    average = diags(np.divide(1.0, degree, out=np.zeros(count), where=degree > 0)) @ adjacency
    free = degree > 0
    free[mesh_ops.boundary_edges(mesh).reshape(-1)] = False
    vertices = mesh.vertices.astype(np.float64)
    for step in (shrink, inflate) * iterations:
        vertices = vertices + step * free[:, None] * (average @ vertices - vertices)
    return replace(mesh, vertices=vertices.astype(np.float32))
