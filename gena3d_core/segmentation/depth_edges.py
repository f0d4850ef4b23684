"""Masks moved to the depth edges beside their outlines, and rid of what lies behind or before the object."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from ..errors import InputError
from ..types import BoolArray, Float32Array

EDGE = 0.012
"""A depth edge: a break of inverse depth, relative to it, of at least this much (1.2 cm at 1 m)."""
REACH_PX = 4
MIN_PIXELS = 20


def edge_strength(depth_m: np.ndarray) -> Float32Array:
    """(H, W) relative break of inverse depth at each pixel, 0 below `EDGE`; 0 on planes however slanted they are.

    depth_m (H, W) metres, NaN unknown: unknown pixels take the depth of the nearest known one.
    """
    known = np.isfinite(depth_m)
    if not known.any():
        return np.zeros(depth_m.shape, dtype=np.float32)
    if not known.all():
        nearest = ndimage.distance_transform_edt(~known, return_distances=False, return_indices=True)
        depth_m = depth_m[tuple(nearest)]
    inverse = (1.0 / np.maximum(depth_m, 1e-6)).astype(np.float32)
    # Inverse depth of a plane is linear in the image, so its second differences see breaks only.
    padded = np.pad(inverse, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    along_rows = np.abs(padded[1:-1, :-2] + padded[1:-1, 2:] - 2.0 * middle)
    along_cols = np.abs(padded[:-2, 1:-1] + padded[2:, 1:-1] - 2.0 * middle)
    # At the border of the image the padded neighbour repeats the pixel: a slope is no break.
    along_rows[:, [0, -1]] = 0.0
    along_cols[[0, -1], :] = 0.0
    strength = np.maximum(along_rows, along_cols) * depth_m
    return np.where(strength >= EDGE, strength, 0.0).astype(np.float32)


def refine_to_depth_edges(mask: BoolArray, depth_m: np.ndarray, reach_px: int = REACH_PX) -> BoolArray:
    """The mask (H, W) with its outline moved to the depth edge within `reach_px` of it, where there is one.

    depth_m (H, W) metres, NaN unknown. Parts whose depth is apart from the object's are dropped first. Where depth is
    continuous (the foot on the table) the outline stays. Raises `InputError` if shapes differ.
    """
    if mask.shape != depth_m.shape:
        raise InputError(f"mask {mask.shape} and depth {depth_m.shape} differ in shape")
    if not mask.any():
        return mask
    margin = 2 * reach_px + 2
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    window = (
        slice(max(0, rows[0] - margin), rows[-1] + margin + 1),
        slice(max(0, cols[0] - margin), cols[-1] + margin + 1),
    )
    strength = edge_strength(depth_m[window])
    inside = main_layer(mask[window], depth_m[window], strength)
    refined = np.zeros_like(mask)
    refined[window] = _snapped(inside, strength, reach_px)
    return refined


def _snapped(mask: BoolArray, strength: Float32Array, reach_px: int) -> BoolArray:
    """The outline anew inside a band around the old one: floods from both sides meet at the edge, or half-way."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach_px + 1, 2 * reach_px + 1))
    image = mask.astype(np.uint8)
    core, hull = cv2.erode(image, kernel), cv2.dilate(image, kernel)
    # Thin parts, a handle, have no core: the mask's middle line stands for it.
    depth = cv2.distanceTransform(image, cv2.DIST_L2, 3)
    ridge = (depth >= ndimage.maximum_filter(depth, 3)) & mask
    markers = np.where(hull == 0, 2, np.where((core > 0) | ridge, 1, 0)).astype(np.int32)
    if not (markers == 2).any():
        return mask
    return watershed(strength, markers) == 1


def main_layer(mask: BoolArray, depth_m: np.ndarray, strength: np.ndarray | None = None) -> BoolArray:
    """The mask without parts that a depth edge separates and that lie outside the object's range of depth.

    The largest continuous part is the object; others stay if their median depth lies in its range, widened on both
    sides by its length. Pixels without depth stay.
    """
    if strength is None:
        strength = edge_strength(depth_m)
    parts, count = ndimage.label(mask & (strength == 0.0) & np.isfinite(depth_m))
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    main = int(sizes.argmax())
    if sizes[main] < MIN_PIXELS or count == 1:
        return mask
    low, high = np.percentile(depth_m[parts == main], [2.0, 98.0])
    slack = max(high - low, 0.02)
    medians = np.asarray(ndimage.median(depth_m, parts, np.arange(1, count + 1)))
    bad = np.zeros(count + 1, dtype=bool)
    bad[1:] = (medians < low - slack) | (medians > high + slack)
    if not bad.any():
        return mask
    # Edge pixels and holes go with the nearest part.
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    return mask & ~bad[parts[tuple(nearest)]]
