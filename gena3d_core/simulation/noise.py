"""Noise of depth and colour cameras, seeded and vectorised; used by the simulator and by the training data."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError
from ..types import Float32Array, UInt8Array, require_shape

_VERY_FAR_M = 1e6
_STEP = 0.02  # second difference of depth, relative, from which neighbours belong to different surfaces


@dataclass(frozen=True)
class NoiseSpec:
    """Errors of a structured-light or stereo depth camera, and of the colour camera.

    baseline_m, disparity_step_px  depth is quantised as the sensor quantises disparity d = focal * baseline / depth
    disparity_noise_px             standard deviation of disparity: depth error grows with the square of depth
    lateral_noise_px               standard deviation of the pixel from which a depth is taken (ragged edges)
    edge_dropout                   share of the pixels beside a depth step that are lost
    flying_pixels                  share of the pixels at a depth step that lie between the two surfaces
    grazing_dropout_deg            surfaces seen flatter than this angle to the view ray are lost
    dropout                        share of all pixels that are lost, in blobs
    min_depth_m, max_depth_m       range outside of which the sensor gives nothing
    color_sigma                    standard deviation of colour noise, in steps of 1/255
    """

    baseline_m: float = 0.075
    disparity_step_px: float = 1.0 / 8.0
    disparity_noise_px: float = 0.06
    lateral_noise_px: float = 0.4
    edge_dropout: float = 0.35
    flying_pixels: float = 0.1
    grazing_dropout_deg: float = 8.0
    dropout: float = 0.005
    min_depth_m: float = 0.25
    max_depth_m: float = 4.0
    color_sigma: float = 2.0

    def __post_init__(self) -> None:
        if self.baseline_m <= 0:
            raise InputError(f"noise baseline_m must be positive, got {self.baseline_m}")
        for name in (
            "disparity_step_px",
            "disparity_noise_px",
            "lateral_noise_px",
            "grazing_dropout_deg",
            "color_sigma",
        ):
            if not getattr(self, name) >= 0:
                raise InputError(f"noise {name} must not be negative, got {getattr(self, name)}")
        for name in ("edge_dropout", "flying_pixels", "dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"noise {name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise InputError(f"noise needs 0 <= min_depth_m < max_depth_m, got {self.min_depth_m}, {self.max_depth_m}")


def structured_light_noise(
    depth_m: np.ndarray, rng: np.random.Generator, focal_px: float = 525.0, spec: NoiseSpec | None = None
) -> Float32Array:
    """Depth (H, W) float32 as a real sensor would give it: NaN where it fails.

    The model in the order of its steps: pixels are taken from a jittered position (Handa et al., "A Benchmark for RGB-D
    Visual Odometry, 3D Reconstruction and SLAM", ICRA 2014, after Barron & Malik 2013), disparity gets Gaussian noise
    and is rounded (Khoshelham & Elberink, "Accuracy and Resolution of Kinect Depth Data", Sensors 2012: the standard
    deviation of depth is depth² / (focal baseline) times that of disparity, and so is the quantisation step), pixels
    at depth steps drop out or lie between the surfaces, grazing surfaces and random blobs drop out.
    """
    spec = spec or NoiseSpec()
    require_shape("depth_m", depth_m, (None, None))
    depth = np.asarray(depth_m, dtype=np.float32)
    height, width = depth.shape
    step = _depth_step(depth)
    noisy = _jittered(depth, rng, spec.lateral_noise_px)

    constant = np.float32(focal_px * spec.baseline_m)
    disparity = constant / noisy
    if spec.disparity_noise_px > 0:
        disparity += np.float32(spec.disparity_noise_px) * rng.standard_normal((height, width), dtype=np.float32)
    if spec.disparity_step_px > 0:
        disparity = np.round(disparity / np.float32(spec.disparity_step_px)) * np.float32(spec.disparity_step_px)
    with np.errstate(invalid="ignore", divide="ignore"):
        noisy = np.where(disparity > 0, constant / disparity, np.float32(np.nan))

    if spec.flying_pixels > 0:
        low, high = _local_range(depth)
        share = rng.random((height, width), dtype=np.float32)
        between = low + (high - low) * rng.random((height, width), dtype=np.float32)
        noisy = np.where(step & (high < _VERY_FAR_M) & (share < spec.flying_pixels), between, noisy)
    lost = step & (rng.random((height, width), dtype=np.float32) < spec.edge_dropout)
    lost |= _grazing(depth, focal_px, spec.grazing_dropout_deg) & ~step
    lost |= _blobs((height, width), rng, spec.dropout)
    with np.errstate(invalid="ignore"):
        lost |= ~((noisy >= spec.min_depth_m) & (noisy <= spec.max_depth_m))
    return np.where(lost, np.float32(np.nan), noisy).astype(np.float32, copy=False)


def color_noise(color: np.ndarray, rng: np.random.Generator, sigma: float = 2.0) -> UInt8Array:
    """Image (H, W, 3) uint8 with Gaussian noise of `sigma` steps, stronger in bright pixels (shot noise)."""
    if sigma <= 0:
        return np.array(color, dtype=np.uint8)
    values = color.astype(np.float32)
    values += rng.standard_normal(values.shape, dtype=np.float32) * np.sqrt(0.4 + values / 160.0) * np.float32(sigma)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


def _jittered(depth: np.ndarray, rng: np.random.Generator, sigma_px: float) -> np.ndarray:
    """Each pixel takes the depth of a pixel nearby."""
    if sigma_px <= 0:
        return depth.copy()
    height, width = depth.shape
    offset = np.round(rng.standard_normal((2, height, width), dtype=np.float32) * np.float32(sigma_px)).astype(np.int32)
    rows = np.clip(np.arange(height, dtype=np.int32)[:, None] + offset[0], 0, height - 1)
    cols = np.clip(np.arange(width, dtype=np.int32)[None, :] + offset[1], 0, width - 1)
    return depth[rows, cols]


def _filled(depth: np.ndarray) -> np.ndarray:
    """Missing depth counts as very far."""
    return np.where(np.isfinite(depth), depth, np.float32(_VERY_FAR_M))


def _local_range(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest and farthest depth in the 3x3 neighbourhood."""
    kernel = np.ones((3, 3), dtype=np.uint8)
    return cv2.erode(_filled(depth), kernel), cv2.dilate(_filled(depth), kernel)


def _depth_step(depth: np.ndarray) -> np.ndarray:
    """Pixels (H, W) bool beside a jump of depth or beside missing depth; a slope, however steep, is no jump."""
    filled = _filled(depth)
    second = np.zeros_like(filled)
    for axis in (0, 1):
        before, at, after = (np.take(filled, np.r_[k : k + filled.shape[axis] - 2], axis) for k in range(3))
        inner = (slice(1, -1), slice(None)) if axis == 0 else (slice(None), slice(1, -1))
        second[inner] = np.maximum(second[inner], np.abs(before - 2.0 * at + after))
    nearest = cv2.erode(filled, np.ones((3, 3), dtype=np.uint8))
    return (nearest < _VERY_FAR_M) & (second > np.float32(_STEP) * nearest)


def _grazing(depth: np.ndarray, focal_px: float, limit_deg: float) -> np.ndarray:
    """Pixels (H, W) bool whose surface makes less than `limit_deg` with the view ray."""
    if limit_deg <= 0:
        return np.zeros(depth.shape, dtype=bool)
    slope_v, slope_u = np.gradient(depth)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.hypot(slope_u, slope_v) * np.float32(focal_px) / depth
        return slope > 1.0 / np.tan(np.deg2rad(limit_deg))


def _blobs(shape: tuple[int, int], rng: np.random.Generator, share: float) -> np.ndarray:
    """(H, W) bool: blobs of a few pixels that cover about `share` of the image."""
    if share <= 0:
        return np.zeros(shape, dtype=bool)
    coarse = rng.standard_normal(((shape[0] + 5) // 6 + 1, (shape[1] + 5) // 6 + 1), dtype=np.float32)
    field = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return field > np.quantile(field, 1.0 - share)
