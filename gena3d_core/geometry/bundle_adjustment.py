"""Pose refinement without depth: bundle adjustment of feature tracks with the recorded poses as a prior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..types import BoolArray, Float64Array, View
from . import transforms
from .feature_tracks import Tracks, find_tracks

OUTLIER_PX = 2.0
"""Residual in pixels at which the weight of an observation has halved (Cauchy)."""
SYSTEMATIC_RAD = 0.006
INDEPENDENT_OBSERVATIONS = 10.0
"""Rolling shutter, blur and calibration bend a whole image alike, so a thousand features do not average them out: the
features of a view weigh together like this many independent ones of this standard deviation (3 px of a 500 px focal
length). Without that limit the adjustment bends the poses to fit the distortion, and the depth suffers."""
MAX_ITERATIONS = 30
MIN_ANGLE_DEG = 1.5
"""Angle between rays below which their meeting point is too uncertain to bound the scene."""
MIN_TRACKS = 12


@dataclass(frozen=True, eq=False)
class BundleAdjustment:
    """Result: T_world_camera (V, 4, 4), points_m (N, 3) in the world, residual_px (M,) of each observation."""

    T_world_camera: Float64Array
    points_m: Float64Array
    residual_px: Float64Array


def refine_poses_by_features(
    views: Sequence[View], *, sigma_position_m: float = 0.01, sigma_rotation_rad: float = 0.003
) -> tuple[list[View], float]:
    """Correct the poses of colour views so that matched features agree; depth is not used.

    The recorded poses act as a prior with the given standard deviations, which also fixes position, heading and
    scale of the whole. Returns the views in their order and the median reprojection error in pixels after the
    correction; where too few features match, the views as they were and NaN. Raises `InputError` for no view.
    """
    if not views:
        raise InputError("no views whose poses could be refined")
    tracks = find_tracks(views)
    if tracks.count < MIN_TRACKS:
        return list(views), float("nan")
    result = adjust(views, tracks, sigma_position_m=sigma_position_m, sigma_rotation_rad=sigma_rotation_rad)
    refined = [replace(view, T_world_camera=T) for view, T in zip(views, result.T_world_camera, strict=True)]
    return refined, float(np.median(result.residual_px))


def triangulate(views: Sequence[View], tracks: Tracks) -> Float64Array:
    """(N, 3) world points nearest to the viewing rays of each track (least squares of the distances)."""
    origin, direction = _viewing_rays(views, tracks)
    A = np.eye(3) - direction[:, :, None] * direction[:, None, :]
    H = np.zeros((tracks.count, 3, 3))
    g = np.zeros((tracks.count, 3))
    np.add.at(H, tracks.track, A)
    np.add.at(g, tracks.track, np.einsum("mij,mj->mi", A, origin))
    # Parallel rays leave the distance open: a weak pull to a point ahead of the cameras keeps it finite and in front.
    pull = 1e-6
    ahead_m = max(1.0, 10.0 * float(np.ptp(origin, axis=0).max())) if len(origin) else 1.0
    start = np.zeros((tracks.count, 3))
    np.add.at(start, tracks.track, origin + ahead_m * direction)
    start /= np.bincount(tracks.track, minlength=tracks.count)[:, None]
    points_m = np.linalg.solve(H + pull * np.eye(3), (g + pull * start)[..., None])[..., 0]
    return np.asarray(points_m, dtype=np.float64)


def adjust(
    views: Sequence[View],
    tracks: Tracks,
    *,
    sigma_position_m: float = 0.01,
    sigma_rotation_rad: float = 0.003,
    sigma_feature_rad: float = SYSTEMATIC_RAD,
    independent_observations: float = INDEPENDENT_OBSERVATIONS,
) -> BundleAdjustment:
    """Levenberg-Marquardt over poses and points; the points are eliminated (Schur complement).

    The recorded poses are a prior of the given standard deviations. The features of a view err by
    `sigma_feature_rad` and weigh together like at most `independent_observations`; each has a Cauchy loss of scale
    `OUTLIER_PX`.
    """
    share = _feature_weights(views, tracks, sigma_feature_rad, independent_observations)
    problem = _Problem(views, tracks, share, np.repeat([float(sigma_rotation_rad), float(sigma_position_m)], 3))
    T, X = problem.T_prior, triangulate(views, tracks)
    damping, cost = 1e-3, problem.cost(T, X)
    for _ in range(MAX_ITERATIONS):
        T_new, X_new = problem.step(T, X, damping)
        cost_new = problem.cost(T_new, X_new)
        if cost_new < cost:
            converged = cost - cost_new < 1e-6 * cost
            T, X, cost, damping = T_new, X_new, cost_new, max(damping / 5.0, 1e-9)
            if converged:
                break
        else:
            damping *= 5.0
            if damping > 1e6:
                break
    residual, _ = problem.residuals(T, X)
    return BundleAdjustment(transforms.inverse(T), X, np.linalg.norm(residual, axis=1))


def well_triangulated(views: Sequence[View], tracks: Tracks, result: BundleAdjustment) -> BoolArray:
    """(N,) bool: points whose rays meet at `MIN_ANGLE_DEG` or more and whose observations all fit within 3 px."""
    T = result.T_world_camera
    ray = result.points_m[tracks.track] - T[tracks.view, :3, 3]
    ray /= np.linalg.norm(ray, axis=1, keepdims=True)
    mean = np.zeros((tracks.count, 3))
    np.add.at(mean, tracks.track, ray)
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    half_angle_deg = np.degrees(np.arccos(np.clip((ray * mean[tracks.track]).sum(axis=1), -1.0, 1.0)))
    widest_deg, worst_px = np.zeros(tracks.count), np.zeros(tracks.count)
    np.maximum.at(widest_deg, tracks.track, 2.0 * half_angle_deg)
    np.maximum.at(worst_px, tracks.track, result.residual_px)
    return np.logical_and(widest_deg >= MIN_ANGLE_DEG, worst_px <= 3.0)


def _viewing_rays(views: Sequence[View], tracks: Tracks) -> tuple[Float64Array, Float64Array]:
    """World origin (M, 3) and unit direction (M, 3) of every observation."""
    K_inverse = np.stack([np.linalg.inv(view.intrinsics.matrix) for view in views])[tracks.view]
    T = np.stack([view.T_world_camera for view in views])[tracks.view]
    pixels = np.column_stack([tracks.pixels, np.ones(len(tracks.pixels))])
    direction = np.einsum("mij,mj->mi", T[:, :3, :3] @ K_inverse, pixels)
    return T[:, :3, 3], direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _feature_weights(views: Sequence[View], tracks: Tracks, sigma_rad: float, independent: float) -> Float64Array:
    """(M,) inverse variance of each observation in 1/px^2."""
    focal_px = np.array([np.sqrt(view.intrinsics.fx * view.intrinsics.fy) for view in views])
    seen = np.bincount(tracks.view, minlength=len(views))
    share = np.minimum(1.0, independent / np.maximum(seen, 1)) / (sigma_rad * focal_px) ** 2
    return np.asarray(share[tracks.view])


class _Problem:
    """Residuals and normal equations of one bundle adjustment; poses are T_camera_world (V, 4, 4)."""

    def __init__(self, views: Sequence[View], tracks: Tracks, weight: Float64Array, sigma: Float64Array) -> None:
        self.tracks = tracks
        self.T_prior = transforms.inverse(np.stack([view.T_world_camera for view in views]))
        k = [view.intrinsics for view in views]
        self.focal = np.array([(i.fx, i.fy) for i in k])[tracks.view]
        self.center = np.array([(i.cx, i.cy) for i in k])[tracks.view]
        self.base_weight = weight
        self.sigma = sigma

    def residuals(self, T: Float64Array, X: Float64Array) -> tuple[Float64Array, Float64Array]:
        """Reprojection errors (M, 2) in pixels and points in their cameras (M, 3)."""
        pose = T[self.tracks.view]
        points = np.einsum("mij,mj->mi", pose[:, :3, :3], X[self.tracks.track]) + pose[:, :3, 3]
        # A point that a step throws behind a camera must cost much, not divide by zero.
        z = np.maximum(points[:, 2:], 1e-3)
        return points[:, :2] / z * self.focal + self.center - self.tracks.pixels, points

    def prior(self, T: Float64Array) -> Float64Array:
        """(V, 6) deviation from the recorded poses (rotation vector, translation in the camera) in sigmas."""
        change = T @ transforms.inverse(self.T_prior)
        rotation = Rotation.from_matrix(change[:, :3, :3]).as_rotvec()
        return np.concatenate([rotation, change[:, :3, 3]], axis=1) / self.sigma

    def cost(self, T: Float64Array, X: Float64Array) -> float:
        residual, _ = self.residuals(T, X)
        robust = OUTLIER_PX**2 * np.log1p((residual**2).sum(axis=1) / OUTLIER_PX**2)
        return float((self.base_weight * robust).sum() + (self.prior(T) ** 2).sum())

    def step(self, T: Float64Array, X: Float64Array, damping: float) -> tuple[Float64Array, Float64Array]:
        """One damped Gauss-Newton step."""
        view, track = self.tracks.view, self.tracks.track
        count = len(T)
        residual, points = self.residuals(T, X)
        weight = self.base_weight / (1.0 + (residual**2).sum(axis=1) / OUTLIER_PX**2)
        weight *= points[:, 2] > 1e-3
        z = np.maximum(points[:, 2], 1e-3)
        projection = np.zeros((len(z), 2, 3))
        projection[:, [0, 1], [0, 1]] = self.focal / z[:, None]
        projection[:, :, 2] = -self.focal * points[:, :2] / z[:, None] ** 2
        J_camera = np.concatenate([-projection @ _skew(points), projection], axis=2)
        J_point = projection @ T[view][:, :3, :3]

        U, b = np.zeros((count, 6, 6)), np.zeros((count, 6))
        P, g = np.zeros((self.tracks.count, 3, 3)), np.zeros((self.tracks.count, 3))
        weighted_camera, weighted_point = J_camera * weight[:, None, None], J_point * weight[:, None, None]
        np.add.at(U, view, np.swapaxes(weighted_camera, 1, 2) @ J_camera)
        np.add.at(b, view, np.einsum("mki,mk->mi", weighted_camera, residual))
        np.add.at(P, track, np.swapaxes(weighted_point, 1, 2) @ J_point)
        np.add.at(g, track, np.einsum("mki,mk->mi", weighted_point, residual))
        U += np.diag(self.sigma**-2)
        b += self.prior(T) / self.sigma
        diagonal = np.einsum("nii->ni", P)
        diagonal += damping * diagonal + 1e-9
        np.einsum("nii->ni", U)[:] *= 1.0 + damping

        # Each point is seen at most once a view, so the coupling fits a dense (N, V) table of 6x3 blocks.
        blocks = np.zeros((self.tracks.count, count, 6, 3))
        blocks[track, view] = np.swapaxes(weighted_camera, 1, 2) @ J_point
        W = blocks.reshape(self.tracks.count, count * 6, 3)
        P_inverse = np.linalg.inv(P)
        WP = W @ P_inverse
        S = -np.tensordot(WP, W, axes=([0, 2], [0, 2]))
        index = np.arange(count * 6).reshape(count, 6)
        S[index[:, :, None], index[:, None, :]] += U
        right = b.ravel() - np.tensordot(WP, g, axes=([0, 2], [0, 1]))
        delta = -np.linalg.solve(S, right)
        move = -np.einsum("nij,nj->ni", P_inverse, g + np.einsum("ncj,c->nj", W, delta))

        delta = delta.reshape(count, 6)
        change = np.tile(np.eye(4), (count, 1, 1))
        change[:, :3, :3] = Rotation.from_rotvec(delta[:, :3]).as_matrix()
        change[:, :3, 3] = delta[:, 3:]
        return change @ T, X + move


def _skew(v: Float64Array) -> Float64Array:
    """(M, 3, 3) cross-product matrices of (M, 3)."""
    x, y, z = v.T
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
