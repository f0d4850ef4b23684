"""Is confidence what it says? Reliability curve, expected calibration error, and how well it finds what is wrong.

Counts are kept in fine bins of confidence, so that those of many objects can be added up.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..types import Float64Array

FINE_BINS = 1000
CURVE_BINS = 20


@dataclass(frozen=True, eq=False)
class CalibrationCounts:
    """For each of `FINE_BINS` bins of [0, 1] (1 belongs to the last): how many were right, how many wrong, and the sum
    of their confidence; (FINE_BINS,) float64 each."""

    right: Float64Array
    wrong: Float64Array
    confidence: Float64Array

    def __add__(self, other: CalibrationCounts) -> CalibrationCounts:
        return CalibrationCounts(self.right + other.right, self.wrong + other.wrong, self.confidence + other.confidence)


@dataclass(frozen=True)
class Reliability:
    """One bin of the reliability curve: its limits, the mean confidence in it, the share that was right, how many."""

    low: float
    high: float
    confidence: float
    accuracy: float
    count: float


@dataclass(frozen=True)
class Calibration:
    """ece: mean over all of |confidence - accuracy| of their bins; auroc: probability that something wrong has less
    confidence than something right (0.5: confidence tells nothing; NaN if nothing or all is wrong)."""

    ece: float
    auroc: float
    curve: tuple[Reliability, ...]


def count(confidence: np.ndarray, right: np.ndarray) -> CalibrationCounts:
    """Counts of confidences (N,) in [0, 1] with whether each statement was right (N,) bool.

    Raises `InputError` for other shapes or values outside [0, 1].
    """
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right, dtype=bool)
    if confidence.ndim != 1 or confidence.shape != right.shape:
        raise InputError(f"calibration: confidence {confidence.shape} and right {right.shape} must both be (N,)")
    if not ((confidence >= 0) & (confidence <= 1)).all():
        raise InputError("calibration: confidence must lie in [0, 1]")
    bins = np.minimum((confidence * FINE_BINS).astype(np.int64), FINE_BINS - 1)

    def histogram(weights: np.ndarray) -> Float64Array:
        return np.asarray(np.bincount(bins, weights=weights.astype(np.float64), minlength=FINE_BINS), dtype=np.float64)

    return CalibrationCounts(histogram(right), histogram(~right), histogram(confidence))


def total(counts: Iterable[CalibrationCounts]) -> CalibrationCounts:
    """The sum of counts; zeros if there are none."""
    result = count(np.zeros(0), np.zeros(0, dtype=bool))
    for own in counts:
        result = result + own
    return result


def calibration(counts: CalibrationCounts, bins: int = CURVE_BINS) -> Calibration:
    """Figures of the counts, with a curve of `bins` equal bins, which must divide `FINE_BINS`; empty bins are left out.

    Raises `InputError` for another number of bins. All NaN if nothing was counted.
    """
    if bins < 1 or FINE_BINS % bins:
        raise InputError(f"calibration: {bins} bins do not divide {FINE_BINS}")
    right, wrong, confidence = (
        part.reshape(bins, -1).sum(axis=1) for part in (counts.right, counts.wrong, counts.confidence)
    )
    number = right + wrong
    if not number.sum() > 0:
        return Calibration(float("nan"), float("nan"), ())
    with np.errstate(invalid="ignore"):
        mean, accuracy = confidence / number, right / number
    curve = tuple(
        Reliability(i / bins, (i + 1) / bins, float(mean[i]), float(accuracy[i]), float(number[i]))
        for i in np.flatnonzero(number)
    )
    ece = float(np.abs(confidence - right).sum() / number.sum())
    return Calibration(ece, _auroc(counts), curve)


def _auroc(counts: CalibrationCounts) -> float:
    """Mann-Whitney: share of pairs (wrong, right) in which the wrong one has less confidence; ties count half."""
    pairs = counts.right.sum() * counts.wrong.sum()
    if not pairs > 0:
        return float("nan")
    below = np.cumsum(counts.wrong) - counts.wrong / 2.0
    return float((counts.right * below).sum() / pairs)
