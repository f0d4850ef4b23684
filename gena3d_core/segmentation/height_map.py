"""Top-down map of what stands on a support plane, split into one region for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from ..types import BoolArray, Float32Array, Float64Array, Int32Array, SupportPlane
from .support import Heights, Surface

MIN_TABLE_PIXELS = 2
"""So many pixels on the plane prove that a cell of the map without object pixels is empty."""


@dataclass(frozen=True, eq=False)
class Frame2D:
    """Cells of side `cell_m` in the plane: cell (i, j) covers origin + cell_m * [(i, j), (i, j) + 1] along two axes."""

    axes: Float64Array
    origin_m: Float64Array
    cell_m: float
    shape: tuple[int, int]

    def cells(self, points_m: np.ndarray) -> tuple[Int32Array, BoolArray]:
        """Flat cell index (...,) of points (..., 3), and whether they lie on the map (index 0 where not)."""
        uv = points_m @ self.axes.T.astype(points_m.dtype)
        with np.errstate(invalid="ignore"):
            ij = np.floor((uv - self.origin_m.astype(uv.dtype)) / self.cell_m)
            inside = ((ij >= 0) & (ij < self.shape)).all(axis=-1)
        ij = np.where(inside[..., None], ij, 0).astype(np.int32)
        return ij[..., 0] * np.int32(self.shape[1]) + ij[..., 1], inside


@dataclass(frozen=True, eq=False)
class HeightMap:
    """What the views prove about each cell (I, J) of the support plane.

    top_m    height of the highest point above the object threshold, 0 where there is none
    object   pixels above the threshold, table: pixels on the plane, beyond: rays that pass through the plane there
    """

    frame: Frame2D
    top_m: Float32Array
    object: Float32Array
    table: Float32Array
    beyond: Float32Array


def object_pixels(heights: Heights, min_height_m: float, max_height_m: float, sigmas: float) -> BoolArray:
    """(H, W) pixels between the thresholds, the lower one raised to `sigmas` deviations of the height."""
    with np.errstate(invalid="ignore"):
        lower = np.maximum(min_height_m, sigmas * heights.sigma_m)
        return (heights.height_m > lower) & (heights.height_m < max_height_m)


def frame_of(
    surfaces: Sequence[Surface], heights: Sequence[Heights], plane: SupportPlane, cell_m: float, max_cells: int = 1200
) -> Frame2D | None:
    """The map that covers every pixel on the plane, with some margin; None when no view sees the plane."""
    first = np.cross([0.0, 1.0, 0.0], plane.normal)
    first /= np.linalg.norm(first)
    axes = np.stack([first, np.cross(plane.normal, first)])
    on_plane = []
    for surface, height in zip(surfaces, heights, strict=True):
        with np.errstate(invalid="ignore"):
            near = (np.abs(height.height_m) < 0.02) & (surface.normals @ plane.normal.astype(np.float32) > 0.85)
        on_plane.append(surface.points[near][::16] @ axes.T.astype(np.float32))
    uv = np.concatenate(on_plane)
    if len(uv) < 20:
        return None
    low, high = np.percentile(uv, 0.5, axis=0) - 0.15, np.percentile(uv, 99.5, axis=0) + 0.15
    cell_m = max(cell_m, float((high - low).max()) / max_cells)
    shape = tuple(int(n) for n in np.ceil((high - low) / cell_m))
    return Frame2D(axes, low.astype(np.float64), cell_m, (shape[0], shape[1]))


def build_height_map(
    frame: Frame2D,
    plane: SupportPlane,
    surfaces: Sequence[Surface],
    heights: Sequence[Heights],
    objects: Sequence[BoolArray],
) -> HeightMap:
    """Gather the pixels of all views; `objects` are their pixels above the threshold."""
    size = frame.shape[0] * frame.shape[1]
    top, count = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    table, beyond = np.zeros(size, dtype=np.float32), np.zeros(size, dtype=np.float32)
    for surface, height, is_object in zip(surfaces, heights, objects, strict=True):
        cells, inside = frame.cells(surface.points)
        chosen = is_object & inside
        np.maximum.at(top, cells[chosen], height.height_m[chosen])
        count += np.bincount(cells[chosen], minlength=size)
        with np.errstate(invalid="ignore"):
            flat = inside & (np.abs(height.height_m) < np.maximum(0.008, 2.5 * height.sigma_m))
            deeper = height.height_m < -np.maximum(0.03, 5.0 * height.sigma_m)
        table += np.bincount(cells[flat], minlength=size)
        eye = surface.view.T_world_camera[:3, 3]
        eye_height = float(plane.height_m(eye))
        if eye_height > 0.05:
            below = surface.points[deeper]
            fraction = eye_height / (eye_height - height.height_m[deeper])
            crossing = eye.astype(np.float32) + (below - eye.astype(np.float32)) * fraction[:, None]
            cells, inside = frame.cells(crossing)
            beyond += np.bincount(cells[inside], minlength=size)
    grids = (a.reshape(frame.shape).astype(np.float32) for a in (top, count, table, beyond))
    return HeightMap(frame, *grids)


def split_regions(grid: HeightMap, join_m: float, prominence: float, floor_m: float) -> Int32Array:
    """(I, J) region of each object cell, 0 elsewhere.

    Cells belong together across gaps of up to `join_m`, unless a valley parts them that is lower than either peak by
    the factor `prominence`; heights under `floor_m` count as `floor_m`, so noise and papers make no peaks.
    """
    cells = grid.object > 0
    if not cells.any():
        return np.zeros(cells.shape, dtype=np.int32)
    reach = max(1, round(join_m / grid.frame.cell_m / 2.0))
    element = disk(reach)
    closed = ndimage.binary_closing(np.pad(cells, 2 * reach), element)[2 * reach : -2 * reach, 2 * reach : -2 * reach]
    # Where the support was seen between two things, the gap is real.
    closed &= cells | (grid.table < MIN_TABLE_PIXELS)
    # Gaps take the height of the lower side, so that a bridge never looks higher than what it joins.
    filled = np.where(cells, grid.top_m, 0.0)
    filled = np.where(closed, ndimage.grey_closing(filled, footprint=element), 0.0)
    filled = np.where(cells, ndimage.median_filter(filled, size=3), filled)
    level = np.where(closed, np.log(np.maximum(filled, floor_m) / floor_m) + 1.0, 0.0)
    # Quantised, because reconstruction by dilation is fast on few levels.
    level = np.round(level * 32).astype(np.int32)
    peaks = h_maxima(level, max(1, round(np.log(prominence) * 32)))
    markers, _ = ndimage.label(peaks & closed, np.ones((3, 3)))
    # Four neighbours, as the watershed below floods: what touches at a corner only would get no region there.
    components, _ = ndimage.label(closed)
    # A component too flat for a peak of its own is one region.
    unmarked = closed & ~np.isin(components, np.unique(components[markers > 0]))
    markers = np.where(unmarked, components + markers.max(), markers)
    regions = watershed(-level, markers, mask=closed)
    return np.where(cells, regions, 0).astype(np.int32)


def disk(radius: int) -> BoolArray:
    """(2 r + 1, 2 r + 1) filled circle."""
    offsets = np.arange(-radius, radius + 1)
    return offsets[:, None] ** 2 + offsets[None, :] ** 2 <= radius**2 + 0.5
