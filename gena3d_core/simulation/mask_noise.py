"""Wrong masks, as segmenters make them: eroded, dilated, ragged, running over what lies beside the object."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import BoolArray, Float32Array

_FEATURE_PX = 6
"""Size of the bumps of a ragged outline."""
_BLEED_FEATURE_PX = 12
_BLEED_PX = 3.0


def wrong_mask(
    mask: np.ndarray, offset_px: float, roughness_px: float, bleeding: float, rng: np.random.Generator
) -> BoolArray:
    """The mask (H, W) bool with its outline moved.

    offset_px: everywhere, negative = inwards; roughness_px: standard deviation of bumps on top; bleeding: share of the
    outline at which the mask runs some pixels over its surroundings. A mask that would vanish is returned as it is.
    """
    if not mask.any() or (offset_px == 0 and roughness_px == 0 and bleeding == 0):
        return mask.astype(bool, copy=True)
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    outside = cv2.distanceTransform((~mask.astype(bool)).astype(np.uint8), cv2.DIST_L2, 3)
    distance = np.where(mask, inside - 0.5, 0.5 - outside) + np.float32(offset_px)
    if roughness_px > 0:
        distance += np.float32(roughness_px) * smooth_noise(mask.shape, _FEATURE_PX, rng)
    if bleeding > 0:
        field = smooth_noise(mask.shape, _BLEED_FEATURE_PX, rng)
        near = np.abs(distance) < 2.0
        if near.any():
            leak = field > np.quantile(field[near], 1.0 - bleeding)
            distance += np.where(leak, np.float32(_BLEED_PX), np.float32(0.0))
    wrong = distance > 0
    if bleeding > 0:  # what is not joined to the object is no leak
        _, label = cv2.connectedComponents(wrong.astype(np.uint8))
        wrong &= np.isin(label, np.unique(label[mask & wrong]))
    return wrong if wrong.any() else mask.astype(bool, copy=True)


def smooth_noise(shape: tuple[int, ...], feature_px: float, rng: np.random.Generator) -> Float32Array:
    """(H, W) float32 noise of mean 0 and standard deviation about 1 with features of `feature_px`."""
    coarse = rng.standard_normal([max(2, int(np.ceil(s / feature_px)) + 1) for s in shape[:2]], dtype=np.float32)
    return cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC) * np.float32(1.3)


def with_holes(depth_m: np.ndarray, mask: np.ndarray, share: float, rng: np.random.Generator) -> Float32Array:
    """Depth (H, W) without `share` of the pixels of `mask`, in blobs: dark, shiny or translucent spots."""
    if share <= 0 or not mask.any():
        return depth_m
    field = smooth_noise(depth_m.shape, _BLEED_FEATURE_PX, rng)
    lost = mask & (field > np.quantile(field[mask], 1.0 - share))
    return np.where(lost, np.float32(np.nan), depth_m).astype(np.float32)
