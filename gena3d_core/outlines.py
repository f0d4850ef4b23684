"""Outlines of completed objects by a promptable segmenter: joins the stages `segmentation` and `amodal`."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .amodal.inpainter import BackgroundRemoval, InpaintTask
from .amodal.open_world import bounding_box
from .segmentation.mask_models import MaskModel, PixelPrompts
from .types import BoolArray, UInt8Array

POINTS = 3
MIN_COVERED = 0.9
"""An answer that leaves out more of what is seen of the object is not believed."""
MIN_AGREEMENT = 0.5
"""Nor is one that agrees less (IoU) with what differs from the background."""


class PromptedOutline:
    """`Outliner` on a `MaskModel`: asked with a box around what differs from the background, and points on the object.

    Where no answer is believed, what differs from the background is the outline.
    """

    name = "prompted"

    def __init__(self, model: MaskModel) -> None:
        self.model = model
        self.rough = BackgroundRemoval()

    def __call__(self, tasks: Sequence[InpaintTask], painted: Sequence[UInt8Array]) -> list[BoolArray]:
        """See `Outliner`."""
        if not tasks:
            return []
        embeddings = self.model.encode(list(painted))
        rough = self.rough(tasks, painted)
        return [
            self._outline(task, embedding, outline)
            for task, embedding, outline in zip(tasks, embeddings, rough, strict=True)
        ]

    def _outline(self, task: InpaintTask, embedding: object, rough: BoolArray) -> BoolArray:
        x0, y0, x1, y1 = bounding_box(rough)
        points = interior_points(task.visible, POINTS)
        prompts = PixelPrompts(
            boxes_xyxy=np.array([[x0, y0, x1 - 1, y1 - 1]], dtype=np.float32),
            points_xy=points[None],
            labels=np.ones((1, len(points)), dtype=np.int64),
        )
        answers = self.model.candidates(embedding, prompts)
        masks = answers.masks[0]
        covered = (masks & task.visible).sum((1, 2)) / task.visible.sum()
        agreement = (masks & rough).sum((1, 2)) / (masks | rough).sum((1, 2))
        believed = (covered >= MIN_COVERED) & (agreement >= MIN_AGREEMENT)
        if not believed.any():
            return rough
        best = int(np.where(believed, answers.scores[0], -np.inf).argmax())
        return np.asarray(masks[best] | task.visible, dtype=bool)


def mask_model_of(segmenter: object) -> MaskModel | None:
    """The promptable network that a segmenter holds, or None."""
    return getattr(getattr(segmenter, "segmenter", segmenter), "model", None)


def interior_points(mask: BoolArray, count: int) -> np.ndarray:
    """(N, 2) float32, at most `count` pixels x, y inside the mask (H, W), far from its edge and from one another."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    points = []
    for _ in range(count):
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[y, x] == 0:
            break
        points.append((float(x), float(y)))
        radius = max(2, int(depth[y, x]))
        depth = np.where(cv2.circle(np.zeros(depth.shape, np.uint8), (int(x), int(y)), radius, 1, -1) > 0, 0.0, depth)
    return np.array(points, dtype=np.float32)
