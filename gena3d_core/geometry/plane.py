"""Planes: robust fits, and the horizontal planes of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

from ..errors import InputError
from ..types import Float64Array, SupportPlane, require_shape

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class PlaneCandidate:
    """A horizontal plane and the total weight of the points on it."""

    plane: SupportPlane
    weight: float


def fit_plane(
    points_m: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    start: SupportPlane | None = None,
    gates_m: tuple[float, ...] = (0.03, 0.015, 0.008),
    iterations: int = 4,
) -> SupportPlane:
    """Plane n·p + d = 0 with n up, fitted to points (N, 3) by reweighted least squares of the vertical distance.

    Starts at `start` (default: the level plane through the median height); each gate is the distance in metres at
    which a point has lost all weight (Tukey), so a minority above or below does not pull. Raises `InputError` when
    fewer than three points lie near the start or they form a line.
    """
    require_shape("points", points_m, (None, 3))
    points = np.asarray(points_m, dtype=np.float64)
    if not len(points) or not np.isfinite(points).all():
        raise InputError("a plane needs finite points")
    base = np.ones(len(points)) if weights is None else np.asarray(weights, dtype=np.float64)
    center = points.mean(axis=0)
    local = points - center
    # Height as a function of the place: z = a x + b y + c.
    if start is None:
        coefficients = np.array([0.0, 0.0, np.median(local[:, 2])])
    else:
        n = np.asarray(start.normal, dtype=np.float64)
        coefficients = np.array([-n[0], -n[1], -float(start.height_m(center))]) / n[2]
    A = np.column_stack([local[:, :2], np.ones(len(local))])
    for gate in gates_m:
        for _ in range(iterations):
            residual = (local[:, 2] - A @ coefficients) / np.sqrt(1.0 + (coefficients[:2] ** 2).sum())
            weight = base * np.clip(1.0 - (residual / gate) ** 2, 0.0, None) ** 2
            H = A.T @ (A * weight[:, None])
            if (weight > 0).sum() < 3 or np.linalg.cond(H) > 1e12:
                raise InputError("cannot fit a plane: too few points near it, or all on one line")
            coefficients = np.linalg.solve(H, A.T @ (local[:, 2] * weight))
    normal = np.array([-coefficients[0], -coefficients[1], 1.0])
    offset = -(coefficients[2] + center @ normal)
    length = np.linalg.norm(normal)
    return SupportPlane(normal / length, float(offset / length))


def horizontal_planes(
    points_m: np.ndarray,
    normals: np.ndarray,
    weights: np.ndarray,
    *,
    max_tilt_deg: float = 10.0,
    bin_m: float = 0.01,
    min_share: float = 0.03,
) -> list[PlaneCandidate]:
    """Horizontal planes among points (N, 3) with unit normals (N, 3), heaviest first.

    The common tilt of all level surfaces is taken from the normals, so that a world frame whose z is off by some
    degrees still gives sharp peaks of height. A candidate must hold `min_share` of all weight.
    """
    total = float(weights.sum())
    level = normals[:, 2] > np.cos(np.radians(max_tilt_deg))
    if level.sum() < 50 or total <= 0.0:
        return []
    points, weights = points_m[level].astype(np.float64), weights[level].astype(np.float64)
    up = np.median(normals[level], axis=0).astype(np.float64)
    up /= np.linalg.norm(up)
    heights = points @ up
    low = heights.min() - 3 * bin_m
    count = int(np.ceil((heights.max() + 3 * bin_m - low) / bin_m)) + 1
    histogram = np.bincount(((heights - low) / bin_m).astype(np.int64), weights, minlength=count)
    smooth = np.convolve(histogram, [0.5, 1.0, 1.0, 1.0, 0.5], mode="same")
    peaks, _ = find_peaks(smooth, height=0.5 * min_share * total, distance=4)
    found = []
    for peak in peaks:
        height = low + (peak + 0.5) * bin_m
        near = np.abs(heights - height) < 0.04
        try:
            plane = fit_plane(points[near], weights[near], start=SupportPlane(up, -height))
        except InputError:
            continue
        weight = float(weights[np.abs(plane.height_m(points)) < 0.015].sum())
        if plane.normal[2] > np.cos(np.radians(max_tilt_deg)) and weight > min_share * total:
            found.append(PlaneCandidate(plane, weight))
    found.sort(key=lambda candidate: -candidate.weight)
    return _distinct(found)


def _distinct(candidates: list[PlaneCandidate]) -> list[PlaneCandidate]:
    """The candidates without those that repeat a heavier one."""
    kept: list[PlaneCandidate] = []
    for candidate in candidates:
        if all(abs(candidate.plane.offset_m - other.plane.offset_m) > 0.02 for other in kept):
            kept.append(candidate)
    return kept


def foot(plane: SupportPlane, points_m: np.ndarray) -> Float64Array:
    """Points (..., 3) projected onto the plane."""
    return points_m - plane.height_m(points_m)[..., None] * plane.normal
