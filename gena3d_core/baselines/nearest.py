"""The nearest known shape: of a library, the one that fits the partial cloud best, moved, turned and scaled.

Partial Chamfer distance: from the observed points to the shape only, since most of the shape was not seen; what speaks
against a shape is surface in space that cameras proved empty. All shapes start in many poses; the best are aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..errors import InputError
from ..geometry import transforms
from ..geometry import voxels as voxel_ops
from ..geometry.mesh import sample_surface
from ..geometry.similarity import fit_similarity
from ..types import (
    CancelCheck,
    CompletedObject,
    Float64Array,
    ObjectObservation,
    ProgressCallback,
    VoxelGrid,
    check_cancelled,
)
from .clouds import clean_cloud
from .shape_library import YAWS, ShapeLibrary, yaw_rotations

COARSE_POINTS, FINE_POINTS = 64, 400
HEIGHT_SCALES = (1.0, 1.15)
"""Start scales over the one at which the shape is as high as the cloud (down to its support)."""
WIDTH_SCALES = (1.0, 1.25)
"""And over the one at which its longer side is as wide as the cloud's."""
SHAPES_AT_ONCE = 128
ROUNDS = ((300, 6), (60, 10), (16, 10))
"""Candidates kept, and steps of alignment that they get, to the precision of the library's fields."""
EXACT_SAMPLES, EXACT_STEPS = 6000, 20
"""The last ones are aligned to many samples of the shapes themselves, with exact nearest neighbours."""
PER_SHAPE = 3
"""Candidates of one shape that are kept at first."""
CAP = 0.15
"""Distances count up to this share of the cloud's extent."""
EMPTY_COST = 0.3
"""Cost of a shape whose whole surface lies in empty space, in extents."""
MAX_REACH = 1.6
"""Surface farther than this from the middle of the cloud, in extents, along an axis counts as lying in empty space."""
BENEATH = 0.02
"""Surface this far under the support, in extents, counts as lying in empty space."""


@dataclass(frozen=True, eq=False)
class NearestBaseline:
    """Retrieval from a library of shapes, such as those that a generator was trained on."""

    library: ShapeLibrary
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
        """See `ObjectGenerator`; meshes are those of the library, with the similarity that fits them best."""
        completed = []
        for observation in observations:
            check_cancelled(cancelled)
            shape, S_world_shape = self.fit(observation)
            # Colours are those of this object, not of the one in the library.
            mesh = replace(self.library.load(shape), vertex_colors=None)
            completed.append(CompletedObject(observation.id, mesh, S_world_shape))
        return completed

    def fit(self, observation: ObjectObservation) -> tuple[int, Float64Array]:
        """Number of the best shape and its S_world_shape (4, 4). Raises `InputError` for fewer than 10 points."""
        cloud = clean_cloud(observation)
        if len(cloud) < 10:
            raise InputError(f"object {observation.id} has {len(cloud)} observed points, too few to find a shape")
        problem = _Problem.of(observation, cloud)
        shape, S = _start(self.library, problem)
        for kept, steps in ROUNDS:
            cost = problem.cost(self.library, shape, S)
            order = np.argsort(cost, kind="stable")
            if kept == ROUNDS[0][0]:
                order = order[_first_of_each(shape[order], PER_SHAPE)]
            shape, S = shape[order[:kept]], S[order[:kept]]
            S = _aligned(self.library, problem, shape, S, steps)
        exact = [self._exactly(problem, int(own), start) for own, start in zip(shape, S, strict=True)]
        best = int(np.argmin([cost for cost, _ in exact]))
        return int(shape[best]), problem.S_world_frame @ exact[best][1]

    def _exactly(self, problem: _Problem, shape: int, S: np.ndarray) -> tuple[float, Float64Array]:
        """Cost and frame of one shape aligned from frame `S` (4, 4)."""
        samples = sample_surface(self.library.load(shape), EXACT_SAMPLES, np.random.default_rng(shape))[0]
        samples = samples.astype(np.float64)
        tree = cKDTree(samples)

        def nearest(S: np.ndarray) -> tuple[Float64Array, Float64Array]:
            distance, index = tree.query(transforms.apply(transforms.inverse(S), problem.points))
            return samples[index], distance * np.cbrt(np.linalg.det(S[:3, :3]))

        for _ in range(EXACT_STEPS):
            near, distance = nearest(S)
            S = _fitted(near[None], problem.points[None], distance[None], S[None])[0]
        distance = nearest(S)[1]
        return problem.costs(distance[None], samples[None, ::6], S[None])[0], S


