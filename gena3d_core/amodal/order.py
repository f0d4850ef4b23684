"""Who hides whom among the objects of one view: by the step in depth where they touch, else by their outlines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from ..errors import InputError
from ..types import BoolArray, require_shape

Cue = Literal["depth", "bite", "junction", "height"]
CONTACT_PX = 3
"""Masks that come this close touch: segmentation leaves gaps between neighbours."""
BAND_PX = 6
"""Depth is compared this far to either side of a contact."""
NEARER_M = 0.01
"""A surface that hides another lies at least this much in front of it."""
MIN_PIXELS = 8
MIN_SHARE = 0.3
"""Of the measured contact, the part that must show a step in depth."""
MIN_BITE = 0.01
"""Of the smaller object, the part that the other one takes out of its convex hull."""
BITE_RATIO = 1.5
TANGENT_PX = 7
MIN_TURN_RAD = np.radians(20.0)


@dataclass(frozen=True)
class Hiding:
    """Object number `front` hides part of object number `back` in this view, as `cue` tells."""

    front: int
    back: int
    cue: Cue


def hiding_order(masks: Sequence[np.ndarray], depth_m: np.ndarray | None = None) -> list[Hiding]:
    """Who hides whom of objects with visible masks (H, W) bool, in one view with depth (H, W) metres or None.

    Only objects that touch are compared. Where depth is measured on both sides of a contact it alone decides, and may
    say that neither hides the other, or each a part of the other. Else, in this order: the object that takes a bite
    out of the other's convex hull is in front; so is the one whose outline goes on straight where the contact ends
    (T-junctions); so is the one that reaches lower in the image, as it stands nearer. Sorted by (front, back).
    Raises `InputError` for masks of different sizes.
    """
    if not masks:
        return []
    stack = np.stack([_checked(mask, masks[0].shape) for mask in masks])
    if depth_m is not None:
        require_shape("depth_m", depth_m, stack.shape[1:])
    found: list[Hiding] = []
    for i, j in touching_pairs(stack):
        steps = None if depth_m is None else _depth_steps(stack[i], stack[j], depth_m)
        if steps is not None:
            found += [Hiding(i, j, "depth")] * steps[0] + [Hiding(j, i, "depth")] * steps[1]
            continue
        for cue, compare in OUTLINE_CUES.items():
            order = compare(stack[i], stack[j])
            if order:
                front, back = (i, j) if order > 0 else (j, i)
                found.append(Hiding(front, back, cue))
                break
    return sorted(found, key=lambda hiding: (hiding.front, hiding.back))


def touching_pairs(masks: np.ndarray, contact_px: int = CONTACT_PX) -> list[tuple[int, int]]:
    """Pairs (i, j), i < j, of masks (N, H, W) bool that come within `contact_px` of each other."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    grown = np.stack([dilated(mask, contact_px) for mask in masks]).reshape(len(masks), -1).astype(np.float32)
    near = grown @ flat.T > 0
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(near | near.T, 1))]


def in_front(
    order: Sequence[Hiding], masks: Sequence[np.ndarray], depth_m: np.ndarray | None, target: int
) -> list[int]:
    """Numbers of all objects that may hide part of object `target`, also those that do not touch what is seen of it.

    These are the ones that hide it, those that hide one of these, and, where depth is measured, those apart from it in
    the image that lie nearer as a whole; never one that `target` itself hides.
    """
    behind = {h.back for h in order if h.front == target} - {h.front for h in order if h.back == target}
    found = {h.front for h in order if h.back == target}
    while more := {h.front for h in order if h.back in found} - found - behind - {target}:
        found |= more
    if depth_m is not None:
        medians = np.array([_median_depth(mask, depth_m) for mask in masks])
        with np.errstate(invalid="ignore"):
            nearer = set(np.flatnonzero(medians < medians[target] - NEARER_M).tolist())
        # Where it touches what is seen of the target, the contact has told already.
        rim = dilated(masks[target], CONTACT_PX)
        found |= {number for number in nearer if not (rim & np.asarray(masks[number], dtype=bool)).any()}
    return sorted(found - behind - {target})


