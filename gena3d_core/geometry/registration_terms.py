"""Pairs of points of two views and the equations they give: geometry (point to plane) and colour (photometric).

Both kinds have the same form: a residual r at a world point p that changes by g·δ when the source view moves by δ
there and by -g·δ when the target view does. For geometry g is the surface normal, for colour the gradient of the
target's image, taken in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..types import Float32Array, Float64Array, View
from . import camera, transforms
from .pointcloud import depth_normals


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels chosen from a view: points (N, 3) and normals (N, 3) in the camera frame, flat pixel indices (N,)."""

    points: Float32Array
    normals: Float32Array
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Cloud:
    """A view's surface in its camera frame, and the samples of the geometric and the photometric equations."""

    view: View
    points: Float32Array
    normals: Float32Array
    shape_samples: Samples
    color_samples: Samples


@dataclass(frozen=True, eq=False)
class Equations:
    """Equations between views `source` and `target` at world points (N, 3).

    gradients (N, 3) per metre of the residuals (N,), standard deviations `sigmas` (N,) of the residuals.
    """

    source: int
    target: int
    points: Float64Array
    gradients: Float64Array
    residuals: Float64Array
    sigmas: Float64Array


def make_cloud(view: View, count: int, max_range_ratio: float) -> Cloud | None:
    """Cloud of a view with about `count` samples of each kind, or None without usable depth."""
    if view.depth_m is None or not np.isfinite(view.depth_m).any():
        return None
    points = camera.backproject(view.depth_m, view.intrinsics)
    normals = depth_normals(points, step=max(2, view.intrinsics.width // 120))
    near = max_range_ratio * np.nanpercentile(view.depth_m, 10)
    with np.errstate(invalid="ignore"):
        usable = np.flatnonzero(np.isfinite(normals[..., 0]) & (points[..., 2] < near))
    if not len(usable):
        return None
    flat_points, flat_normals = points.reshape(-1, 3), normals.reshape(-1, 3)

    def pick(chance: np.ndarray) -> Samples:
        chosen = usable[_systematic(chance, count)]
        return Samples(flat_points[chosen], flat_normals[chosen], chosen)

    strength = np.hypot(*image_gradient(normalized_intensity(view, 2.0))).ravel()[usable]
    return Cloud(view, points, normals, pick(_even_directions(flat_normals[usable])), pick(strength))


def _even_directions(normals: np.ndarray) -> np.ndarray:
    """Chance (N,) of each normal to be sampled, evening out their directions (Rusinkiewicz and Levoy 2001)."""
    bins = np.round((normals + 1.0) * 2.0).astype(np.int64) @ np.array([25, 5, 1])
    _, inverse, sizes = np.unique(bins, return_inverse=True, return_counts=True)
    # The square root is midway between proportional and equal shares: rare directions count, noise does not rule.
    return (1.0 / np.sqrt(sizes))[inverse]


def _systematic(chance: np.ndarray, count: int) -> np.ndarray:
    """Indices of about `count` samples drawn in proportion to `chance`, without random numbers: results repeat."""
    total = float(chance.sum())
    if total <= 0.0:
        return np.zeros(0, dtype=np.int64)
    share = np.minimum(1.0, chance * (count / total))
    return np.flatnonzero(np.diff(np.floor(np.cumsum(share)), prepend=0.0) > 0)


def normalized_intensity(view: View, blur_px: float) -> Float32Array:
    """(H, W) intensity, smoothed, with local mean and contrast removed: exposure and shading drop out."""
    gray = cv2.cvtColor(view.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(gray, (0, 0), blur_px)
    window = (int(16 * blur_px) | 1,) * 2
    mean = cv2.blur(smooth, window)
    variance = cv2.blur(smooth * smooth, window) - mean * mean
    return ((smooth - mean) / np.sqrt(np.maximum(variance, 0.0) + 25.0)).astype(np.float32)


def image_gradient(image: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Central differences along u and v, per pixel."""
    kernel = np.array([[-0.5, 0.0, 0.5]], dtype=np.float32)
    return cv2.filter2D(image, -1, kernel), cv2.filter2D(image, -1, kernel.T)


def shape_equations(
    clouds: Sequence[Cloud | None],
    poses: Float64Array,
    active: np.ndarray,
    gate_m: float,
    max_angle_deg: float,
    noise_at_1m: float,
) -> list[Equations]:
    """Point-to-plane equations of all ordered couples of active views, paired by projection."""
    out = []
    for i, j, source, target in _couples(clouds, active):
        hit = _project(source.shape_samples, poses[i], target, poses[j])
        with np.errstate(invalid="ignore"):
            keep = hit.inside & (np.abs(hit.distances) < gate_m)
            keep &= np.linalg.norm(hit.offsets, axis=1) < 1.5 * gate_m
            keep &= hit.cosines > np.cos(np.radians(max_angle_deg))
        sigmas = noise_at_1m * np.maximum(hit.ranges[keep], 0.5) ** 2
        out.append(Equations(i, j, hit.world[keep], hit.normals[keep], hit.distances[keep], sigmas))
    return out


def color_equations(
    clouds: Sequence[Cloud | None],
    poses: Float64Array,
    active: np.ndarray,
    gate_m: float,
    max_angle_deg: float,
    images: Sequence[Float32Array],
) -> list[Equations]:
    """Photometric equations of all ordered couples of active views; `images` are `normalized_intensity` of the views."""
    out = []
    gradients = [image_gradient(image) for image in images]
    for i, j, source, target in _couples(clouds, active):
        hit = _project(source.color_samples, poses[i], target, poses[j])
        with np.errstate(invalid="ignore"):
            keep = hit.inside & (np.abs(hit.distances) < gate_m) & (hit.cosines > np.cos(np.radians(max_angle_deg)))
        map_uv = hit.uv[keep].astype(np.float32)
        sample = [
            cv2.remap(image, map_uv[:, None, 0], map_uv[:, None, 1], cv2.INTER_LINEAR)[:, 0]
            if keep.any()
            else np.zeros(0, dtype=np.float32)
            for image in (images[j], *gradients[j])
        ]
        intrinsics, local = target.view.intrinsics, hit.local[keep]
        du, dv = (sample[1] * intrinsics.fx / local[:, 2], sample[2] * intrinsics.fy / local[:, 2])
        in_camera = np.stack([du, dv, -(du * local[:, 0] + dv * local[:, 1]) / local[:, 2]], axis=1)
        residuals = sample[0] - images[i].ravel()[source.color_samples.pixels[keep]]
        sigmas = np.full(len(residuals), 0.3)
        out.append(
            Equations(i, j, hit.world[keep], in_camera @ poses[j, :3, :3].T, residuals.astype(np.float64), sigmas)
        )
    return out


@dataclass(frozen=True, eq=False)
class _Hits:
    """Samples of a source view, and the target's surface where they project; world frame unless said."""

    world: Float64Array
    local: Float64Array
    uv: Float64Array
    inside: np.ndarray
    normals: Float64Array
    offsets: Float64Array
    distances: Float64Array
    cosines: Float64Array
    ranges: Float64Array


def _couples(clouds: Sequence[Cloud | None], active: np.ndarray) -> list[tuple[int, int, Cloud, Cloud]]:
    usable = [(int(i), cloud) for i, cloud in enumerate(clouds) if cloud is not None and active[i]]
    return [(i, j, a, b) for i, a in usable for j, b in usable if i != j]


def _project(samples: Samples, T_source: Float64Array, target: Cloud, T_target: Float64Array) -> _Hits:
    world = transforms.apply(T_source, samples.points.astype(np.float64))
    view = replace(target.view, T_world_camera=T_target)
    rows, cols, _, inside = camera.pixel_index(world, view)
    local = transforms.apply(transforms.inverse(T_target), world)
    uv, _ = camera.project(local, view.intrinsics)
    normals = target.normals[rows, cols] @ T_target[:3, :3].T
    hits = target.points[rows, cols].astype(np.float64)
    offsets = world - transforms.apply(T_target, hits)
    return _Hits(
        world=world,
        local=local,
        uv=uv,
        inside=inside,
        normals=normals,
        offsets=offsets,
        distances=(offsets * normals).sum(axis=1),
        cosines=(normals * (samples.normals @ T_source[:3, :3].T)).sum(axis=1),
        ranges=np.maximum(hits[:, 2], samples.points[:, 2]),
    )
