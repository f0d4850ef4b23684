"""Which regions of the top-down map are objects that stand on the support plane, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy import ndimage

from ..types import Float64Array, Int32Array
from .height_map import HeightMap, disk
from .statistics import group_percentile
from .support import Heights, Surface


@dataclass(frozen=True)
class AcceptanceConfig:
    """What counts as an object; lengths in metres."""

    min_top_m: float = 0.014
    """Objects less high than this are not told from the plane."""
    max_extent_m: float = 0.6
    max_top_m: float = 0.6
    min_pixels: int = 80
    """Pixels in the view that sees the region best."""
    ring_m: float = 0.03
    """Width of the ring around the footprint in which the plane must be seen."""
    min_plane_share: float = 0.5
    """Least share of plane among the cells of the ring whose content is known (plane or emptiness)."""
    min_ring_share: float = 0.1
    """Least share of the ring that shows the plane at all."""
    max_below_share: float = 0.05
    """Pixels that continue a region's surface below the plane, relative to its own: a chair behind the table."""
    hanging_plane_share: float = 0.85
    """Below this share of plane in its ring, a region must be seen to stand: at least `min_standing_share` of its lower
    outline must meet the plane where it stops, and not a gap."""
    min_standing_share: float = 0.8
    sheet_top_m: float = 0.045
    """Regions lower than this may be papers or magazines: they are when they are wide and level too."""
    sheet_slenderness: float = 0.4
    """Height over the root of the area."""
    sheet_level_share: float = 0.55


@dataclass(frozen=True, eq=False)
class RegionFacts:
    """Measurements of each region, all (R + 1,), index 0 unused."""

    pixels: Float64Array
    top_m: Float64Array
    extent_m: Float64Array
    area_m2: Float64Array
    level_share: Float64Array
    plane_share: Float64Array
    ring_share: Float64Array
    below_share: Float64Array
    border_share: Float64Array
    standing_share: Float64Array
    on_map_edge: Float64Array


def measure(
    regions: Int32Array,
    grid: HeightMap,
    labels: Sequence[Int32Array],
    surfaces: Sequence[Surface],
    heights: Sequence[Heights],
    config: AcceptanceConfig,
) -> RegionFacts:
    """Facts of the regions (I, J) of the map; `labels` are their pixels (H, W) in each view."""
    count = int(regions.max(initial=0)) + 1
    best, level, border, below = (np.zeros(count) for _ in range(4))
    tops = np.zeros(count)
    standing = np.zeros((2, count))
    for image, surface, height in zip(labels, surfaces, heights, strict=True):
        pixels = np.bincount(image.ravel(), minlength=count)
        best = np.maximum(best, pixels)
        with np.errstate(invalid="ignore"):
            upward = surface.normals @ height.plane.normal.astype(np.float32) > 0.9
        known = np.isfinite(surface.normals[..., 0])
        level += np.bincount(image[upward], minlength=count) / np.maximum(np.bincount(image[known], minlength=count), 1)
        border += np.bincount(image[_frame(surface)], minlength=count) > 0
        standing += _lower_outline(image, surface, height, count)
        below = np.maximum(below, _continued_below(image, surface, height, count))
        tops = np.maximum(tops, group_percentile(image, height.height_m, 95.0, count))
    seen = np.maximum(sum((np.bincount(image.ravel(), minlength=count) > 0).astype(np.float64) for image in labels), 1)
    area, extent = _footprints(regions, grid.frame.cell_m, count)
    plane_share, ring_share = _rings(regions, grid, config, count)
    return RegionFacts(
        pixels=best,
        top_m=tops,
        extent_m=extent,
        area_m2=area,
        level_share=level / seen,
        plane_share=plane_share,
        ring_share=ring_share,
        below_share=below,
        border_share=border / seen,
        standing_share=standing[0] / np.maximum(standing.sum(axis=0), 1),
        on_map_edge=_on_edge(regions, count),
    )


def scores(facts: RegionFacts, config: AcceptanceConfig) -> Float64Array:
    """(R + 1,) in [0, 1]: 0 for what is not an object, else the less the fewer pixels and the more is cut off."""
    slender = facts.top_m / np.sqrt(np.maximum(facts.area_m2, 1e-6))
    sheet = (
        (facts.top_m < config.sheet_top_m)
        & (slender < config.sheet_slenderness)
        & (facts.level_share > config.sheet_level_share)
    )
    good = (
        (facts.pixels >= config.min_pixels)
        & (facts.top_m >= config.min_top_m)
        & (facts.top_m <= config.max_top_m)
        & (facts.extent_m <= config.max_extent_m)
        & (facts.plane_share >= config.min_plane_share)
        & (facts.ring_share >= config.min_ring_share)
        & (facts.below_share <= config.max_below_share)
        & ((facts.plane_share >= config.hanging_plane_share) | (facts.standing_share >= config.min_standing_share))
        & (facts.on_map_edge == 0)
        & ~sheet
    )
    good[0] = False
    score = 1.0 - np.exp(-facts.pixels / 300.0)
    score = score * (1.0 - 0.4 * facts.border_share)
    score = score * np.clip(facts.top_m / 0.03, 0.5, 1.0)
    score = score * (0.5 + 0.5 * np.clip((facts.plane_share - 0.5) / 0.4, 0.0, 1.0))
    return np.where(good, np.clip(score, 0.05, 1.0), 0.0)


def _frame(surface: Surface) -> np.ndarray:
    """(H, W) bool: pixels at the border of what the view's depth covers."""
    depth = surface.view.depth_m
    assert depth is not None
    covered = np.isfinite(depth)
    frame = np.zeros(depth.shape, dtype=bool)
    rows, cols = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if len(rows):
        edge = 4
        frame[: rows[0] + edge] = frame[rows[-1] - edge :] = True
        frame[:, : cols[0] + edge] = frame[:, cols[-1] - edge :] = True
    return frame


