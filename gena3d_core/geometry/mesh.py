"""Triangle-mesh measures and edits that every stage shares, vectorised over faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import InputError
from ..types import BoolArray, Float32Array, Float64Array, Int32Array, Mesh
from . import transforms


def make_mesh(vertices: np.ndarray, faces: np.ndarray, **attributes: np.ndarray | None) -> Mesh:
    """A `Mesh` from any numeric arrays, cast to the dtypes that `Mesh` promises."""
    return Mesh(
        np.ascontiguousarray(vertices, dtype=np.float32), np.ascontiguousarray(faces, dtype=np.int32), **attributes
    )


def face_cross(mesh: Mesh) -> Float64Array:
    """(F, 3) cross products of two edges: face normal times twice the face area."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def face_areas(mesh: Mesh) -> Float64Array:
    """(F,) areas in the square of the mesh's unit."""
    return 0.5 * np.linalg.norm(face_cross(mesh), axis=1)


def face_normals(mesh: Mesh) -> Float64Array:
    """(F, 3) unit normals; zero for faces without area."""
    cross = face_cross(mesh)
    norm = np.linalg.norm(cross, axis=1, keepdims=True)
    return np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)


def vertex_normals(mesh: Mesh) -> Float32Array:
    """(V, 3) unit area-weighted normals; zero for vertices without faces."""
    cross = face_cross(mesh)
    index = mesh.faces.reshape(-1)
    count = len(mesh.vertices)
    normals = np.stack(
        [np.bincount(index, weights=np.repeat(cross[:, axis], 3), minlength=count) for axis in range(3)], axis=1
    )
    norm = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, norm, out=np.zeros_like(normals), where=norm > 0).astype(np.float32)


def area(mesh: Mesh) -> float:
    """Total area."""
    return float(face_areas(mesh).sum())


def volume(mesh: Mesh) -> float:
    """Signed enclosed volume; meaningful for watertight meshes, positive if faces wind outwards."""
    corners = mesh.vertices.astype(np.float64)[mesh.faces]
    if not len(corners):
        return 0.0
    corners = corners - corners[0, 0]
    return float(np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6.0)


def bounds(mesh: Mesh) -> tuple[Float64Array, Float64Array]:
    """Lowest and highest corner (3,) of the vertices; raises `InputError` for a mesh without vertices."""
    if not len(mesh.vertices):
        raise InputError("a mesh without vertices has no bounding box")
    return mesh.vertices.min(axis=0).astype(np.float64), mesh.vertices.max(axis=0).astype(np.float64)


def directed_edges(faces: np.ndarray) -> Int32Array:
    """(3F, 2) edges in winding order: first edges of all faces, then second, then third."""
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])


def boundary_edges(mesh: Mesh) -> Int32Array:
    """(E, 2) directed edges that belong to one face only, in the winding order of that face."""
    edges = directed_edges(mesh.faces)
    keys = np.sort(edges, axis=1).astype(np.int64) @ np.array([len(mesh.vertices), 1], dtype=np.int64)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return edges[first[counts == 1]]


def is_watertight(mesh: Mesh) -> bool:
    """True if every edge joins exactly two faces that wind consistently."""
    if not len(mesh.faces):
        return False
    edges = directed_edges(mesh.faces).astype(np.int64)
    count = len(mesh.vertices)
    forward, backward = edges @ np.array([count, 1]), edges @ np.array([1, count])
    return len(np.unique(forward)) == len(forward) and np.array_equal(np.sort(forward), np.sort(backward))