@dataclass(frozen=True, eq=False)
class _Problem:
    """A cloud in a frame whose origin and unit are the middle and longest extent of its box, z up.

    points         (M, 3)
    low, high      (3,) box of the cloud, down to the support
    towards        (2,) horizontal unit direction to the cameras, or 0 where they stand around
    """

    points: Float64Array
    low: Float64Array
    high: Float64Array
    towards: Float64Array
    S_world_frame: Float64Array
    free: VoxelGrid | None
    floor: float

    @staticmethod
    def of(observation: ObjectObservation, cloud: np.ndarray) -> _Problem:
        low, high = np.percentile(cloud, [0.5, 99.5], axis=0)
        extent, middle = float((high - low).max()), (low + high) / 2.0
        if not extent > 0:
            raise InputError(f"object {observation.id}: all observed points coincide")
        S_world_frame = transforms.rigid(extent * np.eye(3), middle)
        S_frame_world = transforms.inverse(S_world_frame)
        points = transforms.apply(S_frame_world, np.random.default_rng(0).permutation(cloud)[:FINE_POINTS])
        low, high = (low - middle) / extent, (high - middle) / extent
        floor = -np.inf
        if observation.support is not None and observation.support.normal[2] > 0.9:
            floor = -float(observation.support.height_m(middle)) / extent
            low[2] = floor if 0.0 < low[2] - floor < 1.0 else low[2]
        eyes = np.stack([view.T_world_camera[:3, 3] for view in observation.views])
        directions = transforms.apply(S_frame_world, eyes)[:, :2]
        mean = (directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)).mean(axis=0)
        length = float(np.linalg.norm(mean))
        towards = mean / length if length > 0.5 else np.zeros(2)
        return _Problem(points, low, high, towards, S_world_frame, observation.free_space, floor)

    def cost(self, library: ShapeLibrary, shape: np.ndarray, S: np.ndarray) -> Float64Array:
        """(C,) capped mean distance of the cloud to the shapes, plus what of them lies in empty space."""
        _, distance = _nearest(library, shape, S, self.points)
        return self.costs(distance, library.samples[torch.from_numpy(shape), ::4].numpy().astype(np.float64), S)

    def costs(self, distance: np.ndarray, samples: np.ndarray, S: np.ndarray) -> Float64Array:
        """(C,) the same from distances (C, M) of the cloud and samples (C, P, 3) of the shapes in their frames."""
        cost = np.minimum(distance, CAP).mean(axis=1)
        placed = np.einsum("cij,cnj->cni", S[:, :3, :3], samples) + S[:, None, :3, 3]
        empty = (placed[..., 2] < self.floor - BENEATH) | (np.abs(placed) > MAX_REACH).any(axis=-1)
        if self.free is not None:
            in_world = transforms.apply(self.S_world_frame, placed)
            empty |= voxel_ops.sample_grid(self.free, in_world) == VoxelGrid.FREE
        return np.asarray(cost + EMPTY_COST * empty.mean(axis=1))


def _start(library: ShapeLibrary, problem: _Problem) -> tuple[np.ndarray, Float64Array]:
    """Shapes (C,) and frames S_frame_shape (C, 4, 4) that fit the cloud roughly: the best starts of all shapes."""
    points = torch.from_numpy(problem.points[:COARSE_POINTS].astype(np.float32))
    found: list[tuple[Tensor, np.ndarray, np.ndarray]] = []
    for first in range(0, len(library.ids), SHAPES_AT_ONCE):
        numbers = np.arange(first, min(first + SHAPES_AT_ONCE, len(library.ids)))
        shape, S = _candidates(library, numbers, problem)
        inverse = torch.from_numpy(transforms.inverse(S).astype(np.float32))
        local = torch.einsum("cij,nj->cni", inverse[:, :3, :3], points) + inverse[:, None, :3, 3]
        gap = (library.nearest_points(torch.from_numpy(shape), local) - local).square().sum(-1).sqrt()
        scale = torch.from_numpy(np.cbrt(np.linalg.det(S[:, :3, :3])).astype(np.float32))
        found.append(((gap * scale[:, None]).clamp_max(CAP).mean(dim=1), shape, S))
    cost = torch.cat([part[0] for part in found]).numpy()
    shape, S = np.concatenate([part[1] for part in found]), np.concatenate([part[2] for part in found])
    best = np.argsort(cost, kind="stable")[: 4 * ROUNDS[0][0]]
    return shape[best], S[best]