def _continued_below(labels: Int32Array, surface: Surface, height: Heights, count: int) -> Float64Array:
    """(R + 1,) pixels around each region that go on with its surface below the plane, relative to its own pixels."""
    depth = surface.view.depth_m
    assert depth is not None
    if not labels.any():
        return np.zeros(count)
    _, index = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the zero pixels in its own order: read off which pixel each number means.
    sources = np.zeros(int(index.max()) + 1, dtype=np.int64)
    zeros = np.flatnonzero(labels)
    sources[index.ravel()[zeros]] = zeros
    reach = int(np.clip(0.05 * surface.view.intrinsics.fx / np.median(depth.ravel()[zeros]), 4, 60))
    near = cv2.dilate((labels > 0).astype(np.uint8), np.ones((2 * reach + 1,) * 2, np.uint8)) > 0
    around = np.flatnonzero(near & (labels == 0) & np.isfinite(depth))
    source = sources[index.ravel()[around]]
    owner = labels.ravel()[source]
    ranges = depth.ravel()[around]
    smooth = np.abs(ranges - depth.ravel()[source]) < 0.02 * np.maximum(ranges, 1.0) ** 2
    deep = height.height_m.ravel()[around] < -np.maximum(0.006, 2.5 * height.sigma_m.ravel()[around])
    return np.bincount(owner[smooth & deep], minlength=count) / np.maximum(
        np.bincount(labels.ravel(), minlength=count), 1
    )


def _lower_outline(labels: Int32Array, surface: Surface, height: Heights, count: int) -> Float64Array:
    """(2, R + 1) pixels of each region's lower outline that meet the plane, and that meet a gap.

    Below an object in the picture comes the plane on which it stands, as near as its foot or, under an overhang,
    farther away. Below the back of a chair behind the table comes the table's edge, nearer, or what is behind.
    """
    depth = surface.view.depth_m
    assert depth is not None
    down = surface.view.T_world_camera[:3, :2].T @ -height.plane.normal
    turns = 0 if abs(down[1]) >= abs(down[0]) else 1
    flip = -1 if down[1 - turns] < 0 else 1

    def oriented(image: np.ndarray) -> np.ndarray:
        return (image if turns == 0 else image.T)[::flip]

    own, z, h = oriented(labels), oriented(depth), oriented(height.height_m)
    sigma = oriented(height.sigma_m)
    out = np.zeros((2, count))
    step = 6
    if own.shape[0] <= step:
        return out
    upper, lower = np.s_[:-step], np.s_[step:]
    rows = (own[upper] > 0) & (own[lower] != own[upper]) & np.isfinite(z[lower])
    region, nearer = own[upper][rows], z[upper][rows] - z[lower][rows]
    level = np.abs(h[lower][rows]) < np.maximum(0.012, 4.0 * sigma[lower][rows])
    # A step on the plane itself: six pixels further down it is nearer by what its slope in the picture gives.
    slope = step * z[lower][rows] ** 2 / (surface.view.intrinsics.fy * max(0.05, _eye_height(surface, height)))
    hidden = (own[lower][rows] > 0) & (nearer > 0)
    meets = level & (nearer < slope + 0.02)
    gap = ~meets & ~hidden
    out[0] = np.bincount(region[meets], minlength=count)
    out[1] = np.bincount(region[gap], minlength=count)
    return out


def _eye_height(surface: Surface, height: Heights) -> float:
    return float(height.plane.height_m(surface.view.T_world_camera[:3, 3]))


def _footprints(regions: Int32Array, cell_m: float, count: int) -> tuple[Float64Array, Float64Array]:
    """Area in m² and longest side of the bounding rectangle of each footprint."""
    rows, cols = np.nonzero(regions)
    region = regions[rows, cols]
    low, high = np.full((count, 2), 10**6), np.full((count, 2), -1)
    for axis, values in enumerate((rows, cols)):
        np.minimum.at(low[:, axis], region, values)
        np.maximum.at(high[:, axis], region, values)
    area = np.bincount(region, minlength=count).astype(np.float64) * cell_m**2
    return area, np.maximum(high - low + 1, 0).max(axis=1).astype(np.float64) * cell_m


def _on_edge(regions: Int32Array, count: int) -> Float64Array:
    """(R + 1,) cells on the edge of the map, which lies well outside the support: what is there goes on elsewhere."""
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.bincount(edge, minlength=count).astype(np.float64)


def _rings(
    regions: Int32Array, grid: HeightMap, config: AcceptanceConfig, count: int
) -> tuple[Float64Array, Float64Array]:
    """Share of plane among the known cells, and among all cells, of a ring around each footprint."""
    reach = max(1, round(config.ring_m / grid.frame.cell_m))
    plane_share, ring_share = np.zeros(count), np.zeros(count)
    ring_disk = disk(reach)
    plane = (grid.table > 0) & (grid.table >= grid.beyond)
    empty = (grid.beyond > 0) & ~plane
    # A loop over regions, on their own windows: footprints are small and few.
    for number, window in enumerate(ndimage.find_objects(regions), start=1):
        if window is None:
            continue
        around = tuple(
            slice(max(0, w.start - reach), min(n, w.stop + reach)) for w, n in zip(window, regions.shape, strict=True)
        )
        own = regions[around] == number
        ring = ndimage.binary_dilation(own, ring_disk) & (regions[around] == 0)
        seen_plane, seen_empty = (plane[around] & ring).sum(), (empty[around] & ring).sum()
        plane_share[number] = seen_plane / max(1, seen_plane + seen_empty)
        ring_share[number] = seen_plane / max(1, ring.sum())
    return plane_share, ring_share
