"""3D-consistent occlusion masks: a patch of an object's surface that counts as covered in every view.

Source: GENA3D, section 3.3 and appendix A.2.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra

from ..errors import InputError
from ..geometry.mesh import directed_edges, face_areas
from ..types import BoolArray, Mesh

PATCH_FACES = 900
"""Faces into which a surface is divided at least, so that coverage can be met and outlines are no mesh edges."""
MAX_ROUNDS = 12
KERNEL_PX, KERNEL_IMAGE_PX = 13, 512
"""The paper's erosion kernel, for images of 512 pixels."""


def subdivided(mesh: Mesh, max_edge: float) -> Mesh:
    """The same surface with edges of at most `max_edge`; corners and colours are interpolated, no T-junctions."""
    vertices = mesh.vertices.astype(np.float64)
    colors = None if mesh.vertex_colors is None else mesh.vertex_colors.astype(np.float32)
    faces = mesh.faces.astype(np.int64)
    for _ in range(MAX_ROUNDS):
        edges, edge_of = _unique_edges(faces, len(vertices))
        long = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1) > max_edge
        if not long.any():
            break
        middle = np.full(len(edges), -1, dtype=np.int64)
        middle[long] = len(vertices) + np.arange(long.sum())
        vertices = np.concatenate([vertices, vertices[edges[long]].mean(axis=1)])
        if colors is not None:
            colors = np.concatenate([colors, colors[edges[long]].mean(axis=1)])
        faces = _split(faces, middle[edge_of])
    painted = None if colors is None else np.round(colors).astype(np.uint8)
    return Mesh(vertices.astype(np.float32), faces.astype(np.int32), vertex_colors=painted)


def _unique_edges(faces: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray]:
    """Undirected edges (E, 2), and the edge (F, 3) opposite to no one: of corners 0-1, 1-2, 2-0."""
    pairs = np.sort(directed_edges(faces), axis=1)
    keys, inverse = np.unique(pairs[:, 0] * vertex_count + pairs[:, 1], return_inverse=True)
    return np.stack([keys // vertex_count, keys % vertex_count], axis=1), inverse.reshape(3, -1).T


def _split(faces: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Faces (F, 3) cut at the midpoints `middle` (F, 3) of their edges, -1 = whole edge."""
    cut = middle >= 0
    count = cut.sum(axis=1)
    # Turn each face so that a lone cut edge is its first, and a lone whole edge its last.
    turn = np.select([count == 1, count == 2], [cut.argmax(axis=1), (cut.argmin(axis=1) + 1) % 3], 0)
    columns = (np.arange(3)[None, :] + turn[:, None]) % 3
    faces, middle = np.take_along_axis(faces, columns, 1), np.take_along_axis(middle, columns, 1)
    a, b, c = faces.T
    ab, bc, ca = middle.T
    whole, one, two, three = (count == k for k in range(4))

    def pick(rows: np.ndarray, *corners: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
        return np.concatenate([np.stack([corner[rows] for corner in three_of], axis=1) for three_of in corners])

    return np.concatenate(
        [
            faces[whole],
            pick(one, (a, ab, c), (ab, b, c)),
            pick(two, (ab, b, bc), (a, ab, bc), (a, bc, c)),
            pick(three, (a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)),
        ]
    )


def patchable(mesh: Mesh, faces: int = PATCH_FACES) -> Mesh:
    """The mesh divided so finely that `faces` equilateral faces of the longest edge allowed make up its area.

    Raises `InputError` for a mesh without area.
    """
    total = float(face_areas(mesh).sum())
    if not total > 0:
        raise InputError(f"a mesh without area ({len(mesh.faces)} faces) cannot be covered")
    return subdivided(mesh, float(np.sqrt(total / faces * 4.0 / np.sqrt(3.0))))


def grow_patch(mesh: Mesh, coverage: float, rng: np.random.Generator) -> BoolArray:
    """(F,) bool: faces covered by a patch that grows from a random face over its neighbours.

    coverage: share of the area, met to within one face. The front advances at random speeds, so that outlines are
    irregular; pieces that do not hang together are reached in the order of their distance.
    """
    areas = face_areas(mesh)
    total = float(areas.sum())
    if not total > 0:
        raise InputError(f"a mesh without area ({len(mesh.faces)} faces) cannot be covered")
    if not 0.0 <= coverage <= 1.0:
        raise InputError(f"coverage must lie in [0, 1], got {coverage}")
    seed = int(np.searchsorted(np.cumsum(areas), rng.random() * total).clip(0, len(areas) - 1))
    centers = mesh.vertices.astype(np.float64)[mesh.faces].mean(axis=1)
    reached = _arrival(mesh, centers, seed, rng)
    order = np.argsort(reached, kind="stable")
    before = np.cumsum(areas[order]) - areas[order]
    covered = np.zeros(len(areas), dtype=bool)
    covered[order] = before + 0.5 * areas[order] < coverage * total
    return covered


def _arrival(mesh: Mesh, centers: np.ndarray, seed: int, rng: np.random.Generator) -> np.ndarray:
    """(F,) when the front that starts at face `seed` reaches each face."""
    first, second = _neighbours(mesh)
    length = np.linalg.norm(centers[first] - centers[second], axis=1) * rng.uniform(0.4, 1.6, len(first))
    graph = csr_matrix((np.maximum(length, 1e-12), (first, second)), shape=(len(centers),) * 2)
    arrival = dijkstra(graph, directed=False, indices=seed)
    apart = ~np.isfinite(arrival)
    if apart.any():
        arrival[apart] = arrival[~apart].max() + np.linalg.norm(centers[apart] - centers[seed], axis=1)
    return arrival


def _neighbours(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of faces (P,), (P,) that share an edge; those around an edge of many faces form a chain."""
    pairs = np.sort(directed_edges(mesh.faces).astype(np.int64), axis=1)
    keys = pairs[:, 0] * len(mesh.vertices) + pairs[:, 1]
    order = np.argsort(keys, kind="stable")
    face = order % len(mesh.faces)
    same = keys[order][1:] == keys[order][:-1]
    return face[:-1][same], face[1:][same]


def box_mask(covered: np.ndarray, visible: np.ndarray, erosions: int) -> BoolArray:
    """Occlusion mask (H, W) by GENA3D A.2: box of the covered pixels, eroded, without the visible pixels.

    covered, visible (H, W) bool. The kernel of 13 pixels is for images of 512 and is scaled to this size; a box that
    the erosions would use up keeps its last extent.
    """
    mask = np.zeros(covered.shape, dtype=bool)
    rows, cols = np.nonzero(covered.any(axis=1))[0], np.nonzero(covered.any(axis=0))[0]
    if not len(rows):
        return mask
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(cols[0]), int(cols[-1])
    step = max(1, round(KERNEL_PX * max(covered.shape) / KERNEL_IMAGE_PX) // 2)
    for _ in range(erosions):
        if min(bottom - top, right - left) <= 2 * step:
            break
        top, bottom, left, right = top + step, bottom - step, left + step, right - step
    mask[top : bottom + 1, left : right + 1] = True
    return mask & ~visible
