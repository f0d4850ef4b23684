"""Similarities Sim(3): parts, small changes with covariance, and weighted means.

A small change of S = (t, R, s) is a 7-vector in the order of `TANGENT`: translation of the source frame's origin
(metres, target axes), rotation vector about that origin (radians, target axes), logarithm of the scale. It acts as
t + δt, exp(δr) R, s exp(δσ); covariances (7, 7) are those of this vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..types import Float64Array, require_shape
from . import transforms

TANGENT = ("t_x_m", "t_y_m", "t_z_m", "r_x_rad", "r_y_rad", "r_z_rad", "log_scale")
"""Order of changes and of the rows and columns of covariances."""


@dataclass(frozen=True, eq=False)
class SimilarityEstimate:
    """A similarity `S` (4, 4) and the covariance (7, 7) of its small change, in the order of `TANGENT`."""

    S: Float64Array
    covariance: Float64Array

    def __post_init__(self) -> None:
        require_shape("S", self.S, (4, 4))
        require_shape("covariance", self.covariance, (7, 7))
        if not np.isfinite(self.S).all() or not np.linalg.det(self.S[:3, :3]) > 0:
            raise InputError("a similarity must be finite and have a positive scale")
        if not np.isfinite(self.covariance).all() or np.linalg.eigvalsh(self.covariance)[0] < -1e-12:
            raise InputError("the covariance of a similarity must be finite and positive semi-definite")


def compose(t: np.ndarray, R: np.ndarray, scale: np.ndarray | float) -> Float64Array:
    """Similarities (..., 4, 4) from translations (..., 3), rotations (..., 3, 3) and scales (...)."""
    t, R, scale = np.asarray(t, np.float64), np.asarray(R, np.float64), np.asarray(scale, np.float64)
    shape = np.broadcast_shapes(t.shape[:-1], R.shape[:-2], scale.shape)
    S = np.zeros((*shape, 4, 4))
    S[..., :3, :3] = scale[..., None, None] * R
    S[..., :3, 3] = t
    S[..., 3, 3] = 1.0
    return S


def parts(S: np.ndarray) -> tuple[Float64Array, Float64Array, Float64Array]:
    """Translations (..., 3), rotations (..., 3, 3) and scales (...) of similarities (..., 4, 4).

    Raises `InputError` for a scale that is not positive or not finite.
    """
    A = np.asarray(S, dtype=np.float64)[..., :3, :3]
    det = np.linalg.det(A)
    if not (np.isfinite(det).all() and (det > 0).all()):
        raise InputError("a similarity must be finite and have a positive scale, without a mirror image")
    scale = np.cbrt(det)
    return np.asarray(S, dtype=np.float64)[..., :3, 3], A / scale[..., None, None], scale


def quat_wxyz_from_matrix(R: np.ndarray) -> Float64Array:
    """Unit quaternions (..., 4) in w, x, y, z order, w >= 0, from rotations (..., 3, 3)."""
    R = np.asarray(R, dtype=np.float64)
    quat_xyzw = transforms.quat_xyzw_from_matrix(R.reshape(-1, 3, 3)) if R.size else np.zeros((0, 4))
    return np.roll(quat_xyzw, 1, axis=-1).reshape(*R.shape[:-2], 4)


def matrix_from_quat_wxyz(quat_wxyz: np.ndarray) -> Float64Array:
    """Rotations (..., 3, 3) from quaternions (..., 4) of any length in w, x, y, z order.

    Raises `InputError` for a quaternion of length zero or with NaN.
    """
    quat_wxyz = np.asarray(quat_wxyz, dtype=np.float64)
    flat = np.roll(quat_wxyz.reshape(-1, 4), -1, axis=-1)
    R = transforms.matrix_from_quat_xyzw(flat) if len(flat) else np.zeros((0, 3, 3))
    return R.reshape(*quat_wxyz.shape[:-1], 3, 3)


def changed(S: np.ndarray, change: np.ndarray) -> Float64Array:
    """`S` (4, 4) after a small change (7,)."""
    t, R, scale = parts(S)
    return compose(t + change[:3], Rotation.from_rotvec(change[3:6]).as_matrix() @ R, scale * np.exp(change[6]))


def change_between(S_from: np.ndarray, S_to: np.ndarray) -> Float64Array:
    """The change (7,) with `changed(S_from, change) == S_to`; rotation vector of at most half a turn."""
    (t0, R0, s0), (t1, R1, s1) = parts(S_from), parts(S_to)
    rotation = Rotation.from_matrix(R1 @ R0.T).as_rotvec()
    return np.concatenate([t1 - t0, rotation, [np.log(s1 / s0)]])


def cross_matrix(v: np.ndarray) -> Float64Array:
    """(..., 3, 3) matrices [v]x with [v]x w = v x w."""
    out = np.zeros((*v.shape, 3))
    out[..., 0, 1], out[..., 0, 2], out[..., 1, 2] = -v[..., 2], v[..., 1], -v[..., 0]
    out[..., 1, 0], out[..., 2, 0], out[..., 2, 1] = v[..., 2], -v[..., 1], v[..., 0]
    return out


def point_jacobian(S: np.ndarray, points: np.ndarray) -> Float64Array:
    """(..., 3, 7) derivative of S·p by the small change of S, at points p (..., 3) of the source frame."""
    arm = points @ S[:3, :3].T
    J = np.zeros((*points.shape, 7))
    J[..., :3] = np.eye(3)
    J[..., 3:6] = -cross_matrix(arm)
    J[..., 6] = arm
    return J


def chained(outer: SimilarityEstimate, S_inner: np.ndarray, inner: np.ndarray | None = None) -> SimilarityEstimate:
    """outer.S · S_inner with its covariance; `inner` (7, 7) is the covariance of S_inner, None: exactly known."""
    G = np.eye(7)
    G[:3] = point_jacobian(outer.S, np.asarray(S_inner, dtype=np.float64)[:3, 3])
    covariance = G @ outer.covariance @ G.T
    if inner is not None:
        _, R, scale = parts(outer.S)
        B = np.eye(7)
        B[:3, :3], B[3:6, 3:6] = scale * R, R
        covariance = covariance + B @ inner @ B.T
    return SimilarityEstimate(outer.S @ S_inner, 0.5 * (covariance + covariance.T))


def mean_rotation(R: np.ndarray, weights: np.ndarray) -> Float64Array:
    """Chordal mean (..., 3, 3) of rotations (..., K, 3, 3) with weights (..., K).

    The eigenvector of the largest eigenvalue of Σ w q qᵀ (Markley et al. 2007): q and -q are the same rotation.
    """
    q = quat_wxyz_from_matrix(R)
    matrix = np.einsum("...k,...ki,...kj->...ij", weights, q, q)
    return matrix_from_quat_wxyz(np.linalg.eigh(matrix)[1][..., -1])


def mean_similarity(S: np.ndarray, weights: np.ndarray | None = None) -> Float64Array:
    """Weighted mean (..., 4, 4) of similarities (..., K, 4, 4), weights (..., K), equal by default.

    Translations: arithmetic mean; rotations: chordal mean; scales: geometric mean. Entries of weight 0 have no
    influence. Raises `InputError` for weights that are negative, not finite or all zero.
    """
    t, R, scale = parts(S)
    w = np.ones(scale.shape) if weights is None else np.broadcast_to(np.asarray(weights, np.float64), scale.shape)
    total = w.sum(axis=-1, keepdims=True)
    if not np.isfinite(w).all() or (w < 0).any() or not (total > 0).all():
        raise InputError("weights of a mean of poses must be finite, not negative, and not all zero")
    w = w / total
    return compose(
        np.einsum("...k,...ki->...i", w, t), mean_rotation(R, w), np.exp(np.einsum("...k,...k->...", w, np.log(scale)))
    )
