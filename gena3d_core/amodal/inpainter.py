"""What the open-world procedure asks of a network: paint the hidden region of a picture, find the object in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from ..types import BoolArray, UInt8Array

PLAIN_COLORS = np.array([[128, 128, 128], [255, 255, 255], [0, 0, 0]], dtype=np.uint8)
"""Backgrounds to choose from: grey first, as nothing in front of it looks lit or shaded."""
SMALLEST_DIFFERENCE = 12.0
LARGEST_DIFFERENCE = 40.0
"""Grey levels, over three channels, by which a painted pixel must differ from the background to be the object."""


@dataclass(frozen=True, eq=False)
class InpaintTask:
    """One picture to paint into; all arrays are of the inpainter's own size (S, S).

    picture   (S, S, 3) uint8: what is known of the object, over `background` everywhere else
    region    (S, S) bool: what to paint, where the object may go on
    scene     (S, S, 3) uint8: the same place as the camera saw it, with what hides the object
    visible   (S, S) bool: the object's known pixels
    box_xyxy  where the picture lies in the image, image pixels, ends excluded; it may reach beyond the image
    prompt, seed   words that describe the object; the same seed gives the same picture
    """

    picture: UInt8Array
    region: BoolArray
    scene: UInt8Array
    visible: BoolArray
    background: tuple[int, int, int]
    box_xyxy: tuple[int, int, int, int]
    prompt: str
    seed: int


class Inpainter(Protocol):
    """A network that paints. `side` is the size of its pictures, `name` says which network it is, weights included."""

    side: int
    name: str

    def __call__(self, tasks: Sequence[InpaintTask]) -> list[UInt8Array]:
        """The pictures (S, S, 3) uint8, painted; each depends on its own task only."""
        ...

    def close(self) -> None:
        """Give the memory of the network back; the next call loads it again."""
        ...


class Outliner(Protocol):
    """Finds the object in painted pictures. `name` tells it from others."""

    name: str

    def __call__(self, tasks: Sequence[InpaintTask], painted: Sequence[UInt8Array]) -> list[BoolArray]:
        """(S, S) bool for each: the pixels of the whole object."""
        ...


class BackgroundRemoval:
    """`Outliner` without a network: what differs from the plain background is the object."""

    name = "background"

    def __call__(self, tasks: Sequence[InpaintTask], painted: Sequence[UInt8Array]) -> list[BoolArray]:
        """See `Outliner`."""
        return [self._outline(task, picture) for task, picture in zip(tasks, painted, strict=True)]

    def _outline(self, task: InpaintTask, painted: UInt8Array) -> BoolArray:
        background = np.asarray(task.background, dtype=np.float32)
        own = color_distance(task.picture[task.visible], background)
        # Half way to the object's own colours that are most like the background.
        threshold = float(np.percentile(own, 10)) / 2.0 if len(own) else LARGEST_DIFFERENCE
        threshold = float(np.clip(threshold, SMALLEST_DIFFERENCE, LARGEST_DIFFERENCE))
        differs = color_distance(cv2.medianBlur(painted, 3), background) > threshold
        return filled(differs | task.visible)


def plain_background(colors: np.ndarray) -> tuple[int, int, int]:
    """The one of `PLAIN_COLORS` that the object's colours (N, 3) uint8 differ from most."""
    if not len(colors):
        return tuple(int(c) for c in PLAIN_COLORS[0])  # type: ignore[return-value]
    sample = colors[:: max(1, len(colors) // 5000)]
    nearest = [float(np.percentile(color_distance(sample, plain.astype(np.float32)), 10)) for plain in PLAIN_COLORS]
    # Grey stays unless another is clearly better: networks paint the least of a scene onto it.
    best = 0 if nearest[0] > 2.0 * LARGEST_DIFFERENCE else int(np.argmax(nearest))
    return tuple(int(c) for c in PLAIN_COLORS[best])  # type: ignore[return-value]


def color_distance(colors: np.ndarray, color: np.ndarray) -> np.ndarray:
    """Euclidean distance (...,) of colours (..., 3) to one colour (3,), grey levels."""
    return np.linalg.norm(colors.astype(np.float32) - color, axis=-1)


def filled(mask: np.ndarray) -> BoolArray:
    """The mask without holes."""
    padded = np.pad(~np.asarray(mask, dtype=bool), 1, constant_values=True).astype(np.uint8)
    _, labels = cv2.connectedComponents(padded, connectivity=4)
    return (labels != labels[0, 0])[1:-1, 1:-1]
