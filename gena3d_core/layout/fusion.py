"""Two estimates of an object's similarity to the world, from the relative layout and from measurement, as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import similarity
from ..geometry.similarity import SimilarityEstimate
from ..types import Float64Array

FLOOR = np.array([1e-6] * 3 + [1e-5] * 3 + [1e-6]) ** 2
"""Least variance that an estimate can have: exact ones must not make the sum of two covariances singular."""


@dataclass(frozen=True)
class FusionLimits:
    """Disagreement beyond which the two estimates are of different things, and the measured one wins alone."""

    max_shift: float = 0.5
    """Of the places, as a share of the measured size."""
    max_angle_deg: float = 30.0
    max_ratio: float = 1.3
    """Of the sizes, the larger over the smaller."""


@dataclass(frozen=True)
class Disagreement:
    """How far two estimates lie apart: metres, degrees, ratio of the sizes (>= 1).

    deviations: the same difference in standard deviations of its covariance (Mahalanobis); about 2.6 is expected.
    """

    shift_m: float
    angle_deg: float
    ratio: float
    deviations: float


@dataclass(frozen=True, eq=False)
class FusedPose:
    """`S_world_object` with covariance; `source` is "both", "measured" or "layout". disagreement: None with one."""

    estimate: SimilarityEstimate
    source: str
    disagreement: Disagreement | None = None


def disagreement(predicted: SimilarityEstimate, measured: SimilarityEstimate) -> Disagreement:
    """How far the predicted similarity lies from the measured one."""
    change = similarity.change_between(measured.S, predicted.S)
    total = predicted.covariance + measured.covariance + np.diag(FLOOR)
    return Disagreement(
        shift_m=float(np.linalg.norm(change[:3])),
        angle_deg=float(np.degrees(np.linalg.norm(change[3:6]))),
        ratio=float(np.exp(abs(change[6]))),
        deviations=float(np.sqrt(change @ np.linalg.solve(total, change))),
    )


def fuse(predicted: SimilarityEstimate, measured: SimilarityEstimate, limits: FusionLimits | None = None) -> FusedPose:
    """The mean weighted by the inverse covariances, or the measured estimate where the two disagree beyond `limits`.

    Both are similarities of the same frame of the object. The covariance of the mean takes their errors as independent.
    """
    limits = limits or FusionLimits()
    apart = disagreement(predicted, measured)
    size_m = float(similarity.parts(measured.S)[2])
    if (
        apart.shift_m > limits.max_shift * size_m
        or apart.angle_deg > limits.max_angle_deg
        or (apart.ratio > limits.max_ratio)
    ):
        return FusedPose(measured, "measured", apart)
    P, Q = (e.covariance + np.diag(FLOOR) for e in (predicted, measured))
    gain = np.linalg.solve(P + Q, Q).T  # Q (P + Q)^-1: share of the difference that the prediction is given
    S = similarity.changed(measured.S, gain @ similarity.change_between(measured.S, predicted.S))
    # Joseph's form keeps the covariance symmetric and positive.
    rest = np.eye(7) - gain
    covariance: Float64Array = rest @ Q @ rest.T + gain @ P @ gain.T
    return FusedPose(SimilarityEstimate(S, 0.5 * (covariance + covariance.T)), "both", apart)


def fuse_objects(
    predicted: Mapping[int, SimilarityEstimate],
    measured: Mapping[int, SimilarityEstimate],
    limits: FusionLimits | None = None,
) -> tuple[dict[int, FusedPose], list[str]]:
    """Fused poses by object id, and a warning for each object whose two estimates disagree.

    Objects that only one side knows keep its estimate. Raises `InputError` if no side knows any.
    """
    if not predicted and not measured:
        raise InputError("fusion of poses needs at least one object")
    fused, warnings = {}, []
    for number in sorted({*predicted, *measured}):
        if number not in measured:
            fused[number] = FusedPose(predicted[number], "layout")
        elif number not in predicted:
            fused[number] = FusedPose(measured[number], "measured")
        else:
            fused[number] = fuse(predicted[number], measured[number], limits)
            apart = fused[number].disagreement
            if fused[number].source == "measured" and apart is not None:
                warnings.append(
                    f"object {number}: layout and measurement disagree by {apart.shift_m * 100:.1f} cm, "
                    f"{apart.angle_deg:.0f} degrees and a factor of {apart.ratio:.2f} in size; the measured one is used"
                )
    return fused, warnings
