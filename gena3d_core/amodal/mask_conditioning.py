"""Amodal3R's masks: which pixels show the object, which hide it, and what share of each image patch they take."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..types import BoolArray, Float32Array, UInt8Array, require_shape

OCCLUDER_BELOW = 127
BACKGROUND_ABOVE = 230
IMAGE_SIZE = 518
PATCH_SIZE = 14
KERNEL_SIZE = 3


def split_grey_mask(mask: np.ndarray, kernel_size: int = KERNEL_SIZE) -> tuple[BoolArray, BoolArray]:
    """Amodal3R's grey mask (H, W) uint8 -> (removed, occluder), (H, W) bool each.

    Dark pixels are the occluder, grown by an ellipse of `kernel_size` pixels (0: not grown); bright ones are the
    background; the object is what lies between. `removed` is the occluder or the background.
    """
    require_shape("mask", mask, (None, None))
    if kernel_size < 0:
        raise InputError(f"kernel_size must not be negative, got {kernel_size}")
    occluder = np.asarray(mask) < OCCLUDER_BELOW
    if kernel_size:
        ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (kernel_size, kernel_size))
        occluder = cv2.dilate(occluder.astype(np.uint8), ellipse).astype(bool)
    return occluder | (np.asarray(mask) > BACKGROUND_ABOVE), occluder


def visible_image(image: np.ndarray, removed: np.ndarray, size: int = IMAGE_SIZE) -> UInt8Array:
    """Image (H, W, 3) uint8 with `removed` (H, W) blackened, stretched to (size, size, 3) by Lanczos."""
    require_shape("image", image, (None, None, 3))
    require_shape("removed", removed, image.shape[:2])
    kept = np.where(removed[..., None], 0, image).astype(np.uint8)
    return np.asarray(Image.fromarray(kept).resize((size, size), Image.Resampling.LANCZOS))


def patch_ratios(mask: np.ndarray, size: int = IMAGE_SIZE, patch: int = PATCH_SIZE) -> Float32Array:
    """Share of True pixels of `mask` (H, W) in each patch of the image stretched to `size`: (n, n), n = size / patch.

    The mask is stretched by taking, for each pixel, the source pixel under its upper left corner.
    """
    require_shape("mask", mask, (None, None))
    if size % patch:
        raise InputError(f"size {size} is not a multiple of patch {patch}")
    rows, cols = (_nearest(count, size) for count in mask.shape)
    stretched = np.asarray(mask, dtype=np.float32)[rows[:, None], cols]
    count = size // patch
    return stretched.reshape(count, patch, count, patch).mean(axis=(1, 3))


def _nearest(count: int, size: int) -> np.ndarray:
    # In float32, as the published resize computes it: float64 picks other pixels where the quotient is whole.
    scale = np.float32(count) / np.float32(size)
    return np.minimum((np.arange(size, dtype=np.float32) * scale).astype(np.int64), count - 1)
