"""Statistics of numbered groups of pixels, without loops over the groups."""

from __future__ import annotations

import numpy as np

from ..types import Float64Array


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