def face_components(mesh: Mesh) -> tuple[int, Int32Array]:
    """Number of vertex-connected components and the component (F,) of each face."""
    if not len(mesh.faces):
        return 0, np.zeros(0, dtype=np.int32)
    edges = directed_edges(mesh.faces)
    count = len(mesh.vertices)
    graph = coo_matrix((np.ones(len(edges), dtype=np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, label_of_vertex = connected_components(graph, directed=False)
    labels, label_of_face = np.unique(label_of_vertex[mesh.faces[:, 0]], return_inverse=True)
    return len(labels), label_of_face.astype(np.int32)


def select_faces(mesh: Mesh, keep: np.ndarray) -> Mesh:
    """The mesh of the faces chosen by `keep` (F,) bool or index, without unused vertices; attributes follow."""
    faces = mesh.faces[keep]
    used, index = np.unique(faces.reshape(-1), return_inverse=True)
    return select_vertices(replace(mesh, faces=index.reshape(-1, 3).astype(np.int32)), used)


def select_vertices(mesh: Mesh, vertices: np.ndarray) -> Mesh:
    """Vertices and attributes taken at index `vertices` (N,); faces are kept and must already use the new index."""

    def take(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[vertices]

    return Mesh(
        vertices=mesh.vertices[vertices],
        faces=mesh.faces,
        vertex_colors=take(mesh.vertex_colors),
        vertex_confidence=take(mesh.vertex_confidence),
        vertex_observed=take(mesh.vertex_observed),
    )


def transformed(mesh: Mesh, S: np.ndarray) -> Mesh:
    """The mesh mapped by a rigid transform or similarity `S` (4, 4); computed in float64."""
    vertices = transforms.apply(S, mesh.vertices.astype(np.float64)).astype(np.float32)
    return replace(mesh, vertices=vertices)


def concatenate(meshes: Sequence[Mesh]) -> Mesh:
    """One mesh of all; an attribute is kept only if every mesh has it."""
    if not meshes:
        return make_mesh(np.zeros((0, 3)), np.zeros((0, 3)))
    offsets = np.cumsum([0, *(len(m.vertices) for m in meshes[:-1])])

    def joined(name: str) -> np.ndarray | None:
        arrays = [getattr(m, name) for m in meshes]
        return None if any(a is None for a in arrays) else np.concatenate(arrays)

    return make_mesh(
        np.concatenate([m.vertices for m in meshes]),
        np.concatenate([m.faces + offset for m, offset in zip(meshes, offsets, strict=True)]),
        vertex_colors=joined("vertex_colors"),
        vertex_confidence=joined("vertex_confidence"),
        vertex_observed=joined("vertex_observed"),
    )


def sample_surface(mesh: Mesh, count: int, rng: np.random.Generator) -> tuple[Float32Array, Int32Array]:
    """`count` points (N, 3), uniform by area, and the face (N,) of each.

    Raises `InputError` for a mesh without area.
    """
    areas = face_areas(mesh)
    total = areas.sum()
    if not total > 0:
        raise InputError(f"cannot sample a mesh without area ({len(mesh.faces)} faces)")
    # Stratified along the cumulative area: the same uniform law with less variance.
    positions = (np.arange(count) + rng.random(count)) * (total / count)
    faces = np.minimum(np.searchsorted(np.cumsum(areas), positions), len(areas) - 1)
    u, v = rng.random((2, count))
    flip = u + v > 1.0
    u, v = np.where(flip, 1.0 - u, u), np.where(flip, 1.0 - v, v)
    corners = mesh.vertices.astype(np.float64)[mesh.faces[faces]]
    points = corners[:, 0] + u[:, None] * (corners[:, 1] - corners[:, 0]) + v[:, None] * (corners[:, 2] - corners[:, 0])
    return points.astype(np.float32), faces.astype(np.int32)


def observed_fraction(mesh: Mesh) -> float:
    """Share of the area whose vertices cameras saw; 1 for a mesh that does not say."""
    if mesh.vertex_observed is None:
        return 1.0
    areas = face_areas(mesh)
    total = areas.sum()
    if not total > 0:
        return 0.0
    return float((areas * mesh.vertex_observed[mesh.faces].mean(axis=1)).sum() / total)


def vertex_mask_faces(mesh: Mesh, vertices: BoolArray) -> BoolArray:
    """(F,) bool: faces all of whose corners are True in `vertices` (V,)."""
    return np.all(vertices[mesh.faces], axis=1)


def sphere_directions(count: int) -> Float64Array:
    """(count + 6, 3) unit vectors, even over the sphere (Fibonacci spiral), then the axes both ways."""
    height = 1.0 - (2.0 * np.arange(count) + 1.0) / count
    angle = np.arange(count) * (np.pi * (3.0 - np.sqrt(5.0)))
    radius = np.sqrt(1.0 - height**2)
    spiral = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)
    return np.concatenate([spiral, np.eye(3), -np.eye(3)])
