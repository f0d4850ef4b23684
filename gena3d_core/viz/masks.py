"""Objects marked in the input views: translucent colours, outlines, names."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ..types import BoolArray, UInt8Array, View
from .canvas import Canvas, Color, resized

ALPHA = 0.38


def annotated_view(
    view: View,
    visible: Sequence[BoolArray],
    occluded: Sequence[BoolArray],
    colors: Sequence[Color],
    names: Sequence[str],
    width: int,
    height: int,
) -> UInt8Array:
    """`annotated_image` of a view."""
    return annotated_image(view.color, visible, occluded, colors, names, width, height)


def annotated_image(
    image: UInt8Array,
    visible: Sequence[BoolArray],
    occluded: Sequence[BoolArray],
    colors: Sequence[Color],
    names: Sequence[str],
    width: int,
    height: int,
) -> UInt8Array:
    """(height, width, 3) thumbnail of `image` (H, W, 3): what is seen of each object tinted, its hidden extent hatched,
    its name.

    visible, occluded: one (H, W) bool per object; no occluded ones at all where nothing is known of them.
    """
    picture = resized(image, width, height).astype(np.float32)
    small = [_resized_mask(mask, width, height) for mask in visible]
    stripes = (np.add.outer(np.arange(height), np.arange(width)) // 3) % 3 == 0
    for mask, color in zip(occluded, colors, strict=False):
        _tint(picture, _resized_mask(mask, width, height) & stripes, color, 0.75)
    for mask, color in zip(small, colors, strict=True):
        _tint(picture, mask, color, ALPHA)
    drawn = np.ascontiguousarray(np.clip(picture, 0, 255).astype(np.uint8))
    for mask, color in zip(small, colors, strict=True):
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, color, 2, cv2.LINE_AA)
    canvas = Canvas.over(drawn)
    for mask, color, name in zip(small, colors, names, strict=True):
        rows, cols = np.nonzero(mask)
        if len(rows):
            left = int(np.clip((cols.min() + cols.max()) / 2 - 12, 2, max(2, width - 40)))
            canvas.chip((left, max(2, int(rows.min()) - 20)), name, 12, color)
    return canvas.pixels


def _tint(picture: np.ndarray, where: np.ndarray, color: Color, alpha: float) -> None:
    picture[where] = (1 - alpha) * picture[where] + alpha * np.array(color, dtype=np.float32)


def _resized_mask(mask: BoolArray, width: int, height: int) -> BoolArray:
    return resized(mask.astype(np.uint8) * 255, width, height) > 127
