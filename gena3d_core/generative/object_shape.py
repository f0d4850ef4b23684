"""From the samples of one object to its shape: consistent with what was seen, calibrated, as a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.special import logit

from ..meshing.occupancy_surface import surface_from_logits
from ..meshing.resting import rest_on_plane
from ..types import CompletedObject, Float32Array, Mesh, OccupancyEstimate, SupportPlane
from .consistency import Evidence, disagreement, make_consistent
from .hypotheses import ChanceCurve, most_typical, occupancy_probability, with_confidence

FILLED_FROM = 0.32
"""Chance from which on a sample's voxel is part of the shape. Where little is certain, the most likely state of each
voxel by itself makes shapes too thin: the level that gives sets the best F-measure is half of that measure (Lipton et
al. 2014). Chosen on held-out training objects, between what is best for F-scores (0.38) and for IoU (0.2)."""
REST_VOXELS = 1.0
"""What sinks into the support plane by at most so many voxels ends on it."""


@dataclass(frozen=True, eq=False)
class ObjectShape:
    """What the samples of one object come to.

    logits       (R, R, R) float32 of the sample that is shown, positive inside
    kept         its number
    probability  (R, R, R) float32 in [0, 1] that a voxel is occupied, of all samples together
    residuals    `free_space_violation_before`, `.._after`, `observed_coverage_before`, `.._after`, as far as known
    """

    logits: Float32Array
    kept: int
    probability: Float32Array
    residuals: Mapping[str, float] = field(default_factory=dict)


def shape_of_samples(samples: np.ndarray, evidence: Evidence | None, chances: ChanceCurve | None = None) -> ObjectShape:
    """The shape of the samples (H, R, R, R), calibrated logits; consistent with `evidence`, where there is some.

    chances: what the share of samples that fill a voxel means; None: it is the chance.

    With evidence, its logits are positive where the chance is above `FILLED_FROM`; grids without a place in the world
    are those of published networks, whose surface is at 0. Raises `EmptyResultError` if nothing is occupied.
    """
    probability = (chances or ChanceCurve())(occupancy_probability(samples))
    if evidence is None:
        kept = most_typical(samples > 0)
        return ObjectShape(np.asarray(samples[kept], dtype=np.float32), kept, probability)
    samples = samples - np.float32(logit(FILLED_FROM))
    consistent = np.stack([make_consistent(sample, evidence) for sample in samples])
    kept = most_typical(consistent > 0)
    before, after = disagreement(samples[kept] > 0, evidence), disagreement(consistent[kept] > 0, evidence)
    return ObjectShape(
        consistent[kept],
        kept,
        np.where(evidence.empty, np.float32(0.0), probability),
        {**before.residuals("before"), **after.residuals("after")},
    )


def shape_mesh(shape: ObjectShape, support: SupportPlane | None, S_world_grid: np.ndarray) -> Mesh:
    """Closed mesh of the shape in the grid frame; what sinks into `support` by less than a voxel ends on it."""
    mesh = surface_from_logits(shape.logits)
    if support is None:
        return mesh
    return rest_on_plane(mesh, support, S_world_grid, REST_VOXELS / len(shape.logits))


def completed_object(
    number: int,
    mesh: Mesh,
    shape: ObjectShape,
    evidence: Evidence | None = None,
    S_world_grid: np.ndarray | None = None,
) -> CompletedObject:
    """Object `number` of `mesh` (grid frame) with its confidence; without evidence its grid is nowhere in the world."""
    mesh = with_confidence(mesh, shape.probability, None if evidence is None else evidence.surface)
    S_world_mesh = None if evidence is None else S_world_grid
    estimate = OccupancyEstimate(shape.probability, S_world_mesh)
    return CompletedObject(number, mesh, S_world_mesh, shape.residuals, estimate)
