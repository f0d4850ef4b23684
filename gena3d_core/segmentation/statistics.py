"""Statistics of numbered groups of pixels, without loops over the groups."""

from __future__ import annotations

import numpy as np

from ..types import Float64Array, Int32Array
from .support import Heights, Surface


def group_percentile(groups: np.ndarray, values: np.ndarray, percent: float, count: int) -> Float64Array:
    """(count,) percentile of the finite `values` of each group; 0 for empty groups and for group 0, the background."""
    flat, numbers = values.ravel(), groups.ravel()
    known = np.isfinite(flat) & (numbers > 0)
    flat, numbers = flat[known], numbers[known]
    if not len(flat):
        return np.zeros(count)
    order = np.lexsort((flat, numbers))
    flat = flat[order]
    sizes = np.bincount(numbers, minlength=count)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    picks = starts + np.floor((sizes - 1) * percent / 100.0).astype(np.int64)
    return np.where(sizes > 0, flat[np.clip(picks, 0, len(flat) - 1)], 0.0)


def level_share(labels: Int32Array, surface: Surface, height: Heights, count: int) -> Float64Array:
    """(count,) share of the pixels of each label whose normal is that of the plane; 1 where too few normals are known
    (a sliver at the border), 0 where there are no pixels."""
    known = np.isfinite(surface.normals[..., 0]) & (labels > 0)
    with np.errstate(invalid="ignore"):
        level = known & (surface.normals @ height.plane.normal.astype(np.float32) > 0.9)
    pixels, normals, flat = (
        np.bincount(labels[chosen], minlength=count).astype(np.float64) for chosen in (labels > 0, known, level)
    )
    share = np.where(normals > 0.1 * pixels, flat / np.maximum(normals, 1.0), 1.0)
    return np.where(pixels > 0, share, 0.0)
