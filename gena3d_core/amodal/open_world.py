"""Open-world amodal completion of objects in one picture (OAAC, as GENA3D §3 uses it).

What is known of an object is put on a plain background, the region of its occluders is painted by a network, and the
painted pixels that belong to the object are added to it; what then hides the object is painted next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..errors import InputError
from ..types import BoolArray, UInt8Array, require_shape
from .inpainter import BackgroundRemoval, InpaintTask, Outliner, plain_background
from .order import CONTACT_PX, dilated

Stop = Literal["nothing hides it", "no growth", "no further occluder", "iteration limit"]
Paint = Callable[[Sequence[InpaintTask]], Sequence[UInt8Array]]


@dataclass(frozen=True)
class OpenWorldConfig:
    """Lengths are shares of the longest side of what is known of the object."""

    max_iterations: int = 3
    min_growth: float = 0.005
    """An iteration that adds less than this share of the known pixels is the last; less than it hides nothing."""
    margin: float = 0.35
    """The picture that the network sees reaches so far around the object."""
    border_extension: float = 0.5
    """So far an object that the image cuts off may go on beyond the image's edge."""
    seam_px: int = 2
    """The region is grown by this much, over the gaps that segmentation leaves beside an occluder."""

    def __post_init__(self) -> None:
        if self.max_iterations < 1:
            raise InputError(f"max_iterations must be at least 1, got {self.max_iterations}")
        if self.margin <= 0 or self.border_extension < 0 or self.min_growth < 0 or self.seam_px < 0:
            raise InputError(f"margin must be positive, the other lengths not negative: {self}")


@dataclass(frozen=True, eq=False)
class HiddenObject:
    """An object of one view, and what may hide it.

    color      (H, W, 3) uint8
    visible    (H, W) bool
    occluders  (M, H, W) bool: visible masks of the objects in front of it, near or far from it in the image
    occlusion  (H, W) bool: pixels known to hide it, of whatever thing
    """

    color: UInt8Array
    visible: BoolArray
    occluders: BoolArray
    occlusion: BoolArray
    prompt: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        require_shape("color", self.color, (None, None, 3))
        require_shape("visible", self.visible, self.color.shape[:2])
        require_shape("occlusion", self.occlusion, self.color.shape[:2])
        require_shape("occluders", self.occluders, (None, *self.color.shape[:2]))


@dataclass(frozen=True, eq=False)
class Completion:
    """The picture with the object whole; it may be larger than the image where the image's edge cut the object.

    picture     (H', W', 3) uint8; pixels outside `completed` are the image's own, black beyond its edges
    completed   (H', W') bool: pixels that show a guess of the object
    asked       (H', W') bool: pixels that were painted, the object or not
    origin_xy   where the image's first pixel lies in the picture
    iterations  how often the network painted
    """

    picture: UInt8Array
    completed: BoolArray
    asked: BoolArray
    origin_xy: tuple[int, int]
    iterations: int
    stop: Stop

    def amodal(self, visible: np.ndarray) -> BoolArray:
        """(H', W') bool: the whole object, of which `visible` (H, W) is seen."""
        x, y = self.origin_xy
        whole = self.completed.copy()
        whole[y : y + visible.shape[0], x : x + visible.shape[1]] |= visible
        return whole


def complete_hidden_objects(
    objects: Sequence[HiddenObject],
    paint: Paint,
    side: int,
    outliner: Outliner | None = None,
    config: OpenWorldConfig | None = None,
) -> list[Completion]:
    """Complete objects, each on its own but painted together, round by round.

    paint: an `Inpainter`, or something that calls one in chunks; side: the size of its pictures. Pixels that show an
    object are never changed. Raises `InputError` for an object without visible pixels.
    """
    config, outliner = config or OpenWorldConfig(), outliner or BackgroundRemoval()
    states = [_State(item, config) for item in objects]
    for iteration in range(config.max_iterations):
        asking = [(state, task) for state in states if (task := state.next_task(iteration, side)) is not None]
        if not asking:
            break
        tasks = [task for _, task in asking]
        painted = paint(tasks)
        for (state, _), picture, outline in zip(asking, painted, outliner(tasks, painted), strict=True):
            state.add(picture, outline)
    return [state.completion() for state in states]