def _candidates(library: ShapeLibrary, numbers: np.ndarray, problem: _Problem) -> tuple[np.ndarray, Float64Array]:
    """Every shape in every yaw and start scale, once behind the middle of the cloud's box and once around it."""
    R, (low, high) = yaw_rotations(), np.moveaxis(library.boxes[numbers], 2, 0)
    size, wanted = np.maximum(high - low, 1e-3), np.maximum(problem.high - problem.low, 1e-3)
    by_height = wanted[2] / size[..., 2]
    by_width = wanted[:2].max() / size[..., :2].max(axis=-1)
    scale = np.stack([by_height * s for s in HEIGHT_SCALES] + [by_width * s for s in WIDTH_SCALES], axis=-1)
    middle = (low + high)[..., None, :] / 2.0 * scale[..., None]
    target = np.broadcast_to((problem.low + problem.high) / 2.0, middle.shape).copy()
    # Standing where the cloud stands.
    target[..., 2] = problem.low[2] + (middle - low[..., None, :] * scale[..., None])[..., 2]
    # What was seen is the near side: the shape's near side goes where the cloud's is, the rest behind it.
    surplus = np.maximum(size[..., None, :2] * scale[..., None] - wanted[:2], 0.0) / 2.0
    behind = target.copy()
    behind[..., :2] -= problem.towards * (surplus @ np.abs(problem.towards))[..., None]
    place = np.stack([target, behind], axis=-2) - middle[..., None, :]
    count = len(numbers), YAWS, scale.shape[-1], 2
    S = np.tile(np.eye(4), (*count, 1, 1))
    S[..., :3, :3] = scale[..., None, None, None] * R[None, :, None, None]
    S[..., :3, 3] = place
    shape = np.broadcast_to(numbers[:, None, None, None], count)
    return shape.reshape(-1).astype(np.int64), S.reshape(-1, 4, 4)


def _nearest(
    library: ShapeLibrary, shape: np.ndarray, S: np.ndarray, points: np.ndarray
) -> tuple[Float64Array, Float64Array]:
    """Nearest samples (C, M, 3) in the shapes' frames to points (M, 3), and their distances (C, M) to them."""
    inverse = transforms.inverse(S)
    local = np.einsum("cij,nj->cni", inverse[:, :3, :3], points) + inverse[:, None, :3, 3]
    near = library.nearest_points(torch.from_numpy(shape), torch.from_numpy(local.astype(np.float32)))
    samples = near.numpy().astype(np.float64)
    scale = np.cbrt(np.linalg.det(S[:, :3, :3]))
    return samples, np.linalg.norm(samples - local, axis=2) * scale[:, None]


def _aligned(library: ShapeLibrary, problem: _Problem, shape: np.ndarray, S: np.ndarray, steps: int) -> Float64Array:
    """The frames after steps of nearest points and upright similarity fits."""
    points = np.broadcast_to(problem.points, (len(S), *problem.points.shape))
    for _ in range(steps):
        samples, distance = _nearest(library, shape, S, problem.points)
        S = _fitted(samples, points, distance, S)
    return S


def _fitted(samples: np.ndarray, points: np.ndarray, distance: np.ndarray, S: np.ndarray) -> Float64Array:
    """Upright similarities (C, 4, 4) from samples to points (C, M, 3), of the nearer pairs; `S` where there is none."""
    limit = np.quantile(distance, 0.9, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        fitted = fit_similarity(samples, points, (distance <= limit).astype(np.float64), upright=True)
    usable = np.isfinite(fitted).all(axis=(1, 2)) & (np.linalg.det(np.nan_to_num(fitted[:, :3, :3])) > 1e-9)
    return np.where(usable[:, None, None], fitted, S)


def _first_of_each(shape: np.ndarray, count: int) -> np.ndarray:
    """Places in `shape` (C,) of the first `count` of every value, in order."""
    order = np.argsort(shape, kind="stable")
    ordered = shape[order]
    start = np.searchsorted(ordered, ordered)
    rank = np.arange(len(shape)) - start
    return np.sort(order[rank < count])
