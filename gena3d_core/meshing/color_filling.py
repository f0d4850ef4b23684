"""Colours of what no camera saw, continued from what they did."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix, diags
from scipy.spatial import cKDTree

from ..geometry import mesh as mesh_ops
from ..types import BoolArray, Mesh, UInt8Array

GREY = 128
ANCHOR = 0.02
"""Pull of an unseen vertex towards the colour of the nearest seen one, beside 1 towards the mean of its neighbours:
colours fade over about 1 / sqrt(ANCHOR) edges from the border, and pieces that nobody saw get one too."""
CREASE = 4.0
"""Exponent on how far normals agree along an edge: colours pass less easily around sharp edges."""
ITERATIONS = 60
TOLERANCE = 1e-3


def fill_unseen_colors(mesh: Mesh, colors: np.ndarray, seen: BoolArray) -> UInt8Array:
    """Colours (V, 3) uint8 of all vertices: those of the seen ones (V,) bool as they are, the others' made up.

    Colours spread over the surface from the border of what was seen (the minimum of squared differences along edges,
    weighed by how far the normals at their ends agree), towards that of the nearest seen vertex. Mid grey if nothing
    was seen.
    """
    given = np.asarray(colors, dtype=np.float64)
    if not seen.any():
        return np.full(given.shape, GREY, dtype=np.uint8)
    unseen = np.flatnonzero(~seen)
    if len(unseen):
        _, nearest = cKDTree(mesh.vertices[seen]).query(mesh.vertices[unseen])
        guess = given[seen][nearest]
        given = given.copy()
        given[unseen] = _spread(mesh, given, seen, unseen, guess)
    return np.clip(np.round(given), 0, 255).astype(np.uint8)


def _spread(mesh: Mesh, colors: np.ndarray, seen: BoolArray, unseen: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """(U, 3) colours of the `unseen` (U,) vertices: (L + A) x = W colours of the seen + A guess, with
    L the Laplacian of the edges weighed by W and A = ANCHOR times its diagonal."""
    weights = _edge_weights(mesh)[unseen]
    degree = np.asarray(weights.sum(axis=1)).reshape(-1)
    # A vertex without edges keeps the colour of the nearest seen one.
    anchor = np.where(degree > 0, ANCHOR * degree, 1.0)
    right = weights[:, np.flatnonzero(seen)] @ colors[seen] + anchor[:, None] * guess
    among = weights[:, unseen]
    diagonal = degree + anchor
    return _conjugate_gradients(csr_matrix(diags(diagonal) - among), right, guess, 1.0 / diagonal)


def _edge_weights(mesh: Mesh) -> csr_matrix:
    """(V, V) symmetric: how easily colours pass along each edge."""
    count = len(mesh.vertices)
    edges = mesh_ops.directed_edges(mesh.faces)
    normals = mesh_ops.vertex_normals(mesh).astype(np.float64)
    agreement = np.einsum("ei,ei->e", normals[edges[:, 0]], normals[edges[:, 1]])
    weight = np.clip(0.5 + 0.5 * agreement, 1e-3, 1.0) ** CREASE
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    return csr_matrix((np.concatenate([weight, weight]), (rows, cols)), shape=(count, count))


def _conjugate_gradients(A: csr_matrix, right: np.ndarray, start: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Solution (U, 3) of A x = right, all columns in step; `inverse` (U,) preconditions by the diagonal."""
    x = start.copy()
    residual = right - A @ x
    direction = inverse[:, None] * residual
    energy = (residual * direction).sum(axis=0)
    wanted = TOLERANCE**2 * np.maximum((right * inverse[:, None] * right).sum(axis=0), 1e-12)
    for _ in range(ITERATIONS):
        if (energy <= wanted).all():
            break
        image = A @ direction
        curvature = (direction * image).sum(axis=0)
        step = np.divide(energy, curvature, out=np.zeros_like(energy), where=curvature > 0)
        x += step * direction
        residual -= step * image
        scaled = inverse[:, None] * residual
        fresh = (residual * scaled).sum(axis=0)
        direction = scaled + np.divide(fresh, energy, out=np.zeros_like(fresh), where=energy > 0) * direction
        energy = fresh
    return x
