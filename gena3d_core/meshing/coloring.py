"""Vertex colours from the views that see each vertex."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import camera, transforms
from ..geometry import mesh as mesh_ops
from ..types import BoolArray, Mesh, UInt8Array, View
from .color_filling import fill_unseen_colors

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
    frontal and close views weigh most. Unseen vertices continue the colours of the seen ones (see `color_filling`).
    """
    normals = mesh_ops.vertex_normals(mesh)
    total = np.zeros(len(mesh.vertices))
    blend = np.zeros((len(mesh.vertices), 3))
    for number, view in enumerate(views):
        rows, cols, depth, inside = camera.pixel_index(mesh.vertices, view)
        to_eye = view.T_world_camera[:3, 3].astype(np.float32) - mesh.vertices
        cosine = np.einsum("vi,vi->v", normals, to_eye) / np.maximum(np.linalg.norm(to_eye, axis=1), 1e-9)
        chosen = np.flatnonzero(inside & (cosine > 0.05))
        mask = None if masks is None else masks[number]
        chosen = chosen[_usable(view, mask, rows[chosen], cols[chosen], depth[chosen], tolerance_m)]
        color = _bilinear(view, mask, mesh.vertices[chosen], tolerance_m)
        # Image area per surface area: cosine over squared distance.
        resolution = cosine[chosen] * view.intrinsics.fx * view.intrinsics.fy / depth[chosen] ** 2
        weight = (resolution / 1e6) ** SHARPNESS
        total[chosen] += weight
        blend[chosen] += weight[:, None] * color
    seen_any = total > 0
    colors = np.divide(blend, total[:, None], out=np.zeros_like(blend), where=seen_any[:, None])
    return fill_unseen_colors(mesh, colors, seen_any), seen_any


def _usable(
    view: View, mask: np.ndarray | None, rows: np.ndarray, cols: np.ndarray, depth_m: np.ndarray, tolerance_m: float
) -> BoolArray:
    """(N,) bool: pixels in the mask whose measured depth agrees with `depth_m` (N,)."""
    usable = np.ones(len(rows), dtype=bool) if mask is None else mask[rows, cols]
    if view.depth_m is not None:
        with np.errstate(invalid="ignore"):
            usable = usable & (np.abs(view.depth_m[rows, cols] - depth_m) < tolerance_m)
    return usable


def _bilinear(view: View, mask: np.ndarray | None, points_m: np.ndarray, tolerance_m: float) -> np.ndarray:
    """Colours (N, 3) float at the projection of visible points, from those of the four pixels that show the object."""
    uv, depth_m = camera.project(transforms.apply(transforms.inverse(view.T_world_camera), points_m), view.intrinsics)
    height, width = view.intrinsics.height, view.intrinsics.width
    u, v = np.clip(uv[:, 0], 0, width - 1), np.clip(uv[:, 1], 0, height - 1)
    col0, row0 = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
    total, color = np.zeros(len(points_m)), np.zeros((len(points_m), 3))
    for row_step, col_step in ((0, 0), (0, 1), (1, 0), (1, 1)):
        rows, cols = np.minimum(row0 + row_step, height - 1), np.minimum(col0 + col_step, width - 1)
        share = (1.0 - np.abs(v - row0 - row_step)) * (1.0 - np.abs(u - col0 - col_step))
        share *= _usable(view, mask, rows, cols, depth_m, tolerance_m)
        total += share
        color += share[:, None] * view.color[rows, cols]
    # The nearest pixel is usable and holds a quarter or more, so the sum cannot vanish but for rounding.
    return color / np.maximum(total, 1e-6)[:, None]
