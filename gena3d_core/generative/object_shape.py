"""From the samples of one object to its shape: consistent with what was seen, calibrated, as a mesh."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..geometry import transforms
from ..meshing.measured_surface import Measured, pull_to_measured, rest_on_plane
from ..meshing.occupancy_surface import surface_from_logits
from ..types import Float32Array, Mesh, ObjectObservation, require_shape
from .consistency import Evidence, disagreement, make_consistent
from .hypotheses import most_typical, occupancy_probability

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


def shape_of_samples(samples: np.ndarray, evidence: Evidence | None) -> ObjectShape:
    """The shape of the samples (H, R, R, R), calibrated logits; consistent with `evidence`, where there is some.

    Raises `EmptyResultError` if nothing is occupied.
    """
    probability = occupancy_probability(samples)
    if evidence is None:
        kept = most_typical(samples > 0)
        return ObjectShape(np.asarray(samples[kept], dtype=np.float32), kept, probability)
    consistent = np.stack([make_consistent(sample, evidence) for sample in samples])
    kept = most_typical(consistent > 0)
    before, after = disagreement(samples[kept] > 0, evidence), disagreement(consistent[kept] > 0, evidence)
    return ObjectShape(
        consistent[kept],
        kept,
        np.where(evidence.empty, np.float32(0.0), probability),
        {**before.residuals("before"), **after.residuals("after")},
    )


def shape_mesh(
    shape: ObjectShape, observation: ObjectObservation, S_world_grid: np.ndarray, evidence: Evidence | None
) -> Mesh:
    """Closed mesh of the shape in the grid frame; with evidence, drawn to the measured points and the support."""
    mesh = surface_from_logits(shape.logits)
    if evidence is None:
        return mesh
    voxel = 1.0 / len(shape.logits)
    mesh = pull_to_measured(mesh, measured_in_grid(observation, S_world_grid, evidence), voxel)
    if observation.support is None:
        return mesh
    return rest_on_plane(mesh, observation.support, S_world_grid, REST_VOXELS * voxel)


def measured_in_grid(observation: ObjectObservation, S_world_grid: np.ndarray, evidence: Evidence) -> Measured:
    """The observed points in observed voxels and the directions from them to their cameras, in the grid frame."""
    require_shape(f"point_view of object {observation.id}", observation.point_view, (len(observation.points_m),))
    S_grid_world = transforms.inverse(S_world_grid)
    points = transforms.apply(S_grid_world, observation.points_m.astype(np.float64))
    eyes_m = np.stack([view.T_world_camera[:3, 3] for view in observation.views])
    eyes = transforms.apply(S_grid_world, eyes_m.astype(np.float64))[observation.point_view]
    R = len(evidence.surface)
    index = np.floor((np.nan_to_num(points, nan=-1.0) + 0.5) * R).astype(np.int64)
    inside = ((index >= 0) & (index < R)).all(axis=1)
    i, j, k = np.where(inside[:, None], index, 0).T
    kept = inside & evidence.surface[i, j, k]
    towards = eyes[kept] - points[kept]
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    return Measured(points[kept], np.divide(towards, length, out=np.zeros_like(towards), where=length > 0))
