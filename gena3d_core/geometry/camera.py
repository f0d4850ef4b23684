"""Pinhole projection and back-projection, vectorised over pixels and points."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import Float32Array, Float64Array, Intrinsics, View
from . import transforms

MIN_HEADING = 1e-3
"""Least horizontal part of a unit vector that is taken for a heading."""


def pixel_rays(intrinsics: Intrinsics) -> Float32Array:
    """(H, W, 3) float32 directions in the camera frame with z = 1: multiply by depth to get points."""
    u = (np.arange(intrinsics.width, dtype=np.float32) - np.float32(intrinsics.cx)) / np.float32(intrinsics.fx)
    v = (np.arange(intrinsics.height, dtype=np.float32) - np.float32(intrinsics.cy)) / np.float32(intrinsics.fy)
    rays = np.ones((intrinsics.height, intrinsics.width, 3), dtype=np.float32)
    rays[..., 0] = u[None, :]
    rays[..., 1] = v[:, None]
    return rays


def backproject(depth_m: np.ndarray, intrinsics: Intrinsics) -> Float32Array:
    """(H, W, 3) points in the camera frame from (H, W) depth; NaN where depth is NaN."""
    return pixel_rays(intrinsics) * depth_m[..., None]


def project(points_camera_m: np.ndarray, intrinsics: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates (..., 2) as (u, v) and depth (...,) of points (..., 3) in the camera frame.

    Points at or behind the camera get NaN pixels.
    """
    z = points_camera_m[..., 2]
    safe = np.where(z > 1e-6, z, np.nan)
    u = points_camera_m[..., 0] / safe * intrinsics.fx + intrinsics.cx
    v = points_camera_m[..., 1] / safe * intrinsics.fy + intrinsics.cy
    return np.stack([u, v], axis=-1), z


def world_points(view: View) -> Float32Array:
    """(H, W, 3) world points of a view with depth; NaN where depth is invalid."""
    if view.depth_m is None:
        raise InputError(f"view '{view.name}' has no depth")
    return transforms.apply(view.T_world_camera, backproject(view.depth_m, view.intrinsics))


def pixel_index(points_m: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nearest pixel of world points in a view.

    points_m (N, 3) -> rows (N,), cols (N,) int, depth_m (N,), inside (N,) bool (in front and in the image);
    rows and cols are 0 where not inside, so they can index an image safely.
    """
    uv, z = project(transforms.apply(transforms.inverse(view.T_world_camera), points_m), view.intrinsics)
    with np.errstate(invalid="ignore"):
        cols = np.floor(uv[..., 0] + 0.5)
        rows = np.floor(uv[..., 1] + 0.5)
        inside = (cols >= 0) & (cols < view.intrinsics.width) & (rows >= 0) & (rows < view.intrinsics.height)
    rows = np.where(inside, rows, 0).astype(np.int64)
    cols = np.where(inside, cols, 0).astype(np.int64)
    return rows, cols, z, inside


def upright_axes(T_world_camera: np.ndarray) -> Float64Array:
    """(3, 3) rotation whose columns are what is right, ahead and up (z) of a camera, in a world with z up.

    For one that looks straight down, the top of the image is ahead.
    """
    ahead = T_world_camera[:3, 2] * (1.0, 1.0, 0.0)
    if np.linalg.norm(ahead) < MIN_HEADING:
        ahead = -T_world_camera[:3, 1] * (1.0, 1.0, 0.0)
    ahead = ahead / np.linalg.norm(ahead)
    up = np.array([0.0, 0.0, 1.0])
    return np.stack([np.cross(ahead, up), ahead, up], axis=1)
