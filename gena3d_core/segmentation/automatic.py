"""Masks of everything in an image, without prompts: a promptable network asked at a grid of points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from ..types import BoolArray, Float32Array
from .mask_models import MaskModel, PixelPrompts

POINTS_PER_PASS = 64
THINNING = 4
"""Overlaps of masks are counted on every so many-th pixel."""


@dataclass(frozen=True)
class AutomaticConfig:
    """Which of the network's answers are kept."""

    points_per_side: int = 24
    """Points along the longer side of the image."""
    min_score: float = 0.86
    """Lowest IoU that the network expects of its mask."""
    min_stability: float = 0.9
    min_pixels: int = 150
    max_share: float = 0.3
    """Masks that cover more of the image are background."""
    max_iou: float = 0.7
    """Of two masks that overlap more, the better one stays."""
    max_contained: float = 0.8
    """A mask that lies in a larger one for more than this share is a part of it, and goes."""

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or not 0.0 < self.max_share <= 1.0:
            raise InputError("automatic masks: points_per_side must be at least 1 and max_share in (0, 1]")


def automatic_masks(
    model: MaskModel, embedding: Any, image_shape: tuple[int, int], config: AutomaticConfig | None = None
) -> tuple[BoolArray, Float32Array]:
    """Masks (N, H, W) bool of the image of `embedding` and their scores (N,), best first; whole objects, not parts."""
    config = config or AutomaticConfig()
    grid = point_grid(image_shape, config.points_per_side)
    kept, kept_scores = [], []
    for start in range(0, len(grid), POINTS_PER_PASS):
        points = grid[start : start + POINTS_PER_PASS, None]
        found = model.candidates(embedding, PixelPrompts(points_xy=points, labels=np.ones(points.shape[:2], np.int32)))
        masks = found.masks.reshape(-1, *image_shape)
        sizes = masks.sum((1, 2))
        good = (
            (found.scores.ravel() >= config.min_score)
            & (found.stability.ravel() >= config.min_stability)
            & (sizes >= config.min_pixels)
            & (sizes <= config.max_share * masks[0].size)
        )
        kept.append(masks[good])
        kept_scores.append(found.scores.ravel()[good])
    masks, scores = np.concatenate(kept), np.concatenate(kept_scores)
    order = np.argsort(-scores, kind="stable")
    masks, scores = masks[order], scores[order]
    chosen = distinct(masks, config.max_iou)
    chosen = chosen[wholes(masks[chosen], config.max_contained)]
    return masks[chosen], scores[chosen]


def point_grid(image_shape: tuple[int, int], points_per_side: int) -> Float32Array:
    """(N, 2) float32 x, y in pixels: the centres of about square cells, `points_per_side` along the longer side."""
    height, width = image_shape
    cell = max(height, width) / points_per_side
    rows, cols = max(1, round(height / cell)), max(1, round(width / cell))
    y = (np.arange(rows, dtype=np.float32) + 0.5) * (height / rows) - 0.5
    x = (np.arange(cols, dtype=np.float32) + 0.5) * (width / cols) - 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def distinct(masks: np.ndarray, max_iou: float) -> np.ndarray:
    """Indices of `masks` (N, H, W), sorted best first, without those that overlap a better one by more."""
    overlap, sizes = _overlaps(masks)
    iou = overlap / np.maximum(sizes[:, None] + sizes[None, :] - overlap, 1.0)
    keep = np.ones(len(masks), dtype=bool)
    for number in range(1, len(masks)):
        keep[number] = not (iou[number, :number][keep[:number]] > max_iou).any()
    return np.flatnonzero(keep)


def wholes(masks: np.ndarray, max_contained: float) -> np.ndarray:
    """Indices of `masks` (N, H, W) without those that lie in a larger one for more than `max_contained` of them."""
    overlap, sizes = _overlaps(masks)
    larger = sizes[None, :] > sizes[:, None]
    part = (overlap > max_contained * np.maximum(sizes[:, None], 1.0)) & larger
    return np.flatnonzero(~part.any(1))


def _overlaps(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (N, N) that each two masks share, and pixels (N,) of each, counted on thinned masks."""
    flat = masks[:, ::THINNING, ::THINNING].reshape(len(masks), -1).astype(np.float32)
    overlap = flat @ flat.T
    return overlap, np.diagonal(overlap)
