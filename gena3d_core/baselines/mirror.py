"""Completion by mirror symmetry: the observed surface and its image in the best upright plane.

Most things people make have a plane of symmetry that is upright as they stand. The plane is found as in Bohg et al.,
"Mind the gap" (ICRA 2011): mirrored points should fall on the observed surface or where no camera could see, never
where cameras saw through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from ..geometry import camera
from ..geometry.mesh import concatenate, select_faces
from ..observed import ObservedSurface
from ..types import (
    BoolArray,
    CancelCheck,
    CompletedObject,
    Float64Array,
    Mesh,
    ObjectObservation,
    ProgressCallback,
    View,
    check_cancelled,
)
from .clouds import camera_normals, clean_cloud

POINTS = 400
YAWS, OFFSETS = 36, 15
ROUNDS = 2
"""Times that the search is refined around its best planes, each time four times as finely."""
KEPT = 6
MATCH = 0.04
"""Mirrored points match observed ones within this share of the cloud's longest extent, with like normals."""
SEEN_THROUGH = 0.02
"""They are impossible this share of it in front of a measured depth (but at least 5 mm)."""
IMPOSSIBLE_COST, UNSEEN_COST = 2.0, 0.2
MIN_SCORE = 0.05
"""A plane that scores less is no symmetry: then the observed surface alone is the answer."""


@dataclass(frozen=True)
class MirrorPlane:
    """Points p with normal · p = offset_m; normal (3,) is horizontal. score: per point, 1 would be a perfect match."""

    normal: Float64Array
    offset_m: float
    score: float

    def mirrored(self, points: np.ndarray) -> Float64Array:
        """Images of points (..., 3)."""
        distance = points @ self.normal - self.offset_m
        return np.asarray(points - 2.0 * distance[..., None] * self.normal)


@dataclass(frozen=True)
class MirrorBaseline:
    """The observed surface with its mirror image, less of it what cameras saw through."""

    deterministic = True

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """See `ObjectGenerator`; meshes are in world metres."""
        completed = []
        for observation in observations:
            check_cancelled(cancelled)
            completed.append(CompletedObject(observation.id, self._complete(observation), np.eye(4)))
        return completed

    def _complete(self, observation: ObjectObservation) -> Mesh:
        surface = ObservedSurface().surface(observation)
        plane = find_plane(observation)
        if plane is None or not len(surface.faces):
            return surface
        image = plane.mirrored(surface.vertices.astype(np.float64)).astype(np.float32)
        extent_m = float(np.ptp(surface.vertices, axis=0).max())
        impossible = seen_through(image, observation.views, max(0.005, SEEN_THROUGH * extent_m))
        observed = None if surface.vertex_observed is None else np.zeros(len(image), dtype=bool)
        other = replace(surface, vertices=image, faces=surface.faces[:, ::-1].copy(), vertex_observed=observed)
        return concatenate([surface, select_faces(other, np.asarray(~impossible[other.faces].any(axis=1)))])


def find_plane(observation: ObjectObservation) -> MirrorPlane | None:
    """The upright plane in which the observed points are most symmetric; None if none explains them."""
    points = clean_cloud(observation)
    points = points[np.random.default_rng(0).permutation(len(points))[: 4 * POINTS]]
    eyes = np.stack([view.T_world_camera[:3, 3] for view in observation.views])
    # Which camera saw a point matters for the side of its normal only: the nearest one will do.
    nearest = np.linalg.norm(points[:, None] - eyes, axis=2).argmin(axis=1)
    normals = camera_normals(points, eyes[nearest])
    judge = _Judge(points, normals, observation.views, float(np.ptp(points, axis=0).max()), cKDTree(points))
    yaw = np.arange(YAWS) * (np.pi / YAWS)
    yaw_step, share_step = np.pi / YAWS, 1.0 / (OFFSETS - 1)
    shares = np.linspace(0.0, 1.0, OFFSETS)
    candidates = np.stack(np.meshgrid(yaw, shares, indexing="ij"), axis=-1).reshape(-1, 2)
    scores = judge.scores(candidates)
    for _ in range(ROUNDS):
        best = candidates[np.argsort(-scores)[:KEPT]]
        yaw_step, share_step = yaw_step / 4.0, share_step / 4.0
        around = np.stack(np.meshgrid(np.arange(-2, 3), np.arange(-2, 3), indexing="ij"), axis=-1).reshape(-1, 2)
        candidates = (best[:, None] + around * (yaw_step, share_step)).reshape(-1, 2)
        scores = judge.scores(candidates)
    top = int(scores.argmax())
    if not scores[top] > MIN_SCORE:
        return None
    normal, offset = judge.planes(candidates[top : top + 1])
    return MirrorPlane(normal[0], float(offset[0]), float(scores[top]))


@dataclass(frozen=True, eq=False)
class _Judge:
    """How symmetric a cloud is in planes given as (yaw of the normal, place along it from end to end of the cloud)."""

    points: Float64Array
    normals: Float64Array
    views: Sequence[View]
    extent_m: float
    tree: cKDTree

    def planes(self, candidates: np.ndarray) -> tuple[Float64Array, Float64Array]:
        """Normals (C, 3) and offsets (C,)."""
        yaw, share = candidates.T
        normal = np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], axis=1)
        along = self.points @ normal.T
        low, high = along.min(axis=0), along.max(axis=0)
        return normal, low + share * (high - low)

    def scores(self, candidates: np.ndarray) -> Float64Array:
        """(C,) mean over points of: 1 for a perfect match, falling to 0, less what is impossible or unproven."""
        normal, offset = self.planes(candidates)
        points, normals = self.points[:POINTS], self.normals[:POINTS]
        distance = normal @ points.T - offset[:, None]
        image = points - 2.0 * distance[..., None] * normal[:, None]
        turned = normals - 2.0 * (normal @ normals.T)[..., None] * normal[:, None]
        reach = MATCH * self.extent_m
        gap, index = self.tree.query(image, distance_upper_bound=reach)
        found = np.isfinite(gap)
        alike = np.einsum("cni,cni->cn", turned, self.normals[np.where(found, index, 0)]) > 0.7
        matched = np.where(found & alike, 1.0 - np.where(found, gap, reach) / reach, 0.0)
        impossible = seen_through(image.reshape(-1, 3), self.views, max(0.005, SEEN_THROUGH * self.extent_m)).reshape(
            gap.shape
        )
        unproven = ~impossible & (matched == 0)
        return np.asarray((matched - IMPOSSIBLE_COST * impossible - UNSEEN_COST * unproven).mean(axis=1))


def seen_through(points_m: np.ndarray, views: Sequence[View], margin_m: float) -> BoolArray:
    """(N,) bool: world points (N, 3) that some depth image measures more than `margin_m` behind."""
    result = np.zeros(len(points_m), dtype=bool)
    for view in views:
        if view.depth_m is None:
            continue
        rows, cols, depth, inside = camera.pixel_index(points_m, view)
        with np.errstate(invalid="ignore"):
            result |= inside & (view.depth_m[rows, cols] > depth + margin_m)
    return result
