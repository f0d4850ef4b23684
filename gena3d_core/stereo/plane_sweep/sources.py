"""Which depths are possible, and which other views each view is compared with: from the poses alone, or with points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...geometry import transforms
from ...types import Float64Array, View
from .config import PlaneSweepConfig

LEAST_OVERLAP = 0.15
"""Share of a view's pixels, at one depth at least, that a source must see."""
LEAST_USEFULNESS = 0.005
"""Mean over the depths of the share of pixels that a source sees at a good angle, below which it is left out."""
MAX_ANGLE_DEG = 60.0
"""Rays that meet at a larger angle see different sides of a surface."""
GOOD_ANGLE_DEG = 6.0
"""Smaller angles triangulate in proportion less exactly."""
BEST_ANGLE_LIMIT_DEG = 30.0
"""Larger angles distort the matching windows in proportion more."""
MIN_POINTS = 20
FARTHEST_BASELINES = 60.0
"""Depths beyond this multiple of the longest baseline cannot be told from infinity."""
GRID = (7, 9)


@dataclass(frozen=True, eq=False)
class SweepPlan:
    """What one view is swept with: depth range in metres and indices of its sources, best first."""

    near_m: float
    far_m: float
    sources: tuple[int, ...]


def _grid_rays(view: View) -> Float64Array:
    """(P, 3) rays with z = 1 of a coarse grid of pixels."""
    k = view.intrinsics
    v, u = np.meshgrid(
        (np.arange(GRID[0]) + 0.5) / GRID[0] * k.height, (np.arange(GRID[1]) + 0.5) / GRID[1] * k.width, indexing="ij"
    )
    return np.stack([(u.ravel() - k.cx) / k.fx, (v.ravel() - k.cy) / k.fy, np.ones(u.size)], axis=1)


def _sight(reference: View, source: View, depths_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the reference's grid pixels at each depth: (Z, P) bool seen by the source, and (Z, P) angle in degrees."""
    points = depths_m[:, None, None] * _grid_rays(reference)
    T = transforms.inverse(source.T_world_camera) @ reference.T_world_camera
    seen_from = transforms.apply(T, points)
    z = seen_from[..., 2]
    k = source.intrinsics
    with np.errstate(divide="ignore", invalid="ignore"):
        u = seen_from[..., 0] / z * k.fx + k.cx
        v = seen_from[..., 1] / z * k.fy + k.cy
    seen = (z > 1e-6) & (u >= 0) & (u <= k.width - 1) & (v >= 0) & (v <= k.height - 1)
    in_source = seen_from / np.maximum(np.linalg.norm(seen_from, axis=-1, keepdims=True), 1e-9)
    in_reference = points @ T[:3, :3].T
    in_reference /= np.linalg.norm(in_reference, axis=-1, keepdims=True)
    cosine = (in_source * in_reference).sum(axis=-1)
    return seen, np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _usefulness(seen: np.ndarray, angle_deg: np.ndarray) -> np.ndarray:
    """(Z,) share of pixels at each depth that the source sees, less where the angle suits stereo badly."""
    weight = np.minimum(angle_deg / GOOD_ANGLE_DEG, 1.0) * np.minimum(BEST_ANGLE_LIMIT_DEG / (angle_deg + 1e-6), 1.0)
    return (seen * weight * (angle_deg < MAX_ANGLE_DEG)).mean(axis=1)


def plan_sweep(
    views: Sequence[View], index: int, config: PlaneSweepConfig, points_m: np.ndarray | None = None
) -> SweepPlan | None:
    """Depth range and sources of view `index`, or None when no other view overlaps it from another place.

    points_m (N, 3): world points of the scene that narrow the range where the config leaves it open.
    """
    reference = views[index]
    others = [i for i in range(len(views)) if i != index]
    centers = np.stack([view.T_world_camera[:3, 3] for view in views])
    baselines = np.linalg.norm(centers[others] - centers[index], axis=1)
    others = [i for i, baseline in zip(others, baselines, strict=True) if baseline > 1e-4]
    if not others:
        return None
    near_m, far_m = 0.3 * baselines[baselines > 1e-4].min(), FARTHEST_BASELINES * baselines.max()
    depths_m = np.geomspace(config.min_depth_m or near_m, config.max_depth_m or max(far_m, 2 * near_m), 48)
    sights = [_sight(reference, views[i], depths_m) for i in others]
    overlap = np.stack([(seen & (angle < MAX_ANGLE_DEG)).mean(axis=1) for seen, angle in sights])
    overlapping = overlap >= LEAST_OVERLAP
    if not overlapping.any():
        return None
    ends_m = np.array([depths_m[seen][[0, -1]] for seen in overlapping if seen.any()])
    # The median, because a source next to the view overlaps it at any depth, however near.
    low_m, high_m = float(np.median(ends_m[:, 0])), float(ends_m[:, 1].max())
    if points_m is not None:
        low_m, high_m = _narrow(reference, points_m, low_m, high_m)
    low_m, high_m = config.min_depth_m or low_m, config.max_depth_m or high_m
    if high_m <= low_m * 1.01:
        high_m = low_m * 2.0
    depths_m = 1.0 / np.linspace(1.0 / high_m, 1.0 / low_m, 12)
    score = np.array([_usefulness(*_sight(reference, views[i], depths_m)).max() for i in others])
    order = [i for i in np.argsort(-score, kind="stable") if score[i] > 0.02][: config.max_sources]
    return SweepPlan(float(low_m), float(high_m), tuple(others[i] for i in order)) if order else None


def _narrow(view: View, points_m: np.ndarray, low_m: float, high_m: float) -> tuple[float, float]:
    """The range reduced to what the scene's points suggest, with room for what has no points."""
    seen_from = transforms.apply(transforms.inverse(view.T_world_camera), points_m)
    z = seen_from[:, 2]
    k = view.intrinsics
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = seen_from[:, 0] / z * k.fx + k.cx, seen_from[:, 1] / z * k.fy + k.cy
    inside = (z > 1e-3) & (u >= 0) & (u < k.width) & (v >= 0) & (v < k.height)
    if inside.sum() < MIN_POINTS:
        return low_m, high_m
    near, far = np.percentile(z[inside], [2.0, 98.0])
    narrowed = max(low_m, 0.6 * near), min(high_m, 1.5 * far)
    return narrowed if narrowed[1] > narrowed[0] else (low_m, high_m)


def disparity_range_px(view: View, sources: Sequence[View], near_m: float, far_m: float) -> float:
    """Pixels that the image of a point moves between the far and near end, in the source where it moves most."""
    rays = _grid_rays(view)
    largest = 1.0
    for source in sources:
        T = transforms.inverse(source.T_world_camera) @ view.T_world_camera
        ends = [transforms.apply(T, rays * depth_m) for depth_m in (near_m, far_m)]
        in_front = (ends[0][:, 2] > 1e-2 * near_m) & (ends[1][:, 2] > 1e-2 * near_m)
        if in_front.any():
            one, other = (end[in_front, :2] / end[in_front, 2:] for end in ends)
            motion = np.linalg.norm((one - other) * (source.intrinsics.fx, source.intrinsics.fy), axis=1)
            largest = max(largest, float(np.median(motion)))
    return largest
