"""Distances between surfaces given as points: Chamfer, precision, recall, F-score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..types import Float64Array, require_shape


@dataclass(frozen=True)
class SurfaceScores:
    """Agreement of a predicted with a reference surface at one distance threshold.

    precision  share of predicted points closer than the threshold to the reference
    recall     share of reference points closer than the threshold to the prediction
    f_score    harmonic mean of both, 0 if both are 0
    chamfer_m  mean distance from prediction to reference plus mean distance back, in the points' unit
    """

    precision: float
    recall: float
    f_score: float
    chamfer_m: float


def nearest_distances(points: np.ndarray, reference: np.ndarray) -> Float64Array:
    """Distance (N,) from each of `points` (N, 3) to the nearest of `reference` (M, 3).

    Raises `InputError` for an empty or non-finite `reference` or wrong shapes.
    """
    require_shape("points", points, (None, 3))
    require_shape("reference points", reference, (None, 3))
    if not len(reference):
        raise InputError("the reference surface holds no points, so distances to it are undefined")
    if not (np.isfinite(points).all() and np.isfinite(reference).all()):
        raise InputError("surfaces to compare must not hold NaN or infinity")
    return cKDTree(reference).query(points)[0]


def f_score(precision: float, recall: float) -> float:
    """Harmonic mean of precision and recall; 0 if both are 0."""
    return 2.0 * precision * recall / (precision + recall) if precision + recall > 0.0 else 0.0


def surface_scores(predicted: np.ndarray, reference: np.ndarray, threshold: float) -> SurfaceScores:
    """Scores of `predicted` (N, 3) against `reference` (M, 3), both sampled evenly over their surfaces.

    threshold in the unit of the points. An empty prediction scores 0 with infinite Chamfer distance; an empty
    reference raises `InputError`.
    """
    if not threshold > 0.0:
        raise InputError(f"the distance threshold must be positive, got {threshold}")
    if not len(predicted):
        nearest_distances(reference, reference)
        return SurfaceScores(0.0, 0.0, 0.0, float("inf"))
    forward = nearest_distances(predicted, reference)
    backward = nearest_distances(reference, predicted)
    precision, recall = float((forward < threshold).mean()), float((backward < threshold).mean())
    return SurfaceScores(precision, recall, f_score(precision, recall), float(forward.mean() + backward.mean()))


def chamfer_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Mean nearest distance from `one` (N, 3) to `other` (M, 3) plus the mean back. Raises `InputError` if empty."""
    return float(nearest_distances(one, other).mean() + nearest_distances(other, one).mean())
