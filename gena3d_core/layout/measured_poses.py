"""Poses that cameras measured of generated assets: each mesh registered to the points that were seen of its object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry.similarity import SimilarityEstimate
from ..types import CompletedObject, ObjectObservation
from .registration import SimilarityFit, register_similarity

MIN_INLIERS = 0.6
"""A registration with fewer points on the mesh has not found the object."""
BETTER = 0.6
"""A pose found without the layout replaces the refined one if it leaves at most this share of its residual."""
SHARE_SIGMA, ANGLE_SIGMA, LOG_SCALE_SIGMA = 0.03, 0.15, 0.08
"""What a generated shape, seen from one side, leaves open: places in sizes of the object, radians, logarithm."""


def measured_poses(
    assets: Sequence[CompletedObject],
    predicted: Sequence[SimilarityEstimate],
    observations: Mapping[int, ObjectObservation],
    *,
    upright: bool = True,
) -> dict[int, SimilarityEstimate]:
    """`S_world_grid` by object id, of the assets whose registration came out; their meshes are in grid frames.

    predicted: where the layout puts each asset, from which the registration starts; where searching every direction
    fits much better, that is believed. observations by id. upright: the grids stand upright.
    """
    found = {}
    for asset, pose in zip(assets, predicted, strict=True):
        observation = observations.get(asset.id)
        if observation is None:
            continue
        up = np.array([0.0, 0.0, 1.0]) if observation.support is None else observation.support.normal
        try:
            near = register_similarity(asset.mesh, observation.points_m, up=up, upright=upright, start=pose.S)
            anywhere = register_similarity(asset.mesh, observation.points_m, up=up, upright=upright)
        except InputError:
            continue  # too few points to measure a pose by: the layout alone tells it
        fit = anywhere if anywhere.rmse_m < BETTER * near.rmse_m else near
        if fit.inlier_share >= MIN_INLIERS:
            found[asset.id] = SimilarityEstimate(fit.S_world_mesh, _covariance(asset, fit))
    return found


def _covariance(asset: CompletedObject, fit: SimilarityFit) -> np.ndarray:
    low, high = mesh_ops.bounds(asset.mesh)
    sigma_m = float(np.hypot(fit.rmse_m, SHARE_SIGMA * fit.scale * float((high - low).max())))
    return np.diag([sigma_m**2] * 3 + [ANGLE_SIGMA**2] * 3 + [LOG_SCALE_SIGMA**2])
