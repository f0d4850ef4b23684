"""Rotations and similarities fitted to pairs of points."""

from __future__ import annotations

import numpy as np

from ..types import Float64Array


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
        spread = np.einsum("cn,cni,cni->c", weight, b, b) / np.einsum("cn,cni,cni->c", weight, a, a)
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
