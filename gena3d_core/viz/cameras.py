"""Where to look at a scene from."""

from __future__ import annotations

import math

import numpy as np

from ..geometry import transforms
from ..types import Float64Array, Intrinsics

FIELD_OF_VIEW_RAD = math.radians(28)
"""Long lenses keep shapes: vertical lines stay nearly parallel."""


def orbit_camera(
    points_m: np.ndarray, azimuth_rad: float, elevation_rad: float, width: int, height: int, margin: float = 0.08
) -> tuple[Float64Array, Intrinsics]:
    """`T_world_camera` and intrinsics that just show `points_m` (N, 3) from a direction (z up).

    azimuth counts from +x towards +y; margin is the share of the picture left free on each side.
    """
    focal = 0.5 * max(width, height) / math.tan(0.5 * FIELD_OF_VIEW_RAD)
    intrinsics = Intrinsics(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    elevation_rad = min(elevation_rad, math.radians(89))
    back = np.array(
        [
            math.cos(elevation_rad) * math.cos(azimuth_rad),
            math.cos(elevation_rad) * math.sin(azimuth_rad),
            math.sin(elevation_rad),
        ]
    )
    R = transforms.look_at(back, np.zeros(3))[:3, :3]
    local = np.asarray(points_m, dtype=np.float64) @ R
    slope = np.array([width, height]) * (0.5 - margin) / focal
    # Each side of the frustum is a half-space: its tightest points fix the position along x and y, and the distance.
    ahead = slope * local[:, 2:3]
    right, left = (local[:, :2] - ahead).max(axis=0), (local[:, :2] + ahead).min(axis=0)
    center = (right + left) / 2
    backwards = float(((right - left) / (2 * slope)).max())
    # Room for a single point, which fits into any frustum.
    eye = R @ np.array([*center, -backwards - 1e-3])
    return transforms.rigid(R, eye), intrinsics


def azimuth_of(T_world_camera: np.ndarray, target_m: np.ndarray) -> float:
    """Azimuth in radians of a camera as seen from `target_m`."""
    x, y = (T_world_camera[:3, 3] - target_m)[:2]
    return math.atan2(float(y), float(x))
