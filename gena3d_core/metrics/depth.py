"""Depth against a reference depth of the same camera."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError
from ..types import BoolArray

BAD_RATIO = 0.05


@dataclass(frozen=True)
class DepthError:
    """Figures over the pixels that have a reference; NaN where no pixel has both depths.

    median_ratio    median of |estimated - reference| / reference
    mean_ratio      mean of the same
    rmse_m          root mean square error in metres
    bad_fraction    share of estimated pixels off by more than 5 %
    coverage        share of reference pixels that have an estimate
    pixels          reference pixels looked at
    """

    median_ratio: float
    mean_ratio: float
    rmse_m: float
    bad_fraction: float
    coverage: float
    pixels: int


def depth_error(estimated_m: np.ndarray, reference_m: np.ndarray, mask: np.ndarray | None = None) -> DepthError:
    """Compare depths (..., H, W) in metres (NaN = unknown) where `mask` (same shape, default all) is True.

    Raises `InputError` when the shapes differ.
    """
    mask = np.ones(reference_m.shape, dtype=bool) if mask is None else mask
    if not estimated_m.shape == reference_m.shape == mask.shape:
        raise InputError(f"depths and mask must be alike, got {estimated_m.shape}, {reference_m.shape}, {mask.shape}")
    known = mask & np.isfinite(reference_m) & (reference_m > 0)
    both = known & np.isfinite(estimated_m)
    pixels = int(known.sum())
    if not both.any():
        nan = float("nan")
        return DepthError(nan, nan, nan, nan, 0.0, pixels)
    reference = reference_m[both].astype(np.float64)
    error_m = np.abs(estimated_m[both] - reference)
    ratio = error_m / reference
    return DepthError(
        median_ratio=float(np.median(ratio)),
        mean_ratio=float(ratio.mean()),
        rmse_m=float(np.sqrt((error_m**2).mean())),
        bad_fraction=float((ratio > BAD_RATIO).mean()),
        coverage=float(both.sum() / pixels),
        pixels=pixels,
    )


def texture_mask(color: np.ndarray, min_gradient: float = 4.0, window_px: int = 7) -> BoolArray:
    """(H, W) True where an (H, W, 3) uint8 image has texture to match.

    Texture: the mean length of the grey gradient (grey levels a pixel) over the window exceeds `min_gradient`.
    """
    gray = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    # A 3x3 Sobel kernel sums to 8 grey levels for a slope of one a pixel.
    across = cv2.Sobel(gray, cv2.CV_32F, 1, 0, scale=1.0 / 8.0)
    down = cv2.Sobel(gray, cv2.CV_32F, 0, 1, scale=1.0 / 8.0)
    return np.asarray(cv2.blur(np.hypot(across, down), (window_px, window_px)) > min_gradient)
