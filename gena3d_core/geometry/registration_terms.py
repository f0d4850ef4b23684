"""Pairs of points of two views and the equations they give: geometry (point to plane) and colour (photometric).

Both kinds have the same form: a residual r at a world point p that changes by g·δ when the source view moves by δ
there and by -g·δ when the target view does. For geometry g is the surface normal, for colour the gradient of the
target's image, taken in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..types import Float32Array, Float64Array, Intrinsics, View
from . import camera, transforms
from .pointcloud import depth_normals


@dataclass(frozen=True, eq=False)
class Cloud:
    """A view's surface in its camera frame on every `stride`-th pixel of a window, and samples of it.

    points, normals   (h, w, 3), NaN where unknown; pixel (row, col) of the window is `origin + stride * (row, col)`
    sample_points, sample_normals  (N, 3): first `shape_count` for geometry, the rest for colour
    sample_uv         (N, 2) pixels (u, v) of the samples in the picture
    """

    intrinsics: Intrinsics
    origin: tuple[int, int]
    stride: int
    points: Float32Array
    normals: Float32Array
    sample_points: Float32Array
    sample_normals: Float32Array
    sample_uv: Float32Array
    shape_count: int


@dataclass(frozen=True, eq=False)
class Patch:
    """Normalised intensity of a view and its gradient along u and v, at 1/`scale` of its resolution."""

    scale: int
    intensity: Float32Array
    along_u: Float32Array
    along_v: Float32Array


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


@dataclass(frozen=True)
class PairingLimits:
    """When two points may be a pair: distance in metres, angle of normals; and the noise of depth at one metre."""

    gate_m: float
    max_angle_deg: float
    noise_at_1m: float


def make_cloud(view: View, depth_m: Float32Array, samples: int) -> Cloud | None:
    """Cloud of the pixels with finite `depth_m` (H, W) and about `samples` samples of each kind; None without any."""
    known = np.isfinite(depth_m)
    rows, cols = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    if not len(rows):
        return None
    margin = max(2, view.intrinsics.width // 120)
    top, left = max(0, int(rows[0]) - margin), max(0, int(cols[0]) - margin)
    window = np.s_[top : int(rows[-1]) + margin + 1, left : int(cols[-1]) + margin + 1]
    # Half the resolution is plenty for a whole picture; a small window needs every pixel.
    stride = 2 if known[window].sum() > 60_000 else 1
    picked = (slice(window[0].start, window[0].stop, stride), slice(window[1].start, window[1].stop, stride))
    points = camera.pixel_rays(view.intrinsics)[picked] * depth_m[picked][..., None]
    normals = depth_normals(points, step=max(2, margin // stride))
    usable = np.flatnonzero(np.isfinite(normals[..., 0]))
    if not len(usable):
        return None
    patch = make_patch(view, 2.0)
    strength = np.hypot(patch.along_u, patch.along_v)
    strength = cv2.resize(strength, (view.intrinsics.width, view.intrinsics.height))[picked].ravel()[usable]
    shape = usable[_systematic(_even_directions(normals.reshape(-1, 3)[usable]), samples)]
    color = usable[_systematic(strength, samples)]
    chosen = np.concatenate([shape, color])
    row, col = np.divmod(chosen, points.shape[1])
    uv = np.stack([left + stride * col, top + stride * row], axis=1).astype(np.float32)
    return Cloud(
        intrinsics=view.intrinsics,
        origin=(top, left),
        stride=stride,
        points=points,
        normals=normals,
        sample_points=points.reshape(-1, 3)[chosen],
        sample_normals=normals.reshape(-1, 3)[chosen],
        sample_uv=uv,
        shape_count=len(shape),
    )


def _even_directions(normals: np.ndarray) -> np.ndarray:
    """Chance (N,) of each normal to be sampled, evening out their directions (Rusinkiewicz and Levoy 2001)."""
    bins = np.round((normals + 1.0) * 2.0).astype(np.int64) @ np.array([25, 5, 1])
    sizes = np.bincount(bins, minlength=125)
    # The square root is midway between proportional and equal shares: rare directions count, noise does not rule.
    return 1.0 / np.sqrt(sizes[bins])


def _systematic(chance: np.ndarray, count: int) -> np.ndarray:
    """Indices of about `count` samples drawn in proportion to `chance`, without random numbers: results repeat."""
    total = float(chance.sum())
    if total <= 0.0:
        return np.zeros(0, dtype=np.int64)
    share = np.minimum(1.0, chance.astype(np.float64) * (count / total))
    return np.flatnonzero(np.diff(np.floor(np.cumsum(share)), prepend=0.0) > 0)


def make_patch(view: View, blur_px: float) -> Patch:
    """Intensity smoothed by `blur_px`, with local mean and contrast removed: exposure and shading drop out."""
    scale = max(1, int(blur_px // 1.5))
    gray = cv2.cvtColor(view.color, cv2.COLOR_RGB2GRAY)
    size = (-(-gray.shape[1] // scale), -(-gray.shape[0] // scale))
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    smooth = cv2.GaussianBlur(small, (0, 0), blur_px / scale)
    window = (int(16 * blur_px / scale) | 1,) * 2
    mean = cv2.blur(smooth, window)
    variance = cv2.blur(smooth * smooth, window) - mean * mean
    intensity = (smooth - mean) / np.sqrt(np.maximum(variance, 0.0) + 25.0)
    kernel = np.array([[-0.5, 0.0, 0.5]], dtype=np.float32)
    gradients = (np.asarray(cv2.filter2D(intensity, -1, k), dtype=np.float32) for k in (kernel, kernel.T))
    return Patch(scale, intensity.astype(np.float32), *gradients)


def equations(
    clouds: Sequence[Cloud | None],
    poses: Float64Array,
    active: np.ndarray,
    limits: PairingLimits,
    patches: Sequence[Patch] | None,
) -> tuple[list[Equations], list[Equations]]:
    """Point-to-plane and photometric equations of all ordered couples of active views, paired by projection.

    patches: one a view, or None for geometry alone.
    """
    usable = [(int(i), cloud) for i, cloud in enumerate(clouds) if cloud is not None and active[i]]
    shape, color = [], []
    for i, source in usable:
        for j, target in usable:
            if i == j:
                continue
            T_target_source = transforms.inverse(poses[j]) @ poses[i]
            hit = _project(source, target, T_target_source, limits)
            shape.append(_shape_equations(i, j, source, hit, poses[j], limits))
            if patches is not None:
                color.append(_color_equations(i, j, source, target, hit, poses[j], patches))
    return shape, color


@dataclass(frozen=True, eq=False)
class _Hits:
    """Samples of the source that pair with the target's surface, in the target's camera frame."""

    index: np.ndarray
    local: Float32Array
    uv: Float32Array
    normals: Float32Array
    distances: Float32Array


def _project(source: Cloud, target: Cloud, T_target_source: Float64Array, limits: PairingLimits) -> _Hits:
    local = transforms.apply(T_target_source, source.sample_points)
    uv, _ = camera.project(local, target.intrinsics)
    height, width = target.normals.shape[:2]
    with np.errstate(invalid="ignore"):
        cols = np.round((uv[:, 0] - target.origin[1]) / target.stride)
        rows = np.round((uv[:, 1] - target.origin[0]) / target.stride)
        inside = np.flatnonzero((cols >= 0) & (cols < width) & (rows >= 0) & (rows < height))
    pixel = rows[inside].astype(np.int64) * width + cols[inside].astype(np.int64)
    normals = target.normals.reshape(-1, 3)[pixel]
    offsets = local[inside] - target.points.reshape(-1, 3)[pixel]
    distances = (offsets * normals).sum(axis=1)
    turned = source.sample_normals[inside] @ T_target_source[:3, :3].T.astype(np.float32)
    with np.errstate(invalid="ignore"):
        keep = np.abs(distances) < limits.gate_m
        keep &= (offsets * offsets).sum(axis=1) < (1.5 * limits.gate_m) ** 2
        keep &= (normals * turned).sum(axis=1) > np.cos(np.radians(limits.max_angle_deg))
    index = inside[keep]
    return _Hits(index, local[index], uv[index].astype(np.float32), normals[keep], distances[keep])


def _shape_equations(
    i: int, j: int, source: Cloud, hit: _Hits, T_world_target: Float64Array, limits: PairingLimits
) -> Equations:
    own = hit.index < source.shape_count
    local = hit.local[own].astype(np.float64)
    ranges = np.maximum(local[:, 2], source.sample_points[hit.index[own], 2])
    return Equations(
        source=i,
        target=j,
        points=transforms.apply(T_world_target, local),
        gradients=hit.normals[own].astype(np.float64) @ T_world_target[:3, :3].T,
        residuals=hit.distances[own].astype(np.float64),
        sigmas=limits.noise_at_1m * np.maximum(ranges, 0.5) ** 2,
    )


def _color_equations(
    i: int,
    j: int,
    source: Cloud,
    target: Cloud,
    hit: _Hits,
    T_world_target: Float64Array,
    patches: Sequence[Patch],
) -> Equations:
    own = hit.index >= source.shape_count
    from_patch, to_patch = patches[i], patches[j]
    local = hit.local[own].astype(np.float64)
    seen, du, dv = (_sample(image, hit.uv[own], to_patch.scale) for image in _images(to_patch))
    meant = _sample(from_patch.intensity, source.sample_uv[hit.index[own]], from_patch.scale)
    along_x = du / to_patch.scale * target.intrinsics.fx / local[:, 2]
    along_y = dv / to_patch.scale * target.intrinsics.fy / local[:, 2]
    along_z = -(along_x * local[:, 0] + along_y * local[:, 1]) / local[:, 2]
    return Equations(
        source=i,
        target=j,
        points=transforms.apply(T_world_target, local),
        gradients=np.stack([along_x, along_y, along_z], axis=1) @ T_world_target[:3, :3].T,
        residuals=(seen - meant).astype(np.float64),
        sigmas=np.full(len(local), 0.3),
    )


def _images(patch: Patch) -> tuple[Float32Array, Float32Array, Float32Array]:
    return patch.intensity, patch.along_u, patch.along_v


def _sample(image: Float32Array, uv: Float32Array, scale: int) -> Float32Array:
    """(N,) bilinear values of an image, at 1/`scale`, at full-resolution pixels (N, 2)."""
    if not len(uv):
        return np.zeros(0, dtype=np.float32)
    small = np.ascontiguousarray((uv + 0.5) / scale - 0.5, dtype=np.float32)
    # OpenCV's maps have at most 32767 rows, so the points are laid out in a block.
    width = 256
    padded = np.zeros((-(-len(small) // width) * width, 2), dtype=np.float32)
    padded[: len(small)] = small
    block = padded.reshape(-1, width, 2)
    values = cv2.remap(image, block, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return np.asarray(values, dtype=np.float32).reshape(-1)[: len(small)]
