"""Closes an observed surface where it rests on its support: walls go down to the plane, the footprint is capped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ..types import BoolArray
from .patches import DepthPatch, sample_patch
from .tsdf import BAND_VOXELS, LAYERS_BELOW, TsdfVolume, grid_points_m

REACH_M = 0.02
"""How far a lower rim may end above the support and still be taken to go down to it."""
SEE_THROUGH_M = 0.004
"""A view that measures this much behind a grid point just above the support, off the object, proves it empty."""
FOOTPRINT_CLOSING_M = 0.012
"""Half width of gaps in the observed surface's projection that are closed, before enclosed holes are filled."""
RIM_LAYERS, FRAYED_LAYERS = 5, 3
"""Layers from a column's lowest known point that tell where the wall stands, and those that decide its side."""
WEAK_SHARE = 0.35
"""Points with less than this share of the largest weight in their column's rim may be replaced."""
MIN_ISLAND_CELLS = 12
"""Columns that reach the support in smaller islands are not extended down to it."""


@dataclass(frozen=True, eq=False)
class SupportClosure:
    """A volume with its lower end completed; `added` (X, Y, Z) bool marks the grid points that no view measured."""

    volume: TsdfVolume
    added: BoolArray


def close_on_support(volume: TsdfVolume, patches: Sequence[DepthPatch], reach_m: float = REACH_M) -> SupportClosure:
    """Extend the lower rim of a volume fused with a support down to the plane and cap the footprint beneath.

    A column whose lowest known grid point lies within `reach_m` of the plane keeps its value down to the plane, unless
    a view proves the space under it empty. The cap covers the hull of those columns' inside, as far as it lies beneath
    the observed surface and no view sees the support there. Nothing is added elsewhere.
    """
    voxel = volume.voxel_size_m
    known = np.isfinite(volume.distance_m)
    heights = (np.arange(known.shape[2]) - (LAYERS_BELOW - 0.5)) * voxel
    distance, extend = _extended_down(volume, heights, reach_m)
    # Rays pass the silhouette of points right at the surface; only what lies deeper can be disproved.
    seen_empty = _proven_empty(volume, patches, extend & (distance < -0.75 * voxel))
    distance[seen_empty] = np.nan

    bottom = LAYERS_BELOW
    inside = _without_flecks(distance[:, :, bottom] < 0)
    flecks = (distance[:, :, bottom] < 0) & ~inside
    distance[flecks[..., None] & extend] = np.nan
    footprint = inside | _footprint(volume, distance, inside, patches)
    # Solid = extruded object above the plane: the larger of both signed distances.
    first = distance[:, :, bottom]
    first = np.where(footprint & ~np.isfinite(first), -0.5 * voxel, first)
    near = np.arange(len(heights)) < bottom + 4
    distance[:, :, near] = np.maximum(distance[:, :, near], -heights[near])
    distance[:, :, bottom] = np.maximum(first, -0.5 * voxel)
    distance[:, :, bottom - 1] = np.where(np.isfinite(first), np.maximum(first, 0.5 * voxel), np.nan)
    return SupportClosure(replace(volume, distance_m=distance), np.isfinite(distance) & ~known)


def _extended_down(volume: TsdfVolume, heights: np.ndarray, reach_m: float) -> tuple[np.ndarray, BoolArray]:
    """Distances with every column continued from its lowest known grid points to the plane; the points filled so.

    The lowest rows are frayed where masks end. So a column goes on with the weighted mean of its lowest `RIM_LAYERS`
    points of the prevailing sign, which also replaces points among them that are weak or only known to be free.
    """
    distance, weight = volume.distance_m, volume.weight
    known = np.isfinite(distance)
    lowest = np.argmax(known, axis=2)[..., None]
    window = np.minimum(lowest + np.arange(RIM_LAYERS), distance.shape[2] - 1)
    values = np.nan_to_num(np.take_along_axis(distance, window, axis=2))
    weights = np.take_along_axis(weight, window, axis=2)
    vote = (np.sign(values) * weights)[..., :FRAYED_LAYERS].sum(axis=2, keepdims=True)
    free_below = np.take_along_axis(known & (weight <= 0), lowest, axis=2)
    outside = (vote > 0) | free_below
    share = np.where((values > 0) == outside, weights, 0.0)
    total = share.sum(axis=2, keepdims=True)
    # Just outside a wall the rays that graze its rim measure nothing: those columns may start a little higher.
    reach = np.where(outside, reach_m + BAND_VOXELS * volume.voxel_size_m, reach_m)
    grounded = known.any(axis=2, keepdims=True) & (heights[lowest] < reach)
    nearest = np.where(outside, BAND_VOXELS * volume.voxel_size_m, values[..., :1])
    rim = np.divide((share * values).sum(axis=2, keepdims=True), total, out=nearest, where=total > 0)
    rim = _median_of_neighbours(rim[..., 0], grounded[..., 0])[..., None]

    layers = np.arange(len(heights))
    under_known = np.logical_or.accumulate(known[..., ::-1], axis=2)[..., ::-1]
    extend = grounded & ~known & under_known & (layers >= LAYERS_BELOW) & (layers < lowest + RIM_LAYERS)
    weak = weight <= WEAK_SHARE * weights.max(axis=2, keepdims=True)
    frayed = grounded & known & weak & (layers < lowest + RIM_LAYERS) & (outside | (weight > 0))
    return np.where(extend | frayed, rim, distance).astype(np.float32), extend


