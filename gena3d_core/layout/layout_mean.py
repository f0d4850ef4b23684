"""One layout from several of the same scene: from other views, or with other assets as query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import similarity
from ..types import Float64Array
from .relative_layout import RelativeLayout, layout_from_world

ROUNDS = 20
TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class LayoutMean:
    """The mean of K layouts and how far they lie apart.

    deviations  (N, 7) root mean square change of each asset from the mean, in the order of `similarity.TANGENT`,
                lengths in units of the query's size, axes of the scene frame; 0 with one layout
    """

    layout: RelativeLayout
    deviations: Float64Array


def mean_layout(
    layouts: Sequence[RelativeLayout], weights: np.ndarray | None = None, *, query: int | None = None
) -> LayoutMean:
    """Weighted mean of K layouts of the same N assets, in the frame of `query` (default: that of the first).

    weights (K,), or (K, N) where views tell more about some assets than about others; equal by default. Each layout is
    laid on the mean by a similarity first (generalised Procrustes analysis), so that layouts with different queries
    can be averaged and no single asset's error turns the others around it. Raises `InputError` for layouts of different
    sizes or axes, or weights that leave an asset without any.
    """
    if not layouts:
        raise InputError("a mean needs at least one layout")
    first, count = layouts[0], len(layouts[0])
    if any(len(layout) != count for layout in layouts):
        raise InputError(f"layouts to average must have the same assets, got {[len(layout) for layout in layouts]}")
    if any(not np.allclose(layout.R_model_grid, first.R_model_grid) for layout in layouts):
        raise InputError("layouts to average must agree on the axes of model frames")
    w = np.ones((len(layouts), count)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = np.repeat(w[:, None], count, axis=1) if w.ndim == 1 else w
    if w.shape != (len(layouts), count):
        raise InputError(f"weights must be ({len(layouts)},) or ({len(layouts)}, {count}), got {w.shape}")

    S = np.stack([layout.S_scene_grid for layout in layouts])
    same_query = all(layout.query == first.query for layout in layouts)
    aligned = S
    mean = similarity.mean_similarity(np.swapaxes(S, 0, 1), w.T) if same_query else S[0]
    if not same_query:
        for _ in range(ROUNDS):
            aligned = _laid_on(S, mean, w)
            before, mean = mean, similarity.mean_similarity(np.swapaxes(aligned, 0, 1), w.T)
            if np.abs(mean - before).max() < TOLERANCE:
                break
    # The frame is that of the query as the mean has it.
    layout = layout_from_world(mean, first.query if query is None else query, first.R_model_grid)
    to_scene = layout.S_scene_grid[0] @ np.linalg.inv(mean[0])
    changes = np.array(
        [
            [similarity.change_between(c, to_scene @ a) for a, c in zip(row, layout.S_scene_grid, strict=True)]
            for row in aligned
        ]
    )
    share = w / w.sum(axis=0)
    return LayoutMean(layout, np.sqrt(np.einsum("kn,knc->nc", share, changes**2)))


def _laid_on(S: np.ndarray, mean: np.ndarray, weights: np.ndarray) -> Float64Array:
    """The layouts S (K, N, 4, 4), each moved by the similarity that brings it nearest to `mean` (N, 4, 4)."""
    (t, R, scale), (t_mean, R_mean, scale_mean) = similarity.parts(S), similarity.parts(mean)
    w = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    turn = similarity.mean_rotation(R_mean @ np.swapaxes(R, -1, -2), w)
    factor = np.exp((w * np.log(scale_mean / scale)).sum(axis=1))
    moved = factor[:, None, None] * np.einsum("kij,knj->kni", turn, t)
    shift = np.einsum("kn,kni->ki", w, t_mean - moved)
    return similarity.compose(shift, turn, factor)[:, None] @ S
