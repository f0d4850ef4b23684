"""Vertex colours from the views that see each vertex."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial import cKDTree

from ..geometry import camera
from ..geometry import mesh as mesh_ops
from ..types import BoolArray, Mesh, UInt8Array, View

VISIBLE_TOLERANCE_M = 0.012
"""A vertex counts as seen where the measured depth agrees with its own within this (drift and noise included)."""
SHARPNESS = 4.0
"""Exponent on the view weight: high values let the best view win, which avoids ghosting from drifting poses."""


def vertex_colors(
    mesh: Mesh,
    views: Sequence[View],
    masks: Sequence[np.ndarray] | None = None,
    tolerance_m: float = VISIBLE_TOLERANCE_M,
) -> tuple[UInt8Array, BoolArray]:
    """Colours (V, 3) uint8 RGB and 'some view sees it' (V,) bool of a mesh in the world.

    A view counts where the vertex faces it, falls into the object's mask (H, W) and agrees with the measured depth;
    frontal and close views weigh most. Unseen vertices take the colour of the nearest seen one, mid grey if none is.
    """
    normals = mesh_ops.vertex_normals(mesh)
    total = np.zeros(len(mesh.vertices))
    blend = np.zeros((len(mesh.vertices), 3))
    for number, view in enumerate(views):
        rows, cols, depth, inside = camera.pixel_index(mesh.vertices, view)
        to_eye = view.T_world_camera[:3, 3].astype(np.float32) - mesh.vertices
        cosine = np.einsum("vi,vi->v", normals, to_eye) / np.maximum(np.linalg.norm(to_eye, axis=1), 1e-9)
        seen = inside & (cosine > 0.05)
        if masks is not None:
            seen &= masks[number][rows, cols]
        if view.depth_m is not None:
            with np.errstate(invalid="ignore"):
                seen &= np.abs(view.depth_m[rows, cols] - depth) < tolerance_m
        # Image area per surface area: cosine over squared distance.
        resolution = cosine * view.intrinsics.fx * view.intrinsics.fy / np.maximum(depth, 1e-3) ** 2
        weight = np.where(seen, np.maximum(resolution, 0.0) / 1e6, 0.0) ** SHARPNESS
        total += weight
        blend += weight[:, None] * _bilinear(view, mesh.vertices, rows, cols)
    seen_any = total > 0
    colors = np.full((len(mesh.vertices), 3), 128.0)
    colors[seen_any] = blend[seen_any] / total[seen_any, None]
    if seen_any.any() and not seen_any.all():
        _, nearest = cKDTree(mesh.vertices[seen_any]).query(mesh.vertices[~seen_any])
        colors[~seen_any] = colors[seen_any][nearest]
    return np.clip(np.round(colors), 0, 255).astype(np.uint8), seen_any


def _bilinear(view: View, points_m: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Colours (N, 3) float at the exact projection of points whose nearest pixels are (rows, cols)."""
    from_world = np.linalg.inv(view.T_world_camera)
    uv, _ = camera.project(points_m @ from_world[:3, :3].T + from_world[:3, 3], view.intrinsics)
    height, width = view.intrinsics.height, view.intrinsics.width
    u = np.clip(np.nan_to_num(uv[:, 0], nan=0.0), 0, width - 1)
    v = np.clip(np.nan_to_num(uv[:, 1], nan=0.0), 0, height - 1)
    col0, row0 = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    col1, row1 = np.minimum(col0 + 1, width - 1), np.minimum(row0 + 1, height - 1)
    fu, fv = (u - col0)[:, None], (v - row0)[:, None]
    top = view.color[row0, col0] * (1 - fu) + view.color[row0, col1] * fu
    bottom = view.color[row1, col0] * (1 - fu) + view.color[row1, col1] * fu
    return top * (1 - fv) + bottom * fv
