"""Depth of one camera as another, rigidly mounted one would measure it."""

from __future__ import annotations

import math

import numpy as np

from ..types import Float32Array, Intrinsics
from . import camera, transforms


def register_depth(
    depth_m: Float32Array, depth_intrinsics: Intrinsics, color_intrinsics: Intrinsics, T_color_depth: np.ndarray
) -> Float32Array:
    """(H, W) depth of the depth camera -> (H', W') float32 depth of the colour camera, NaN where nothing lands.

    T_color_depth maps the depth camera's optical frame to the colour camera's. The nearest surface wins; where the
    colour camera has finer pixels every depth pixel covers as many of them as it is wide.
    """
    size = (color_intrinsics.height, color_intrinsics.width)
    points = transforms.apply(T_color_depth, camera.backproject(depth_m, depth_intrinsics))
    points = points[np.isfinite(points).all(axis=-1)]
    uv, z = camera.project(points, color_intrinsics)
    footprint = max(
        1, math.ceil(max(color_intrinsics.fx / depth_intrinsics.fx, color_intrinsics.fy / depth_intrinsics.fy) - 0.01)
    )
    in_front = z > 1e-6
    corner = np.floor(uv[in_front] - (footprint - 1) / 2 + 0.5)
    z = z[in_front]
    steps = np.stack(np.meshgrid(np.arange(footprint), np.arange(footprint)), axis=-1).reshape(-1, 2)
    pixels = (corner[:, None] + steps[None]).reshape(-1, 2)
    z = np.repeat(z, len(steps))
    inside = (pixels >= 0).all(axis=1) & (pixels[:, 0] < size[1]) & (pixels[:, 1] < size[0])
    cols, rows = pixels[inside].astype(np.int64).T
    nearest = np.full(size[0] * size[1], np.inf, dtype=np.float32)
    np.minimum.at(nearest, rows * size[1] + cols, z[inside].astype(np.float32))
    nearest[np.isinf(nearest)] = np.nan
    return nearest.reshape(size)
