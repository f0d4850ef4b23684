"""Visible masks of the objects in each view: from regions of the map to pixels, down to the foot, out to the edges."""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage

from ..types import BoolArray, Int32Array
from .height_map import Frame2D, disk
from .support import Heights, Surface

EDGE_PX = 4
"""Depth is missing up to this far inside the outline of an object."""


def pixel_labels(
    regions: Int32Array, frame: Frame2D, surface: Surface, chosen: BoolArray, reach_cells: int = 0
) -> Int32Array:
    """(H, W) region of each `chosen` pixel; with `reach_cells`, of the nearest region within so many cells."""
    if reach_cells:
        regions = nearest_label(regions, reach_cells)
    cells, inside = frame.cells(surface.points)
    return np.where(chosen & inside, regions.ravel()[cells], 0).astype(np.int32)


def nearest_label(labels: Int32Array, reach: float) -> Int32Array:
    """Labels spread to the zeros within `reach` cells of them."""
    if not labels.any():
        return labels
    distance, index = ndimage.distance_transform_edt(labels == 0, return_indices=True)
    return np.where(distance <= reach, labels[tuple(index)], 0).astype(np.int32)


def foot_pixels(
    labels: Int32Array, regions: Int32Array, frame: Frame2D, surface: Surface, heights: Heights
) -> Int32Array:
    """Labels extended to the lowest pixels, which the height threshold left out.

    A pixel just above the plane belongs to an object when the object's footprint lies over it, or around it as the
    rim of a plate does: walls stand on their feet. Noise of the plane is kept out by averaging over neighbours and by
    keeping to pixels linked to the object.
    """
    with np.errstate(invalid="ignore"):
        flat = np.abs(heights.height_m) < 0.015
    share = cv2.blur(flat.astype(np.float32), (3, 3))
    smooth = cv2.blur(np.where(flat, heights.height_m, 0.0).astype(np.float32), (3, 3)) / np.maximum(share, 1e-6)
    low = flat & (labels == 0) & (smooth > np.maximum(0.003, 0.8 * heights.sigma_m))
    foot = pixel_labels(_without_holes(regions), frame, surface, low)
    grown = np.where(labels > 0, labels, foot)
    # Components of the low pixels that do not touch their object are noise on the plane.
    return _linked(grown, labels)


def _without_holes(regions: Int32Array) -> Int32Array:
    """Regions with the cells that they enclose."""
    holes = ndimage.binary_fill_holes(regions > 0) & (regions == 0)
    return np.where(holes, nearest_label(regions, np.inf), regions).astype(np.int32)


def _linked(grown: Int32Array, seeds: Int32Array) -> Int32Array:
    """`grown` without the connected parts of one label that hold no pixel of `seeds`."""
    smooth = np.zeros(grown.shape, dtype=bool)
    # Parts are separated where labels change, so that one object's foot cannot ride on its neighbour.
    padded = np.pad(grown, 1)
    for shift in ((0, 1), (1, 0)):
        other = padded[1 + shift[0] : padded.shape[0] - 1 + shift[0], 1 + shift[1] : padded.shape[1] - 1 + shift[1]]
        smooth |= (other != grown) & (other > 0) & (grown > 0)
    parts, count = ndimage.label((grown > 0) & ~smooth)
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.unique(parts[seeds > 0])] = True
    keep[0] = False
    return np.where(keep[parts] | (seeds > 0), grown, 0).astype(np.int32)


def fill_to_edges(labels: Int32Array, surface: Surface) -> Int32Array:
    """Labels extended to pixels without depth: holes inside, and the rim where the colour is the object's.

    Depth cameras lose a few pixels along outlines; there the colour decides between the object and what is beside it.
    """
    depth = surface.view.depth_m
    assert depth is not None
    unknown = ~np.isfinite(depth) & (labels == 0)
    near = nearest_label(labels, EDGE_PX)
    candidates = unknown & (near > 0)
    if not candidates.any():
        return labels
    inside = (labels > 0).astype(np.float32)
    outside = (np.isfinite(depth) & (labels == 0)).astype(np.float32)
    color = cv2.GaussianBlur(surface.view.color, (0, 0), 1.0).astype(np.float32)
    own, other = (_local_mean(color, weight) for weight in (inside, outside))
    closer = np.linalg.norm(color - own, axis=2) < np.linalg.norm(color - other, axis=2)
    filled = np.where(candidates & closer, near, labels)
    # Holes: pixels without depth that the object encloses.
    closed = ndimage.binary_closing(filled > 0, disk(EDGE_PX))
    return np.where(unknown & closed & (near > 0) & (filled == 0), near, filled).astype(np.int32)


def _local_mean(color: np.ndarray, weight: np.ndarray, sigma_px: float = 5.0) -> np.ndarray:
    """Mean colour (H, W, 3) of the weighted pixels around each pixel; far away where there are none."""
    total = cv2.GaussianBlur(weight, (0, 0), sigma_px)
    mean = cv2.GaussianBlur(color * weight[..., None], (0, 0), sigma_px) / np.maximum(total, 1e-6)[..., None]
    return np.where(total[..., None] > 1e-4, mean, 1e6)
