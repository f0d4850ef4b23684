"""The support plane that the views look at, and each view's own heights above it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import camera
from ..geometry.plane import PlaneCandidate, fit_plane, horizontal_planes
from ..geometry.pointcloud import depth_normals
from ..types import BoolArray, Float32Array, SupportPlane, View


@dataclass(frozen=True, eq=False)
class Surface:
    """World points and normals (H, W, 3) of a view, NaN where unknown, thinned for the search of planes."""

    view: View
    points: Float32Array
    normals: Float32Array


@dataclass(frozen=True, eq=False)
class Heights:
    """A view above the support plane: heights (H, W) in metres, NaN where unknown, and their deviation (H, W).

    plane is the view's own fit: it differs from the scene's by what the view's pose and range are off.
    """

    plane: SupportPlane
    height_m: Float32Array
    sigma_m: Float32Array


def surface_of(view: View) -> Surface:
    """Raises `InputError` for a view without depth."""
    if view.depth_m is None:
        raise InputError(f"view '{view.name}' has no depth: run a stereo matcher before the segmenter")
    local = camera.backproject(view.depth_m, view.intrinsics)
    normals = depth_normals(local, step=max(2, view.intrinsics.width // 100))
    R = view.T_world_camera[:3, :3].astype(np.float32)
    return Surface(view, camera.world_points(view), normals @ R.T)


def find_support_planes(surfaces: Sequence[Surface], max_tilt_deg: float) -> list[PlaneCandidate]:
    """Level planes, best first: a plane is better the more of the middle of the pictures it fills and the less far
    it lies below the cameras (a table rather than the floor around it).

    Raises `InputError` when the views have no depth at all.
    """
    points, normals, weights = [], [], []
    for surface in surfaces:
        step = max(1, surface.view.intrinsics.width // 160)
        p = surface.points[::step, ::step].reshape(-1, 3)
        n = surface.normals[::step, ::step].reshape(-1, 3)
        w = _gaze(surface.view)[::step, ::step].ravel()
        known = np.isfinite(n[:, 0]) & np.isfinite(p[:, 2])
        points.append(p[known])
        normals.append(n[known])
        weights.append(w[known])
    joined = np.concatenate(points)
    if not len(joined):
        raise InputError("no view has depth, so no support plane can be found")
    candidates = horizontal_planes(joined, np.concatenate(normals), np.concatenate(weights), max_tilt_deg=max_tilt_deg)
    eyes = np.stack([surface.view.T_world_camera[:3, 3] for surface in surfaces])

    def merit(candidate: PlaneCandidate) -> float:
        below = float(np.median(candidate.plane.height_m(eyes)))
        return candidate.weight / (1.0 + below**2) if below > 0.05 else 0.0

    ranked = [PlaneCandidate(c.plane, merit(c)) for c in candidates]
    return sorted((c for c in ranked if c.weight > 0.0), key=lambda c: -c.weight)


def _gaze(view: View) -> Float32Array:
    """(H, W) weight of each pixel: what a view is about lies in its middle."""
    height, width = view.color.shape[:2]
    u = (np.arange(width, dtype=np.float32) - width / 2) / (0.4 * width)
    v = (np.arange(height, dtype=np.float32) - height / 2) / (0.5 * height)
    return np.exp(-0.5 * (u[None, :] ** 2 + v[:, None] ** 2)).astype(np.float32)


def heights_above(surface: Surface, plane: SupportPlane, max_bias_m: float, max_bias_deg: float) -> Heights:
    """Heights of a view above its own fit of the support plane.

    The fit follows the view's residual drift in height and tilt as long as it stays within the limits; a view that
    shows too little of the plane keeps the scene's.
    """
    common = plane.height_m(surface.points)
    with np.errstate(invalid="ignore"):
        level = (np.abs(common) < 0.04) & (surface.normals @ plane.normal.astype(np.float32) > 0.85)
    own = plane
    inliers = surface.points[level]
    if len(inliers) >= 500:
        fitted = fit_plane(inliers[:: max(1, len(inliers) // 8000)], start=plane)
        shift = float(np.abs(fitted.height_m(inliers.astype(np.float64)) - plane.height_m(inliers)).max())
        tilt = float(np.degrees(np.arccos(np.clip(fitted.normal @ plane.normal, -1.0, 1.0))))
        own = fitted if shift < 2.0 * max_bias_m and tilt < max_bias_deg else plane
    height = own.height_m(surface.points)
    return Heights(own, height, _deviation(surface, height, level))


def _deviation(surface: Surface, height_m: Float32Array, level: BoolArray) -> Float32Array:
    """Standard deviation of the height of each pixel, from the scatter of the plane's pixels; grows with range²."""
    depth = surface.view.depth_m
    assert depth is not None
    residuals, ranges = np.abs(height_m[level]), depth[level]
    if len(residuals) < 200:
        return np.full(depth.shape, 0.004, dtype=np.float32)
    # The nearer half of the residuals: papers and feet of objects are above the plane, noise is on both sides.
    typical = 1.4826 * float(np.median(residuals[residuals < 0.025]))
    at_one = typical / float(np.median(ranges)) ** 2
    return np.clip(at_one * depth**2, 0.001, 0.03).astype(np.float32)
