"""Figures of one completed object against its true shape and against what the views measured of it.

Lengths are shares of the longest side of the true object, so that objects of all sizes count alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..geometry import mesh as mesh_ops
from ..geometry.solid_voxelization import is_solid, solid_occupancy
from ..stereo.carving import carve_free_space
from ..types import BoolArray, Float32Array, Float64Array, Mesh, ObjectObservation, OccupancyEstimate, VoxelGrid
from .calibration import CalibrationCounts, count
from .geometry import f_score
from .point_sets import FPS_POINTS, thinned
from .rendering import visible_scores, with_colors
from .surface_distance import MeasuredSurface
from .visibility import free_space_violation, observed_coverage, seen_points
from .voxels import longest_side, true_occupancy, voxel_iou

SAMPLES = 10_000
"""Points of each surface whose distances are taken."""
SEEN_TOLERANCE = 0.01
CARVING_RESOLUTION = 64
CARVING_MARGIN = 0.25
"""Where an observation brings no free space, a cube larger than the object by this on each side is carved."""
QUESTIONABLE = 0.01
"""Voxels with less probability to be full are taken as empty beyond question: they are most of every grid."""
EMPTY_DISTANCE = 1.0
"""How far the nearest surface counts to be where there is none: one longest side."""


@dataclass(frozen=True, eq=False)
class TrueObject:
    """The true shape of one example, measured once for all methods.

    mesh        world, metres; closed
    seen        (N,) bool: which of `points` (N, 3), spread over the surface, the views show
    cloud       (4096, 3) farthest-point sample in the unit frame: centre of the box 0, longest side 1; None if not
                asked for
    occupancy   voxels that it takes up (`voxels.true_occupancy`)
    free_space  what the views prove empty
    """

    mesh: Mesh
    observation: ObjectObservation
    side_m: float
    center_m: Float64Array
    surface: MeasuredSurface
    points: Float32Array
    normals: Float64Array
    seen: BoolArray
    cloud: Float32Array | None
    occupancy: BoolArray
    free_space: VoxelGrid | None

    @staticmethod
    def measure(mesh: Mesh, observation: ObjectObservation, seed: int = 0, *, with_cloud: bool = True) -> TrueObject:
        """with_cloud: whether sets of shapes will be compared. Raises `InputError` for a mesh without area."""
        low, high = mesh_ops.bounds(mesh)
        center_m, side_m = (low + high) / 2.0, longest_side(mesh)
        surface = MeasuredSurface.of(mesh, seed=seed)
        points, normals, _ = surface.sample(SAMPLES, seed + 1)
        seen = seen_points(
            mesh, points, observation.views, observation.visible_masks, tolerance_m=SEEN_TOLERANCE * side_m
        )
        free = observation.free_space or _carved(observation, center_m, side_m)
        cloud = unit_cloud(mesh, center_m, side_m, seed) if with_cloud else None
        return TrueObject(
            mesh, observation, side_m, center_m, surface, points, normals, seen, cloud, true_occupancy(mesh), free
        )


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """What one method made of one example. NaN: does not apply.

    iou                   of voxels, 64 along the longest side
    chamfer               mean distance to the true surface plus mean distance back
    f1, f2                F-scores at 1 % and 2 %; precision2, recall2 their parts at 2 %
    normal_consistency    mean |cosine| between normals of nearest points, both ways
    seen_error, unseen_error    mean distance from the seen, unseen part of the true surface to the result
    seen_recall, unseen_recall  share of those parts within 2 % of the result
    free_space_violation  share of the result's voxels that cameras proved empty
    observed_coverage     share of the measured points that lie on the result
    psnr, ssim            of renderings against the views, where the object is visible
    seconds               that the method took
    failed                it gave nothing; counts as an empty result
    cloud                 (4096, 3) farthest-point sample in the unit frame of the true object, None if failed or if
                          the truth has none
    surface_confidence    counts of the vertices' confidence as probability to lie within 2 % of the true surface
    voxel_confidence      counts of the probability that voxels are full or empty, as the generator says; of those that
                          it gives a chance of at least 1 % to be full
    missed                share of the true object's voxels to which it gives less
    """

    iou: float
    chamfer: float
    f1: float
    f2: float
    precision2: float
    recall2: float
    normal_consistency: float
    seen_error: float
    unseen_error: float
    seen_recall: float
    unseen_recall: float
    free_space_violation: float
    observed_coverage: float
    psnr: float
    ssim: float
    seconds: float
    failed: bool
    cloud: Float32Array | None
    surface_confidence: CalibrationCounts | None
    voxel_confidence: CalibrationCounts | None
    missed: float


def score_object(
    result: Mesh | None,
    truth: TrueObject,
    seconds: float,
    *,
    occupancy: OccupancyEstimate | None = None,
    seed: int = 0,
) -> ObjectScores:
    """Scores of a result (world, metres) against the truth of the same example; None or no area: failed.

    occupancy: what the generator says of the voxels of its grid, placed in the world.
    """
    if result is None or not len(result.faces) or not mesh_ops.area(result) > 0:
        return _failure(truth, seconds)
    surface = MeasuredSurface.of(result, seed=seed + 2)
    points, normals, faces = surface.sample(SAMPLES, seed + 3)
    forward, face_of_truth = truth.surface.nearest(points)
    backward, face_of_result = surface.nearest(truth.points)
    forward, backward = forward / truth.side_m, backward / truth.side_m
    ahead = np.abs(np.einsum("ni,ni->n", normals, truth.surface.normals[face_of_truth])).mean()
    back = np.abs(np.einsum("ni,ni->n", truth.normals, surface.normals[face_of_result])).mean()
    precision, recall = ([float((d < limit).mean()) for limit in (0.01, 0.02)] for d in (forward, backward))
    images = visible_scores(with_colors(result, truth.observation), truth.observation)
    voxels, missed = _voxel_confidence(occupancy, truth)
    return ObjectScores(
        iou=voxel_iou(result, truth.mesh, known=truth.occupancy),
        chamfer=float(forward.mean() + backward.mean()),
        f1=f_score(precision[0], recall[0]),
        f2=f_score(precision[1], recall[1]),
        precision2=precision[1],
        recall2=recall[1],
        normal_consistency=float(ahead + back) / 2.0,
        seen_error=_mean(backward[truth.seen]),
        unseen_error=_mean(backward[~truth.seen]),
        seen_recall=_mean(backward[truth.seen] < 0.02),
        unseen_recall=_mean(backward[~truth.seen] < 0.02),
        free_space_violation=_violation(result, truth),
        observed_coverage=observed_coverage(surface, truth.observation, truth.side_m),
        psnr=images.psnr,
        ssim=images.ssim,
        seconds=seconds,
        failed=False,
        cloud=None if truth.cloud is None else unit_cloud(result, truth.center_m, truth.side_m, seed),
        surface_confidence=_surface_confidence(result, points, faces, forward < 0.02),
        voxel_confidence=voxels,
        missed=missed,
    )


def unit_cloud(mesh: Mesh, center_m: np.ndarray, side_m: float, seed: int = 0) -> Float32Array:
    """(4096, 3) farthest-point sample of a mesh in the frame in which `center_m` (3,) is 0 and `side_m` is 1."""
    points, _ = mesh_ops.sample_surface(mesh, 2 * FPS_POINTS, np.random.default_rng(seed))
    return thinned((points - center_m) / side_m)


def _failure(truth: TrueObject, seconds: float) -> ObjectScores:
    nan = float("nan")
    images = visible_scores(mesh_ops.concatenate([]), truth.observation)
    return ObjectScores(
        iou=0.0,
        chamfer=2.0 * EMPTY_DISTANCE,
        f1=0.0,
        f2=0.0,
        precision2=0.0,
        recall2=0.0,
        normal_consistency=0.0,
        seen_error=EMPTY_DISTANCE if truth.seen.any() else nan,
        unseen_error=nan if truth.seen.all() else EMPTY_DISTANCE,
        seen_recall=0.0 if truth.seen.any() else nan,
        unseen_recall=nan if truth.seen.all() else 0.0,
        free_space_violation=nan,
        observed_coverage=0.0,
        psnr=images.psnr,
        ssim=images.ssim,
        seconds=seconds,
        failed=True,
        cloud=None,
        surface_confidence=None,
        voxel_confidence=None,
        missed=nan,
    )


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _violation(result: Mesh, truth: TrueObject) -> float:
    return float("nan") if truth.free_space is None else free_space_violation(result, truth.free_space)


def _carved(observation: ObjectObservation, center_m: np.ndarray, side_m: float) -> VoxelGrid | None:
    views = [view for view in observation.views if view.depth_m is not None]
    if not views:
        return None
    half = side_m * (0.5 + CARVING_MARGIN)
    return carve_free_space(views, center_m - half, center_m + half, 2.0 * half / CARVING_RESOLUTION)


def _surface_confidence(
    mesh: Mesh, points: np.ndarray, faces: np.ndarray, right: np.ndarray
) -> CalibrationCounts | None:
    """Counts over points (N, 3) on `faces` (N,) of the mesh, whose confidence is interpolated; None without any."""
    if mesh.vertex_confidence is None:
        return None
    corners = mesh.vertices.astype(np.float64)[mesh.faces[faces]]
    # Weights fall with the distance to the corners: at a corner they are its own, which is all that is asked of them.
    weight = 1.0 / np.maximum(np.linalg.norm(corners - points[:, None], axis=2), 1e-12)
    confidence = (mesh.vertex_confidence[mesh.faces[faces]] * weight).sum(axis=1) / weight.sum(axis=1)
    return count(np.clip(confidence, 0.0, 1.0), right)


def _voxel_confidence(occupancy: OccupancyEstimate | None, truth: TrueObject) -> tuple[CalibrationCounts | None, float]:
    """Counts of the probability of the likelier state of each voxel in question, and the share of those missed."""
    if occupancy is None or occupancy.S_world_grid is None or not is_solid(truth.mesh):
        return None, float("nan")
    probability = np.clip(occupancy.probability, 0.0, 1.0)
    full = solid_occupancy(truth.mesh, occupancy.S_world_grid, len(probability)) >= 0.5
    # Chosen by what the generator says alone: a choice by the truth would not leave probabilities what they are.
    asked = probability >= QUESTIONABLE
    likelier = np.maximum(probability, 1.0 - probability)[asked]
    right = (probability[asked] > 0.5) == full[asked]
    return count(likelier, right), _mean((probability < QUESTIONABLE)[full])