def dilated(mask: np.ndarray, radius_px: int) -> BoolArray:
    """The mask grown by a disc."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius_px + 1, 2 * radius_px + 1))
    return np.asarray(cv2.dilate(np.asarray(mask, dtype=np.uint8), disc)).astype(bool)


def _checked(mask: np.ndarray, shape: tuple[int, ...]) -> BoolArray:
    if mask.ndim != 2 or mask.shape != shape:
        raise InputError(f"masks must all be (H, W) of one size, got {shape} and {mask.shape}")
    return np.asarray(mask, dtype=bool)


def _median_depth(mask: np.ndarray, depth_m: np.ndarray) -> float:
    values = depth_m[np.asarray(mask, dtype=bool)]
    values = values[np.isfinite(values)]
    return float(np.median(values)) if len(values) else float("nan")


def _depth_steps(a: BoolArray, b: BoolArray, depth_m: np.ndarray) -> tuple[bool, bool] | None:
    """Whether a hides b, and b hides a; None where too little of their contact is measured."""
    counts = [_steps(front, back, depth_m) for front, back in ((a, b), (b, a))]
    measured = sum(total for _, total in counts)
    if measured < MIN_PIXELS:
        return None
    # A step seen from one side is a step the other way from the other side; both sides are measured.
    a_front = counts[0][0][0] + counts[1][0][1]
    b_front = counts[0][0][1] + counts[1][0][0]
    return a_front >= MIN_SHARE * measured, b_front >= MIN_SHARE * measured


def _steps(a: BoolArray, b: BoolArray, depth_m: np.ndarray) -> tuple[tuple[int, int], int]:
    """Pixels of b near a: where the nearest pixel of a lies in front, where it lies behind; and all of them.

    Outermost pixels are left out: there, depth cameras mix both surfaces.
    """
    inner_a, inner_b = (_inner(mask) & np.isfinite(depth_m) for mask in (a, b))
    if not inner_a.any():
        return (0, 0), 0
    distance, label = cv2.distanceTransformWithLabels(
        (~inner_a).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    band = inner_b & (distance <= BAND_PX)
    depth_of = np.zeros(int(label.max()) + 1, dtype=np.float32)
    depth_of[label[inner_a]] = depth_m[inner_a]
    step = depth_m[band] - depth_of[label[band]]
    return (int((step > NEARER_M).sum()), int((step < -NEARER_M).sum())), int(band.sum())


def _inner(mask: BoolArray) -> BoolArray:
    eroded = np.asarray(cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8))).astype(bool)
    return eroded if eroded.any() else mask


def _bite(a: BoolArray, b: BoolArray) -> int:
    """1 where a takes a bite out of b, -1 the other way round, 0 where that does not tell."""
    out_of_b, out_of_a = int((_hull(b) & a).sum()), int((_hull(a) & b).sum())
    least = max(MIN_PIXELS, MIN_BITE * min(int(a.sum()), int(b.sum())))
    if max(out_of_a, out_of_b) < least:
        return 0
    return int(out_of_b > BITE_RATIO * out_of_a) - int(out_of_a > BITE_RATIO * out_of_b)


def _hull(mask: BoolArray) -> BoolArray:
    filled = np.zeros(mask.shape, dtype=np.uint8)
    rows, cols = np.nonzero(mask)
    if len(rows):
        cv2.fillConvexPoly(filled, cv2.convexHull(np.stack([cols, rows], axis=1).astype(np.int32)), 1)
    return filled.astype(bool)


def _junctions(a: BoolArray, b: BoolArray) -> int:
    """1 where the outline of a goes on straighter past the ends of the contact, -1 for b, 0 where that is not told."""
    turns = _turn_at_ends(a, b), _turn_at_ends(b, a)
    if None in turns:
        return 0
    difference = turns[1] - turns[0]  # type: ignore[operator]
    return int(difference > MIN_TURN_RAD) - int(difference < -MIN_TURN_RAD)


def _turn_at_ends(own: BoolArray, other: BoolArray) -> float | None:
    """Mean angle by which the outline of `own` turns at the two ends of its longest contact with `other`."""
    outlines, _ = cv2.findContours(own.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=len)[:, 0] if outlines else np.zeros((0, 2), dtype=np.int32)
    count = len(outline)
    if count < 4 * TANGENT_PX:
        return None
    touches = dilated(other, CONTACT_PX)[outline[:, 1], outline[:, 0]]
    if touches.all() or not touches.any():
        return None
    starts = np.flatnonzero(touches & ~np.roll(touches, 1))
    stops = np.flatnonzero(touches & ~np.roll(touches, -1))
    stops = np.array([stops[stops >= s].min() if (stops >= s).any() else stops.min() + count for s in starts])
    longest = int((stops - starts).argmax())
    ends = np.array([starts[longest], stops[longest]])
    # Where the masks' gap bends round a corner, the contact seems to end a few pixels late.
    before, after = (outline[(ends + k * TANGENT_PX) % count] for k in (-1, 1))
    into, out = outline[ends % count] - before, after - outline[ends % count]
    cross = into[:, 0] * out[:, 1] - into[:, 1] * out[:, 0]
    return float(np.abs(np.arctan2(cross, (into * out).sum(axis=1))).mean())


def _height(a: BoolArray, b: BoolArray) -> int:
    lowest = [int(np.flatnonzero(mask.any(axis=1)).max(initial=-1)) for mask in (a, b)]
    return int(np.sign(lowest[0] - lowest[1]))


OUTLINE_CUES: Mapping[Cue, Callable[[BoolArray, BoolArray], int]] = {
    "bite": _bite,
    "junction": _junctions,
    "height": _height,
}
"""Cue -> comparison of two masks that touch, the most trusted first."""
