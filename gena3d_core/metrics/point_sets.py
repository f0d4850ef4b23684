"""Sets of shapes as point clouds: farthest-point samples, Minimum Matching Distance and Coverage.

Source: Achlioptas et al. 2018; GENA3D A.3 (Chamfer distance, 4096 farthest-point samples of each shape).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import InputError
from ..types import Float32Array, Float64Array, require_shape

FPS_POINTS = 4096
FIELD_RESOLUTION = 48
FIELD_MARGIN = 0.25
"""The field of distances reaches so far beyond the box of its cloud, in longest sides."""

ROUNDING = 1e-4
"""Cells by which lower bounds are lowered, because they are kept in single precision."""


def farthest_points(points: Tensor, count: int) -> Tensor:
    """(B, count) int64 indices of points (B, N, 3): each is the one farthest from those before it, the first is 0.

    Raises `InputError` for fewer points than asked for.
    """
    if points.ndim != 3 or points.shape[-1] != 3 or not 1 <= count <= points.shape[1]:
        raise InputError(f"farthest points: {count} of points of shape {tuple(points.shape)}; want (B, N >= count, 3)")
    batch = len(points)
    squares = (points**2).sum(dim=2)[:, None]
    # |p - q|^2 = |p|^2 + (-2 q, |q|^2) (p, 1): one product a step, since calls cost more than arithmetic here.
    ahead = torch.cat([points.transpose(1, 2), torch.ones_like(squares)], dim=1)
    behind = torch.cat([-2.0 * points, squares.transpose(1, 2)], dim=2)
    chosen = torch.zeros(batch, 1, count, dtype=torch.int64, device=points.device)
    distance = torch.full_like(squares, torch.inf)
    last = chosen[:, :, 0]
    for step in range(1, count):
        own = behind.gather(1, last[:, :, None].expand(batch, 1, 4))
        torch.minimum(distance, torch.baddbmm(squares, own, ahead), out=distance)
        last = distance.max(dim=2).indices
        chosen[:, :, step] = last
    return chosen[:, 0]


def thinned(points: np.ndarray, count: int = FPS_POINTS) -> Float32Array:
    """(count, 3) float32 farthest-point sample of points (N, 3)."""
    cloud = torch.from_numpy(np.ascontiguousarray(points, dtype=np.float32))
    return np.asarray(cloud[farthest_points(cloud[None], count)[0]].numpy())


@dataclass(frozen=True)
class SetScores:
    """mmd: mean over the references of the least distance to a generated shape; cov: share of the references that are
    nearest to some generated shape. Distances: mean squared nearest distance one way plus the same back. NaN and 0 for
    an empty set of generated shapes."""

    mmd: float
    cov: float


def set_scores(generated: Sequence[np.ndarray], references: Sequence[np.ndarray]) -> SetScores:
    """MMD and COV of clouds (N_i, 3), all in one unit frame. Raises `InputError` without references.

    Exact; pairs of which a lower bound shows that they are nobody's nearest are not computed.
    """
    if not references:
        raise InputError("MMD and COV need at least one reference shape")
    if not generated:
        return SetScores(float("nan"), 0.0)
    ours, theirs = [_Cloud.of(points) for points in generated], [_Cloud.of(points) for points in references]
    bound = np.array([[_lower_bound(a, b) for b in theirs] for a in ours])
    distance = np.full(bound.shape, np.inf)
    for row, column in zip(*np.unravel_index(bound.argsort(axis=None, kind="stable"), bound.shape), strict=True):
        if bound[row, column] < max(distance[row].min(), distance[:, column].min()):
            distance[row, column] = squared_chamfer(ours[row], theirs[column])
    matched = np.unique(distance.argmin(axis=1))
    return SetScores(float(distance.min(axis=0).mean()), len(matched) / len(references))


@dataclass(frozen=True, eq=False)
class _Cloud:
    """Points with a tree and a coarse field of lower bounds of the distance to them."""

    points: Float64Array
    tree: cKDTree
    origin: Float64Array
    cell: float
    field: Float32Array

    @staticmethod
    def of(points: np.ndarray) -> _Cloud:
        require_shape("cloud", points, (None, 3))
        if not len(points) or not np.isfinite(points).all():
            raise InputError("clouds to compare must hold points, all finite")
        points = np.asarray(points, dtype=np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        side = max(float((high - low).max()), 1e-9) * (1.0 + 2.0 * FIELD_MARGIN)
        origin, cell = (low + high) / 2.0 - side / 2.0, side / FIELD_RESOLUTION
        empty = np.ones((FIELD_RESOLUTION,) * 3, dtype=bool)
        empty[tuple(np.clip((points - origin) / cell, 0, FIELD_RESOLUTION - 1).astype(np.intp).T)] = False
        # From a centre to the nearest centre of an occupied cell, whose point is at most half a diagonal off.
        field = (ndimage.distance_transform_edt(empty) - np.sqrt(3.0) / 2.0 - ROUNDING) * cell
        return _Cloud(points, cKDTree(points), origin, cell, field.astype(np.float32))

    def at_least(self, points: Float64Array) -> Float64Array:
        """(N,) lower bounds of the distances from points (N, 3) to the cloud."""
        place = (points - self.origin) / self.cell
        index = np.clip(place, 0, FIELD_RESOLUTION - 1).astype(np.intp)
        to_center = np.linalg.norm(place - index - 0.5, axis=1) * self.cell
        return np.maximum(self.field[tuple(index.T)] - to_center, 0.0)


def _lower_bound(one: _Cloud, other: _Cloud) -> float:
    return float((other.at_least(one.points) ** 2).mean() + (one.at_least(other.points) ** 2).mean())


def squared_chamfer(one: _Cloud, other: _Cloud) -> float:
    """Mean squared nearest distance one way plus the mean back."""
    return float((other.tree.query(one.points)[0] ** 2).mean() + (one.tree.query(other.points)[0] ** 2).mean())
