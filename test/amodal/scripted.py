"""An inpainter that knows the answer: it paints what the whole object looks like, and the background elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from gena3d_core.amodal.inpainter import InpaintTask


@dataclass
class ScriptedInpainter:
    """truth (H, W, 3) and whole (H, W): the object alone, on a canvas that starts at `origin_xy` of the image."""

    truth: np.ndarray
    whole: np.ndarray
    origin_xy: tuple[int, int] = (0, 0)
    side: int = 192
    name: str = "scripted"
    tasks: list[InpaintTask] = field(default_factory=list)
    closed: int = 0

    def __call__(self, tasks):
        self.tasks += tasks
        return [self._paint(task) for task in tasks]

    def _paint(self, task: InpaintTask) -> np.ndarray:
        x0, y0, x1, _ = task.box_xyxy
        size = x1 - x0
        x, y = self.origin_xy
        # From picture pixels to pixels of the truth, by pixel centres.
        scale = size / self.side
        move = np.array([[scale, 0.0, x0 - x + (scale - 1) / 2], [0.0, scale, y0 - y + (scale - 1) / 2]])
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        whole = cv2.warpAffine(self.whole.astype(np.uint8), move, (self.side, self.side), flags=flags)
        truth = cv2.warpAffine(self.truth, move, (self.side, self.side), flags=flags)
        painted = np.where(whole[..., None] > 0, truth, np.asarray(task.background, np.uint8))
        # A network paints everything anew, not only the region: the procedure must take the region alone.
        return painted.astype(np.uint8)

    def close(self) -> None:
        self.closed += 1


@dataclass
class GreedyInpainter:
    """Paints all of the region in the object's own mean colour, a little different for each seed."""

    side: int = 96
    name: str = "greedy"
    batches: list[int] = field(default_factory=list)
    out_of_memory_above: int = 1000

    def __call__(self, tasks):
        self.batches.append(len(tasks))
        if len(tasks) > self.out_of_memory_above:
            raise RuntimeError("out of memory")
        return [self._paint(task) for task in tasks]

    def _paint(self, task: InpaintTask) -> np.ndarray:
        color = task.picture[task.visible].mean(axis=0) + task.seed % 7
        return np.where(task.region[..., None], np.clip(color, 0, 255), task.picture).astype(np.uint8)

    def close(self) -> None:
        self.batches.append(0)