class _State:
    """One object on a canvas with room on all sides; coordinates are the canvas'."""

    def __init__(self, item: HiddenObject, config: OpenWorldConfig) -> None:
        if not item.visible.any():
            raise InputError("an object without visible pixels cannot be completed: leave this view out")
        self.item, self.config = item, config
        height, width = item.visible.shape
        x0, y0, x1, y1 = bounding_box(item.visible | item.occlusion)
        self.room = int(np.ceil(max(x1 - x0, y1 - y0) * (1 + config.margin + config.border_extension))) + 2
        self.picture = np.pad(item.color, ((self.room,) * 2, (self.room,) * 2, (0, 0)))
        self.visible, self.occlusion = self._padded(item.visible), self._padded(item.occlusion)
        self.occluders = [self._padded(mask & ~item.visible) for mask in item.occluders]
        self.known = self.visible.copy()
        self.asked = np.zeros_like(self.known)
        self.inside = self._padded(np.ones((height, width), dtype=bool))
        self.background = plain_background(item.color[item.visible])
        self.iterations = 0
        self.stop: Stop | None = None
        self._window: tuple[slice, slice] | None = None
        self._region = np.zeros_like(self.known)

    def _padded(self, mask: np.ndarray) -> BoolArray:
        return np.pad(np.asarray(mask, dtype=bool), self.room)

    @property
    def least(self) -> float:
        """Pixels; less than this is no growth, and nothing worth asking for."""
        return max(1.0, self.config.min_growth * int(self.known.sum()))

    def next_task(self, iteration: int, side: int) -> InpaintTask | None:
        """What to paint next; None once the object is done."""
        if self.stop is not None:
            return None
        self._window = self._square_window()
        self._region = self._next_region(self._window)
        if not self._region.any():
            self.stop = "nothing hides it" if iteration == 0 else "no further occluder"
            return None
        picture = np.where(self.known[..., None], self.picture, np.asarray(self.background, dtype=np.uint8))
        rows, cols = self._window
        left, top = cols.start - self.room, rows.start - self.room
        length = rows.stop - rows.start
        return InpaintTask(
            picture=resized(picture[self._window], side),
            region=resized_mask(self._region[self._window], side),
            scene=resized(self.picture[self._window], side),
            visible=resized_mask(self.known[self._window], side),
            background=self.background,
            box_xyxy=(left, top, left + length, top + length),
            prompt=self.item.prompt,
            seed=self.item.seed + iteration,
        )

    def add(self, painted: UInt8Array, outline: BoolArray) -> None:
        """Take the painted pixels that belong to the object and hang together with it."""
        assert self._window is not None
        size = self._window[0].stop - self._window[0].start
        content = np.zeros_like(self.picture)
        content[self._window] = resized(painted, size)
        whole = np.zeros_like(self.known)
        whole[self._window] = resized_mask(outline, size)
        new = connected_to(whole & self._region, self.known)
        self.picture[new] = content[new]
        grown = int(new.sum()) >= self.least
        self.known |= new
        self.asked |= self._region
        self.iterations += 1
        if not grown:
            self.stop = "no growth"

    def _square_window(self) -> tuple[slice, slice]:
        """Around what is known and what is known to hide it, within the canvas."""
        x0, y0, x1, y1 = bounding_box(self.known | (self.occlusion if self.iterations == 0 else False))
        longest = max(x1 - x0, y1 - y0)
        reach = max(self.config.margin, self.config.border_extension if self._cut_sides() else 0.0)
        height, width = self.known.shape
        side = min(int(np.ceil(longest * (1 + 2 * reach))) + 2, height, width)
        left = int(np.clip((x0 + x1 - side) // 2, 0, width - side))
        top = int(np.clip((y0 + y1 - side) // 2, 0, height - side))
        return slice(top, top + side), slice(left, left + side)

    def _next_region(self, window: tuple[slice, slice]) -> BoolArray:
        """Pixels of the window where the object may go on and that were not painted yet."""
        near = dilated(self.known, CONTACT_PX)
        hiding = self.occlusion.copy()
        for mask in self.occluders:
            if (mask & near).any():
                hiding |= mask
        hiding |= self._beyond_edges()
        free = np.zeros_like(self.known)
        free[window] = ~self.known[window] & ~self.asked[window]
        hiding &= free
        # A few stray pixels at the rim, which occlusion masks have, hide nothing.
        if int(connected_to(hiding, self.known).sum()) < self.least:
            return np.zeros_like(hiding)
        # Gaps beside an occluder belong to it; pixels that plainly show something else do not.
        seam = dilated(hiding & self.inside, self.config.seam_px) & self.inside if self.config.seam_px else hiding
        return connected_to((hiding | seam) & free, self.known)

    def _cut_sides(self) -> tuple[str, ...]:
        height, width = self.item.visible.shape
        own = self.known[self.room : self.room + height, self.room : self.room + width]
        bands = {
            "top": own[:CONTACT_PX],
            "bottom": own[height - CONTACT_PX :],
            "left": own[:, :CONTACT_PX],
            "right": own[:, width - CONTACT_PX :],
        }
        return tuple(side for side, band in bands.items() if band.any())

    def _beyond_edges(self) -> BoolArray:
        """Canvas beyond the edges of the image that cut the object off."""
        sides = self._cut_sides()
        outside = np.zeros_like(self.known)
        if not sides or self.config.border_extension == 0:
            return outside
        x0, y0, x1, y1 = bounding_box(self.visible)
        reach = int(np.ceil(self.config.border_extension * max(x1 - x0, y1 - y0)))
        height, width = self.item.visible.shape
        room = self.room
        top = room - reach if "top" in sides else room
        bottom = room + height + (reach if "bottom" in sides else 0)
        left = room - reach if "left" in sides else room
        right = room + width + (reach if "right" in sides else 0)
        outside[max(top, 0) : bottom, max(left, 0) : right] = True
        return outside & ~self.inside

    def completion(self) -> Completion:
        guessed = self.known & ~self.visible
        x0, y0, x1, y1 = bounding_box(guessed | self.inside)
        cut = slice(y0, y1), slice(x0, x1)
        picture = np.where((guessed | self.inside)[..., None], self.picture, 0).astype(np.uint8)
        return Completion(
            picture=picture[cut],
            completed=guessed[cut],
            asked=self.asked[cut],
            origin_xy=(self.room - x0, self.room - y0),
            iterations=self.iterations,
            stop=self.stop or "iteration limit",
        )


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1), ends excluded, of the True pixels of a mask that has some."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1


def connected_to(mask: np.ndarray, seed: np.ndarray) -> BoolArray:
    """The connected parts of `mask` (H, W) that come within a few pixels of `seed` (H, W)."""
    _, labels = cv2.connectedComponents(np.asarray(mask, dtype=np.uint8), connectivity=8)
    touching = np.unique(labels[dilated(seed, CONTACT_PX)])
    keep = np.zeros(int(labels.max()) + 1, dtype=bool)
    keep[touching] = True
    keep[0] = False
    return keep[labels]


def resized(image: np.ndarray, side: int) -> UInt8Array:
    """Square image (S, S, 3) uint8 -> (side, side, 3): area means where it shrinks, else bicubic."""
    kind = cv2.INTER_AREA if side < len(image) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(image), (side, side), interpolation=kind))


def resized_mask(mask: np.ndarray, side: int) -> BoolArray:
    """Square mask (S, S) -> (side, side): the nearest pixel, by pixel centres."""
    index = np.minimum(((np.arange(side) + 0.5) * len(mask) / side).astype(np.int64), len(mask) - 1)
    return np.asarray(mask, dtype=bool)[index[:, None], index]