def _median_of_neighbours(values: np.ndarray, valid: BoolArray) -> np.ndarray:
    """(X, Y) median over the valid cells of each valid cell's 3 x 3 neighbourhood: removes single outliers."""
    padded = np.pad(np.where(valid, values, np.nan), 1, constant_values=np.nan)
    x, y = values.shape
    around = np.stack([padded[i : i + x, j : j + y][valid] for i in range(3) for j in range(3)])
    result = values.copy()
    result[valid] = np.nanmedian(around, axis=0)
    return result


def _proven_empty(volume: TsdfVolume, patches: Sequence[DepthPatch], candidates: BoolArray) -> BoolArray:
    """The candidates (X, Y, Z) through which at least one view sees something farther that is not the object."""
    index = np.argwhere(candidates)
    empty = _seen_through(patches, grid_points_m(index, volume.voxel_size_m, volume.T_world_grid))
    result = np.zeros(candidates.shape, dtype=bool)
    result[tuple(index[empty].T)] = True
    return result


def _seen_through(patches: Sequence[DepthPatch], points_m: np.ndarray) -> BoolArray:
    empty = np.zeros(len(points_m), dtype=bool)
    for patch in patches:
        samples = sample_patch(patch, points_m)
        with np.errstate(invalid="ignore"):
            empty |= ~samples.on_object & (samples.surface_m - samples.depth_m > SEE_THROUGH_M)
    return empty


def _without_flecks(columns: BoolArray) -> BoolArray:
    """(X, Y) bool without small islands: remains of the support's own noise around the object."""
    labels, count = ndimage.label(columns, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    sizes[0] = 0
    return (sizes >= MIN_ISLAND_CELLS)[labels]


def _footprint(volume: TsdfVolume, distance: np.ndarray, inside: BoolArray, patches: Sequence[DepthPatch]) -> BoolArray:
    """(X, Y) bool: columns to cap besides those whose inside already reaches the plane."""
    if not inside.any():
        return inside
    beneath = _closed_and_filled(np.asarray((distance < 0).any(axis=2)), volume.voxel_size_m)
    # Narrow fringes do not widen the hull; thin walls all around count through what they enclose.
    hull = _in_hull(ndimage.binary_opening(inside, np.ones((3, 3))))
    candidates = beneath & (hull | _closed_and_filled(inside, volume.voxel_size_m)) & ~inside
    empty = _proven_empty(volume, patches, _at_layer(candidates, distance.shape, LAYERS_BELOW))
    return candidates & ~empty[:, :, LAYERS_BELOW]


def _closed_and_filled(columns: BoolArray, voxel_size_m: float) -> BoolArray:
    """(X, Y) bool: gaps up to twice `FOOTPRINT_CLOSING_M` closed, then enclosed holes filled."""
    radius = max(1, round(FOOTPRINT_CLOSING_M / voxel_size_m))
    steps = np.arange(-radius, radius + 1)
    disc = steps[:, None] ** 2 + steps[None, :] ** 2 <= radius**2
    closed = ndimage.binary_closing(np.pad(columns, radius), disc)
    return ndimage.binary_fill_holes(closed)[radius:-radius, radius:-radius]


def _at_layer(columns: BoolArray, shape: tuple[int, ...], layer: int) -> BoolArray:
    grid = np.zeros(shape, dtype=bool)
    grid[:, :, layer] = columns
    return grid


def _in_hull(mask: BoolArray) -> BoolArray:
    """(X, Y) bool: cells within the convex hull of the True cells of `mask`."""
    cells = np.argwhere(mask).astype(np.float64)
    try:
        equations = ConvexHull(cells).equations
    except (QhullError, ValueError):
        return mask.copy()
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in mask.shape), indexing="ij"), axis=-1)
    return (grid @ equations[:, :2].T + equations[:, 2] <= 1e-6).all(axis=-1)
