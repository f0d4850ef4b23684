"""Registration of a mesh of unknown scale and pose to a partial metric cloud: search over yaw, then similarity ICP."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.similarity_fit import fit_similarity, upright_rotation, yaw_rotations
from ..types import Float64Array, Mesh

YAWS = 20
SCALE_FACTORS = (0.8, 1.0, 1.25)
"""Start scales relative to the ratio of vertical extents."""
COARSE_POINTS, FINE_POINTS, MESH_SAMPLES = 150, 800, 3000
FINE_STEPS = 25
COARSE_ROUNDS = ((4, 24), (6, 5))
"""Successive halving of the start candidates: (steps of alignment, best candidates kept after them)."""
TRIM = 0.85
"""Share of the best correspondences that a fit uses; the rest is noise or not part of the mesh."""
SEEN_SHARE = 0.3
"""Share of a mesh's surface that any observation can be trusted to have seen."""


@dataclass(frozen=True, eq=False)
class SimilarityFit:
    """A registration.

    S_world_mesh  (4, 4) similarity
    scale         its scale
    rmse_m        trimmed root mean square distance of the points to the mesh
    inlier_share  share of the points within 5 % of the object's size of the mesh
    """

    S_world_mesh: Float64Array
    scale: float
    rmse_m: float
    inlier_share: float


