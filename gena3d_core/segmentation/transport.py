"""Masks carried from view to view by depth: which pixels of one view show what is masked in others.

Every pixel of the target view is looked up in the source views; where a source measured the same surface point, its
mask decides. The answer is dense, and what no source sees stays undecided instead of counting against a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError
from ..geometry import camera
from ..types import BoolArray, Float32Array, Int32Array, View

SAME_SURFACE_M = 0.015
SAME_SURFACE_SHARE = 0.015
"""Two views measure the same surface point when their depths agree within the larger of the two (share of depth)."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What geometry says about one object in one view: (H, W) bool each; pixels in neither are undecided."""

    inside: BoolArray
    outside: BoolArray


@dataclass(frozen=True, eq=False)
class Lookup:
    """For each pixel of a target view the pixel of a source view that shows the same surface point.

    pixel (H, W) int32, index into the flattened source image, 0 where unseen; seen (H, W) bool: the source measured
    the point, too.
    """

    pixel: Int32Array
    seen: BoolArray

    def carried(self, mask: np.ndarray) -> BoolArray:
        """(H, W) of the target: pixels whose surface point the source sees inside its `mask`."""
        return mask.ravel()[self.pixel] & self.seen


def look_up(target: View, source: View) -> Lookup:
    """Where the surface that `target` measures appears in `source`. Raises `InputError` without depth in either."""
    if target.depth_m is None or source.depth_m is None:
        lacking = target if target.depth_m is None else source
        raise InputError(f"view '{lacking.name}' has no depth: masks cannot be carried by geometry")
    shape = target.depth_m.shape
    rows, cols, depth_m, inside = camera.pixel_index(camera.world_points(target).reshape(-1, 3), source)
    with np.errstate(invalid="ignore"):
        tolerance_m = np.maximum(SAME_SURFACE_M, SAME_SURFACE_SHARE * depth_m)
        seen = inside & (np.abs(source.depth_m[rows, cols] - depth_m) <= tolerance_m)
    pixel = (rows * source.intrinsics.width + cols).astype(np.int32)
    return Lookup(pixel.reshape(shape), seen.reshape(shape))


class Lookups:
    """`look_up` between numbered views, each pair once."""

    def __init__(self, views: Sequence[View]) -> None:
        self._views = views
        self._found: dict[tuple[int, int], Lookup] = {}

    def __call__(self, target: int, source: int) -> Lookup:
        key = (target, source)
        if key not in self._found:
            self._found[key] = look_up(self._views[target], self._views[source])
        return self._found[key]


def evidence(lookups: Sequence[Lookup], masks: Sequence[np.ndarray]) -> Evidence:
    """What an object's masks in source views say about a target view.

    lookups: of the target in each source; masks: the object's (H, W) bool in each source, at least one. Where several
    sources see a pixel, the majority decides, a tie is for the object.
    """
    if not lookups or len(lookups) != len(masks):
        raise InputError(f"{len(lookups)} source views need as many masks, at least one, got {len(masks)}")
    seen = np.sum([lookup.seen for lookup in lookups], axis=0)
    votes = np.sum([lookup.carried(mask) for lookup, mask in zip(lookups, masks, strict=True)], axis=0)
    inside = (2 * votes >= seen) & (votes > 0)
    return Evidence(inside, (seen > 0) & ~inside)


def guide(mask: BoolArray) -> Evidence:
    """Evidence of a mask that decides every pixel."""
    return Evidence(mask, ~mask)


def agreement(masks: np.ndarray, known: Evidence) -> Float32Array:
    """(M,) IoU of `masks` (M, H, W) bool with the evidence, over the decided pixels; 0 where nothing is inside."""
    overlap = (masks & known.inside).sum((1, 2))
    union = known.inside.sum() + (masks & known.outside).sum((1, 2))
    return np.divide(overlap, union, out=np.zeros(len(masks), np.float32), where=union > 0, dtype=np.float32)


def box_of(mask: np.ndarray) -> Float32Array:
    """(4,) float32 x_min, y_min, x_max, y_max of the True pixels, inclusive. Raises `InputError` for an empty mask."""
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        raise InputError("an empty mask has no box")
    return np.array([cols[0], rows[0], cols[-1], rows[-1]], dtype=np.float32)


def main_part(mask: BoolArray, min_share: float = 0.2) -> BoolArray:
    """The connected parts that are at least `min_share` of the largest: specks would blow up the box."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if count <= 2:
        return mask
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    return (sizes >= min_share * sizes.max())[labels] & mask


def inner_points(mask: BoolArray, count: int) -> tuple[Float32Array, Int32Array]:
    """Points deep inside the mask and far from one another: pixels (count, 2) as x, y, and labels (count,).

    Labels are 1, and -1 for rows that found no place. Raises `InputError` for an empty mask.
    """
    if not mask.any():
        raise InputError("an empty mask has no points")
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    deepest = float(depth.max())
    points, labels = np.zeros((count, 2), np.float32), np.full(count, -1, np.int32)
    rows, cols = np.indices(mask.shape, dtype=np.float32)
    for number in range(count):
        row, col = np.unravel_index(int(depth.argmax()), depth.shape)
        if depth[row, col] < 0.3 * deepest:
            break
        points[number], labels[number] = (col, row), 1
        depth[np.hypot(rows - row, cols - col) < 2.0 * deepest] = 0.0
    return points, labels
