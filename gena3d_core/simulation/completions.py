"""Simulated 2D completions of hidden pixels: plausible, but wrong in place, outline and tone (GENA3D, A.2)."""

from __future__ import annotations

import cv2
import numpy as np

from ..types import BoolArray, UInt8Array
from .mask_noise import smooth_noise, wrong_mask


def distorted_completion(
    color: np.ndarray, object_color: np.ndarray, whole: np.ndarray, occluded: np.ndarray, distortion: float,
    rng: np.random.Generator,
) -> tuple[UInt8Array, BoolArray]:  # fmt: skip
    """Picture (H, W, 3) whose occluded pixels show the object as a 2D completer might have guessed it, and its outline.

    color, object_color (H, W, 3) uint8: the picture, and the object alone; whole, occluded (H, W) bool: all of the
    object's pixels, and the occlusion mask, outside of which nothing changes. distortion: how far content and outline
    are displaced, in sizes of the object; it also blurs and tints. Returns (H, W) bool: the completed pixels.
    """
    filled = np.zeros(whole.shape, dtype=bool)
    rows, cols = np.nonzero(whole)
    if not len(rows) or not occluded.any():
        return np.array(color, dtype=np.uint8), filled
    size = float(max(np.ptp(rows), np.ptp(cols)) + 1)
    amplitude = np.float32(distortion * size)
    grid_v, grid_u = np.indices(whole.shape, dtype=np.float32)
    feature = max(4.0, size / 3.0)
    u = grid_u + amplitude * smooth_noise(whole.shape, feature, rng)
    v = grid_v + amplitude * smooth_noise(whole.shape, feature, rng)
    # What lies beside the object takes its nearest colour, so that warping brings in no background.
    spread = _spread(object_color, whole)
    content = np.asarray(cv2.remap(spread, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), dtype=np.float64)
    sigma = float(rng.uniform(0.2, 1.0) * amplitude)
    if sigma > 0.3:
        content = np.asarray(cv2.GaussianBlur(content, (0, 0), sigma), dtype=np.float64)
    content = content * rng.uniform(0.85, 1.15, 3) + rng.normal(0.0, 8.0, 3)
    warped = cv2.remap(whole.astype(np.uint8), u, v, cv2.INTER_NEAREST).astype(bool)
    outline = wrong_mask(warped, float(rng.normal(0.0, 0.3) * amplitude), 0.2 * float(amplitude), 0.0, rng)
    filled = outline & occluded
    painted = np.where(filled[..., None], np.clip(np.round(content), 0, 255), color)
    return painted.astype(np.uint8), filled


def _spread(color: np.ndarray, mask: np.ndarray) -> UInt8Array:
    """Every pixel outside the mask takes the colour of the nearest one inside."""
    _, label = cv2.distanceTransformWithLabels((~mask).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
    of_label = np.zeros((int(label.max()) + 1, 3), dtype=np.uint8)
    of_label[label[mask]] = color[mask]
    return of_label[label]