def register_similarity(
    mesh: Mesh,
    points_m: np.ndarray,
    *,
    up: ArrayLike = (0.0, 0.0, 1.0),
    upright: bool = True,
    start: np.ndarray | None = None,
    seed: int = 0,
) -> SimilarityFit:
    """Similarity that lays `mesh` (own frame, z up) on observed surface points (N, 3) of the same object (world).

    The points may cover one side only. With `upright` the mesh's z axis stays along `up` (unit, world); else the
    final fit turns it freely. start: `S_world_mesh` (4, 4) near the answer, from which alone it is refined; None: every
    yaw is tried. Raises `InputError` for fewer than 10 points or a mesh without area.
    """
    points = np.asarray(points_m, dtype=np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < 10:
        raise InputError(f"registration needs at least 10 observed points, got {len(points)}")
    rng = np.random.default_rng(seed)
    samples = mesh_ops.sample_surface(mesh, MESH_SAMPLES, rng)[0].astype(np.float64)
    # All work happens in a frame whose z axis is `up` and whose origin and unit suit the cloud.
    R_frame_world = upright_rotation(np.asarray(up, dtype=np.float64)).T
    center = points.mean(axis=0)
    size = float(np.linalg.norm(np.ptp(points, axis=0)))
    if not size > 0:
        raise InputError("registration needs points that are not all the same")
    cloud = rng.permutation((points - center) @ R_frame_world.T / size)[:FINE_POINTS]
    matcher = _Matcher(samples, cKDTree(samples), upright=True)

    S_world_frame = transforms.rigid(size * R_frame_world.T, center)
    if start is None:
        best = _start_candidates(samples, cloud)
        for steps, kept_candidates in COARSE_ROUNDS:
            best = matcher.refine(best, cloud[:COARSE_POINTS], steps)
            best = best[np.argsort(matcher.score(best, cloud[:COARSE_POINTS]))[:kept_candidates]]
    else:
        best = (transforms.inverse(S_world_frame) @ np.asarray(start, dtype=np.float64))[None]
    fine = _Matcher(samples, matcher.tree, upright=upright)
    best = fine.refine(best, cloud, FINE_STEPS)
    S = best[np.argmin(fine.score(best, cloud))]

    distance = np.sort(fine.distances(S[None], cloud)[0]) * size
    kept = distance[: max(1, int(TRIM * len(distance)))]
    S_world_mesh = S_world_frame @ S
    return SimilarityFit(
        S_world_mesh=S_world_mesh,
        scale=float(np.cbrt(np.linalg.det(S_world_mesh[:3, :3]))),
        rmse_m=float(np.sqrt(np.mean(kept**2))),
        inlier_share=float(np.mean(distance < 0.05 * size)),
    )


@dataclass(frozen=True, eq=False)
class _Matcher:
    """Similarity ICP of many candidates at once; the mesh's search tree serves all of them."""

    samples: Float64Array
    tree: cKDTree
    upright: bool

    def refine(self, S: np.ndarray, cloud: np.ndarray, steps: int) -> Float64Array:
        """Candidates (C, 4, 4) after `steps` rounds of nearest points and trimmed fits in both directions."""
        cloud_tree = cKDTree(cloud)
        every = max(1, round(len(self.samples) / (1.5 * len(cloud))))
        subset = self.samples[::every]
        for _ in range(steps):
            distance, nearest = self._nearest(S, cloud)
            ahead_source, ahead_target = self.samples[nearest], np.broadcast_to(cloud, (len(S), *cloud.shape))
            moved = np.einsum("cij,nj->cni", S[:, :3, :3], subset) + S[:, None, :3, 3]
            back_distance, back_nearest = cloud_tree.query(moved)
            # The part of the mesh nearest to the cloud must have been seen: it keeps the mesh from growing.
            back_weight = _trimmed(back_distance, SEEN_SHARE) * (len(cloud) / (SEEN_SHARE * len(subset)))
            S = fit_similarity(
                np.concatenate([ahead_source, np.broadcast_to(subset, (len(S), *subset.shape))], axis=1),
                np.concatenate([ahead_target, cloud[back_nearest]], axis=1),
                np.concatenate([_trimmed(distance, TRIM), back_weight], axis=1),
                self.upright,
            )
        return S

    def score(self, S: np.ndarray, cloud: np.ndarray) -> Float64Array:
        """(C,) cost: distance of the cloud to the mesh plus distance of the mesh's seen part to the cloud."""
        ahead = np.sort(self.distances(S, cloud), axis=1)[:, : max(1, int(TRIM * len(cloud)))]
        moved = np.einsum("cij,nj->cni", S[:, :3, :3], self.samples[::4]) + S[:, None, :3, 3]
        back = np.sort(cKDTree(cloud).query(moved)[0], axis=1)
        back = back[:, : max(1, int(SEEN_SHARE * back.shape[1]))]
        return np.sqrt((ahead**2).mean(axis=1)) + np.sqrt((back**2).mean(axis=1))

    def distances(self, S: np.ndarray, cloud: np.ndarray) -> Float64Array:
        """(C, N) distances of the cloud to each candidate's mesh, in the cloud's unit."""
        return self._nearest(S, cloud)[0]

    def _nearest(self, S: np.ndarray, cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        inverse = transforms.inverse(S)
        local = np.einsum("cij,nj->cni", inverse[:, :3, :3], cloud) + inverse[:, None, :3, 3]
        distance, nearest = self.tree.query(local)
        return distance * np.cbrt(np.linalg.det(S[:, :3, :3]))[:, None], nearest


def _trimmed(distance: np.ndarray, share: float) -> Float64Array:
    """(C, N) weights: 1 for the nearest `share` of each row, else 0."""
    limit = np.quantile(distance, share, axis=1, keepdims=True)
    return (distance <= limit).astype(np.float64)


def _start_candidates(samples: np.ndarray, cloud: np.ndarray) -> Float64Array:
    """(C, 4, 4): every yaw with every start scale, upright, vertical extents aligned at the lower end."""
    height_ratio = np.ptp(cloud[:, 2]) / max(np.ptp(samples[:, 2]), 1e-9)
    width_ratio = np.linalg.norm(np.ptp(cloud[:, :2], axis=0)) / max(
        float(np.linalg.norm(np.ptp(samples[:, :2], axis=0))), 1e-9
    )
    base = np.unique([max(height_ratio, 1e-3), max(width_ratio, 1e-3)])
    scales = np.unique(np.outer(base, SCALE_FACTORS))
    yaw, scale = (g.reshape(-1) for g in np.meshgrid(np.arange(YAWS) * (2 * np.pi / YAWS), scales, indexing="ij"))
    S = np.tile(np.eye(4), (len(yaw), 1, 1))
    S[:, :3, :3] = scale[:, None, None] * yaw_rotations(yaw)
    middle = (samples.min(axis=0) + samples.max(axis=0)) / 2.0
    target = (cloud.min(axis=0) + cloud.max(axis=0)) / 2.0
    S[:, :3, 3] = target - np.einsum("cij,j->ci", S[:, :3, :3], middle)
    return S
