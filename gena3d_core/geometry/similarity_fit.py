"""Rotations and similarities fitted to pairs of points, and to cameras known in two frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..types import Float64Array
from . import similarity, transforms

TRIM_ROUNDS = 6
TRIM_DEVIATIONS = 3.0
"""Correspondences farther off than so many robust standard deviations are left out of the next fit."""


def fit_similarity(
    source: np.ndarray, target: np.ndarray, weight: np.ndarray, upright: bool, *, scaled: bool = True
) -> Float64Array:
    """Weighted least-squares similarities (C, 4, 4) from points source (C, N, 3) to target (C, N, 3).

    Umeyama 1991 with the symmetric scale (ratio of spreads), which wrong correspondences do not shrink; with
    `upright` the rotation is about z only; without `scaled` the result is rigid. weight (C, N), not all 0.
    """
    total = weight.sum(axis=1)[:, None]
    source_mean = np.einsum("cn,cni->ci", weight, source) / total
    target_mean = np.einsum("cn,cni->ci", weight, target) / total
    a, b = source - source_mean[:, None], target - target_mean[:, None]
    covariance = np.einsum("cn,cni,cnj->cij", weight, b, a)
    if upright:
        angle = np.arctan2(covariance[:, 1, 0] - covariance[:, 0, 1], covariance[:, 0, 0] + covariance[:, 1, 1])
        R = yaw_rotations(angle)
    else:
        U, _, Vt = np.linalg.svd(covariance)
        U[:, :, 2] *= np.linalg.det(U @ Vt)[:, None]
        R = U @ Vt
    S = np.tile(np.eye(4), (len(source), 1, 1))
    S[:, :3, :3] = R
    if scaled:
        to, drawn = (np.einsum("cn,cni,cni->c", weight, part, part) for part in (b, a))
        # Points that all lie in one place tell no scale.
        spread = np.divide(to, drawn, out=np.ones_like(to), where=(to > 0) & (drawn > np.finfo(float).tiny))
        S[:, :3, :3] *= np.sqrt(spread)[:, None, None]
    S[:, :3, 3] = target_mean - np.einsum("cij,cj->ci", S[:, :3, :3], source_mean)
    return S


def yaw_rotations(angle: np.ndarray) -> Float64Array:
    """(C, 3, 3) rotations by `angle` (C,) radians about z."""
    R = np.tile(np.eye(3), (len(angle), 1, 1))
    R[:, 0, 0] = R[:, 1, 1] = np.cos(angle)
    R[:, 1, 0] = np.sin(angle)
    R[:, 0, 1] = -R[:, 1, 0]
    return R


def upright_rotation(up: np.ndarray) -> Float64Array:
    """`R_world_frame` (3, 3) whose third column is `up` (3,), a unit vector."""
    side = np.array([1.0, 0.0, 0.0]) if abs(up[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    x_axis = side - up * (side @ up)
    x_axis /= np.linalg.norm(x_axis)
    return np.stack([x_axis, np.cross(up, x_axis), up], axis=1)


@dataclass(frozen=True, eq=False)
class CameraSimilarity:
    """Similarity of an estimated frame to the world from cameras known in both.

    S_world_estimate  (4, 4)
    scale             its scale: metres for one unit of the estimate
    rmse_m            root mean square distance between the known positions and the estimated ones
    rotation_deg      (V,) angle between the known and the estimated orientation of each camera
    """

    S_world_estimate: Float64Array
    scale: float
    rmse_m: float
    rotation_deg: Float64Array


def fit_cameras(
    T_estimate_camera: np.ndarray, T_world_camera: np.ndarray, scale: float | None = None
) -> CameraSimilarity:
    """Similarity that takes estimated cameras (V, 4, 4) to known ones (V, 4, 4).

    The rotation comes from the orientations, so that two positions, or positions on a line, are enough; the scale is
    the ratio of the spreads of the positions unless `scale` is given. Raises `InputError` for no camera, and without
    `scale` for positions that are all the same in either frame.
    """
    estimated, known = np.asarray(T_estimate_camera, np.float64), np.asarray(T_world_camera, np.float64)
    if estimated.shape != known.shape or estimated.ndim != 3 or not len(known):
        raise InputError(f"cameras must be (V, 4, 4) in both frames, V >= 1, got {estimated.shape} and {known.shape}")
    turns = known[:, :3, :3] @ np.swapaxes(estimated[:, :3, :3], 1, 2)
    R = similarity.mean_rotation(turns, np.ones(len(turns)))
    source, target = estimated[:, :3, 3] @ R.T, known[:, :3, 3]
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    if scale is None:
        spread_a, spread_b = float((a * a).sum()), float((b * b).sum())
        if not (spread_a > 0 and spread_b > 0):
            raise InputError("the scale needs cameras at 2 or more different positions")
        scale = float(np.sqrt(spread_b / spread_a))
    S = transforms.rigid(scale * R, target.mean(axis=0) - scale * source.mean(axis=0))
    left_m = scale * a - b
    turned = np.einsum("vji,jk,vkl->vil", known[:, :3, :3], R, estimated[:, :3, :3])
    cosine = (np.trace(turned, axis1=1, axis2=2) - 1.0) / 2.0
    return CameraSimilarity(
        S_world_estimate=S,
        scale=scale,
        rmse_m=float(np.sqrt((left_m**2).sum(axis=1).mean())),
        rotation_deg=np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))),
    )


def fit_trimmed(source: np.ndarray, target: np.ndarray) -> tuple[Float64Array, float]:
    """Similarity (4, 4) from points source (N, 3) to the corresponding target (N, 3), gross errors left out.

    Also the median distance after it, in the target's unit. Raises `InputError` for fewer than 3 pairs or pairs that
    are all the same.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    if len(source) < 3 or not (np.ptp(source, axis=0).any() and np.ptp(target, axis=0).any()):
        raise InputError(f"a similarity needs at least 3 different pairs of points, got {len(source)}")
    weight = np.ones(len(source))
    S = np.eye(4)
    distance = np.zeros(len(source))
    for _ in range(TRIM_ROUNDS):
        S = fit_similarity(source[None], target[None], weight[None], upright=False)[0]
        distance = np.linalg.norm(transforms.apply(S, source) - target, axis=1)
        kept = distance <= max(TRIM_DEVIATIONS * 1.4826 * float(np.median(distance)), 1e-12)
        if np.array_equal(kept, weight > 0):
            break
        weight = kept.astype(np.float64)
    return S, float(np.median(distance))
