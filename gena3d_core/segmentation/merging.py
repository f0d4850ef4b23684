"""Regions of the top-down map that a view shows to be one surface, or one object behind its own rim, are joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..types import BoolArray, Int32Array
from .statistics import group_percentile
from .support import Heights, Surface

NESTED_SHARE = 0.9
"""Share of a region's image columns that lie within another's when it is seen inside it."""


@dataclass(frozen=True)
class MergeConfig:
    """When two regions are one object."""

    prominence: float = 1.8
    """A boundary lower than the lower peak by more than this factor parts two objects."""
    jump_m: float = 0.015
    """Largest step of depth within one surface, at one metre; grows with the range."""
    rim_gap_m: float = 0.13
    """Largest step of depth from a front rim to the far inner wall of the same object."""
    min_pixels: int = 40
    """A region with fewer pixels in a view does not show there where its foot is."""
    max_bulge_per_m: float = 6.0
    """Curvature across the picture above which a surface bulges towards the camera, as no inside does."""
    min_pairs: int = 4
    """Fewer neighbouring pixels prove nothing."""


@dataclass(frozen=True, eq=False)
class _Contacts:
    """Neighbouring pixels of two regions, `near` in front: regions, depth step, lower of the two heights, rows."""

    near: Int32Array
    far: Int32Array
    step_m: np.ndarray
    height_m: np.ndarray
    range_m: np.ndarray


@dataclass(frozen=True, eq=False)
class _Span:
    """First and last image column (R + 1,) of each region in a view, and whether enough of it is seen."""

    left: np.ndarray
    right: np.ndarray
    seen: BoolArray


def merge_regions(
    labels: Sequence[Int32Array],
    surfaces: Sequence[Surface],
    heights: Sequence[Heights],
    config: MergeConfig,
) -> Int32Array:
    """New label (R + 1,) of each region; `labels` are (H, W) regions of the pixels of each view, 0 = none."""
    count = 1 + max((int(image.max(initial=0)) for image in labels), default=0)
    peaks, feet = np.zeros(count), np.full(count, np.inf)
    for image, height in zip(labels, heights, strict=True):
        seen = np.bincount(image.ravel(), minlength=count) >= config.min_pixels
        peaks = np.maximum(peaks, group_percentile(image, height.height_m, 97.0, count))
        feet = np.where(seen, np.minimum(feet, group_percentile(image, height.height_m, 5.0, count)), feet)
    columns = [_columns(image, count, config.min_pixels) for image in labels]
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for image, surface, height, span in zip(labels, surfaces, heights, columns, strict=True):
        contacts = _contacts(image, surface, height)
        pairs.append(_same_surface(contacts, peaks, config))
        front, back = _behind_rim(contacts, span, peaks, feet, _bulge(image, surface, count), config)
        # The inside of a vessel lies within its outline in every view; what stands behind it does not.
        nested = np.all([_nested(front, back, other) for other in columns], axis=0)
        pairs.append((front[nested], back[nested]))
    a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
    graph = coo_matrix((np.ones(len(a)), (a, b)), shape=(count, count))
    _, joined = connected_components(graph, directed=False)
    # Region 0 is the background: it touches nothing in the graph, so it keeps a label of its own.
    return np.where(np.arange(count) == 0, 0, joined + 1).astype(np.int32)


def _contacts(labels: Int32Array, surface: Surface, height: Heights) -> _Contacts:
    depth = surface.view.depth_m
    assert depth is not None
    sides = []
    for first, second in (
        (np.s_[:, :-2], np.s_[:, 2:]),
        (np.s_[:-2, :], np.s_[2:, :]),
    ):
        a, b = labels[first], labels[second]
        touching = (a != b) & (a > 0) & (b > 0)
        da, db = depth[first][touching], depth[second][touching]
        ha, hb = height.height_m[first][touching], height.height_m[second][touching]
        la, lb = a[touching], b[touching]
        swap = db < da
        sides.append(
            (
                np.where(swap, lb, la),
                np.where(swap, la, lb),
                np.abs(da - db),
                np.minimum(ha, hb),
                np.minimum(da, db),
            )
        )
    near, far, step, low, ranges = (np.concatenate(part) for part in zip(*sides, strict=True))
    return _Contacts(near, far, step, low, ranges)


def _same_surface(contacts: _Contacts, peaks: np.ndarray, config: MergeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Couples of regions that meet without a step at a height not far below the lower peak."""
    limit = config.jump_m * np.maximum(contacts.range_m, 1.0) ** 2
    smooth = contacts.step_m < limit
    low, high = np.minimum(contacts.near, contacts.far)[smooth], np.maximum(contacts.near, contacts.far)[smooth]
    key = low.astype(np.int64) * len(peaks) + high
    unique, group, sizes = np.unique(key, return_inverse=True, return_counts=True)
    saddle = group_percentile(group + 1, contacts.height_m[smooth], 85.0, len(unique) + 1)[1:]
    a, b = unique // len(peaks), unique % len(peaks)
    keep = (sizes >= config.min_pairs) & (saddle * config.prominence > np.minimum(peaks[a], peaks[b]))
    return a[keep], b[keep]


