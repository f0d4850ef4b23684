"""From raw winners to trusted depth: confidence, removal of specks, and the image's own size."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ...types import Float32Array
from .cost import NEUTRAL
from .sweep import InverseDepth

COST_OF_CERTAINTY = 0.15
"""Photometric cost (NCC 0.7) up to which a match counts as certain."""
DISTINCTNESS_OF_CERTAINTY = 0.25
SPECKLE_STEPS = 2.0
"""Neighbours whose inverse depth differs by more hypotheses belong to different surfaces."""


def confidence(result: InverseDepth, agreement: torch.Tensor) -> torch.Tensor:
    """(h, w) in [0, 1] from photometric cost, distinctness and `agreement` (h, w) of the other views.

    Zero without agreement; matches by chance seldom pass all three.
    """
    photometric = ((NEUTRAL - result.cost) / (NEUTRAL - COST_OF_CERTAINTY)).clamp(0.0, 1.0)
    distinct = (result.distinctness / DISTINCTNESS_OF_CERTAINTY).clamp(0.0, 1.0)
    return photometric * distinct.sqrt() * agreement / (agreement + 0.5)


def without_specks(depth_m: Float32Array, step: float, min_pixels: int) -> Float32Array:
    """(h, w) depth with NaN where fewer than `min_pixels` connected pixels form a surface.

    step: spacing of the hypotheses in 1/m. Matches by chance pass the tests in specks, surfaces in areas.
    """
    known = np.isfinite(depth_m)
    levels = np.zeros(depth_m.shape)
    levels[known] = 1.0 / (depth_m[known] * step)
    # filterSpeckles wants 16-bit integers: a few units a step, fewer when the range of the scene needs it.
    units = min(8.0, 32000.0 / max(float(levels.max(initial=0.0)), 1.0))
    levels = np.where(known, np.round(levels * units) + 1.0, 0.0).astype(np.int16)
    cv2.filterSpeckles(levels, 0, min_pixels, SPECKLE_STEPS * units)
    return np.where(levels > 0, depth_m, np.float32(np.nan))


def to_size(depth_m: Float32Array, shape: tuple[int, int], max_ratio: float = 0.02) -> Float32Array:
    """(H, W) depth at another size: linear in 1 / depth on a surface, nearest where surfaces meet or NaN is near."""
    if depth_m.shape == shape:
        return depth_m
    size = (shape[1], shape[0])
    nearest = cv2.resize(depth_m, size, interpolation=cv2.INTER_NEAREST)
    linear = 1.0 / cv2.resize(1.0 / depth_m, size, interpolation=cv2.INTER_LINEAR)
    with np.errstate(invalid="ignore"):
        same = np.abs(linear - nearest) <= max_ratio * nearest
    return np.where(same, linear, nearest).astype(np.float32)
