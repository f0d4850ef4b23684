"""Pixel-sized squares for objects too small or too scattered to fuse into a surface."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import mesh as mesh_ops
from ..types import Mesh, View

CONFIDENCE = 0.2
MAX_SURFELS = 5_000


def surfels(points_m: np.ndarray, point_colors: np.ndarray, point_view: np.ndarray, views: Sequence[View]) -> Mesh:
    """One square of a pixel's footprint, facing its camera, for each world point (N, 3); at most 5,000 of them.

    point_colors (N, 3) uint8, point_view (N,) index into `views`. The result is open, in world metres.
    """
    chosen = np.linspace(0, len(points_m) - 1, min(len(points_m), MAX_SURFELS)).astype(np.int64)
    points, view_index = points_m[chosen].astype(np.float64), point_view[chosen]
    poses = np.stack([view.T_world_camera for view in views])[view_index]
    focal = np.array([view.intrinsics.fx for view in views])[view_index]
    depth = np.einsum("ni,ni->n", points - poses[:, :3, 3], poses[:, :3, 2])
    half = 0.5 * np.abs(depth) / focal
    # Image x is right and y is down, so this order is counter-clockwise as the camera sees it.
    offsets = np.array([(-1.0, -1.0), (-1.0, 1.0), (1.0, 1.0), (1.0, -1.0)])
    corners = points[:, None] + half[:, None, None] * np.einsum("kj,nij->nki", offsets, poses[:, :3, :2])
    first = 4 * np.arange(len(points))[:, None]
    faces = np.concatenate([first + np.array([0, 1, 2]), first + np.array([0, 2, 3])])
    count = 4 * len(points)
    return mesh_ops.make_mesh(
        corners.reshape(-1, 3),
        faces,
        vertex_colors=np.repeat(point_colors[chosen].astype(np.uint8), 4, axis=0),
        vertex_confidence=np.full(count, CONFIDENCE, dtype=np.float32),
        vertex_observed=np.ones(count, dtype=bool),
    )