def _behind_rim(
    contacts: _Contacts, span: _Span, peaks: np.ndarray, feet: np.ndarray, bulge: np.ndarray, config: MergeConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Couples (front, back) where the back seems the far inside of the front: it shows only above the front's rim,
    is no wider and no higher, hollow or flat, and no view sees anything of its foot."""
    count = len(peaks)
    within = contacts.step_m < config.rim_gap_m
    key = contacts.near[within].astype(np.int64) * count + contacts.far[within]
    unique, sizes = np.unique(key, return_counts=True)
    front, back = unique // count, unique % count
    overlap = np.minimum(span.right[front], span.right[back]) - np.maximum(span.left[front], span.left[back]) + 1
    keep = sizes >= config.min_pairs
    keep &= overlap > NESTED_SHARE * (span.right[back] - span.left[back] + 1)
    keep &= peaks[back] < 1.15 * peaks[front] + 0.005
    keep &= feet[back] > 0.3 * peaks[front]
    keep &= bulge[back] < config.max_bulge_per_m
    return front[keep], back[keep]


def _bulge(labels: Int32Array, surface: Surface, count: int) -> np.ndarray:
    """(R + 1,) curvature, per metre, of each region across the picture: positive where it bulges to the camera."""
    R = surface.view.T_world_camera[:3, :3].astype(np.float32)
    known = (labels > 0) & np.isfinite(surface.normals[..., 0])
    group = labels[known]
    across, turn = surface.points[known] @ R[:, 0], surface.normals[known] @ R[:, 0]
    size = np.maximum(np.bincount(group, minlength=count), 1)
    mean_across, mean_turn = (np.bincount(group, v, minlength=count) / size for v in (across, turn))
    variance = np.bincount(group, (across - mean_across[group]) ** 2, minlength=count) / size
    covariance = np.bincount(group, (across - mean_across[group]) * (turn - mean_turn[group]), minlength=count) / size
    return np.where(size >= 20, covariance / np.maximum(variance, 1e-6), 0.0)


def _columns(labels: Int32Array, count: int, min_pixels: int) -> _Span:
    rows, cols = np.nonzero(labels)
    regions = labels[rows, cols]
    left, right = np.full(count, labels.shape[1]), np.full(count, -1)
    np.minimum.at(left, regions, cols)
    np.maximum.at(right, regions, cols)
    return _Span(left, right, np.bincount(regions, minlength=count) >= min_pixels)


def _nested(a: np.ndarray, b: np.ndarray, span: _Span) -> BoolArray:
    """Whether the columns of one of each couple lie within those of the other; True where the view does not tell."""
    overlap = np.minimum(span.right[a], span.right[b]) - np.maximum(span.left[a], span.left[b]) + 1
    narrower = np.minimum(span.right[a] - span.left[a], span.right[b] - span.left[b]) + 1
    return ~(span.seen[a] & span.seen[b]) | (overlap > NESTED_SHARE * narrower)
