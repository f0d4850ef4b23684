"""Rigid transforms and similarities as 4x4 float64 matrices; quaternions name their order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..types import Float64Array


def rigid(R: np.ndarray | None = None, t: np.ndarray | None = None) -> Float64Array:
    """(4, 4) transform from a (3, 3) rotation (default identity) and a (3,) translation (default zero)."""
    T = np.eye(4)
    if R is not None:
        T[:3, :3] = R
    if t is not None:
        T[:3, 3] = t
    return T


def inverse(T: np.ndarray) -> Float64Array:
    """Inverse of rigid transforms or similarities `T` (..., 4, 4)."""
    A = T[..., :3, :3]
    scale_squared = np.einsum("...ij,...ij->...", A, A)[..., None, None] / 3.0
    A_inverse = np.swapaxes(A, -1, -2) / scale_squared
    out = np.zeros_like(T, dtype=np.float64)
    out[..., :3, :3] = A_inverse
    out[..., :3, 3] = -np.einsum("...ij,...j->...i", A_inverse, T[..., :3, 3])
    out[..., 3, 3] = 1.0
    return out


def apply(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map `points` (..., 3) by one transform `T` (4, 4); the dtype of `points` is kept."""
    R, t = T[:3, :3].astype(points.dtype), T[:3, 3].astype(points.dtype)
    return points @ R.T + t


def quat_xyzw_from_matrix(R: np.ndarray) -> Float64Array:
    """Unit quaternions (..., 4) in x, y, z, w order (ROS), w >= 0, from rotations (..., 3, 3)."""
    return Rotation.from_matrix(R).as_quat(canonical=True)


def matrix_from_quat_xyzw(quat_xyzw: np.ndarray) -> Float64Array:
    """Rotations (..., 3, 3) from quaternions (..., 4) in x, y, z, w order; raises `InputError` on zero norm."""
    quat_xyzw = np.asarray(quat_xyzw, dtype=np.float64)
    norm = np.linalg.norm(quat_xyzw, axis=-1)
    if not np.isfinite(norm).all() or (norm < 1e-6).any():
        raise InputError(f"quaternion {quat_xyzw.tolist()} has no direction (zero or non-finite norm)")
    return Rotation.from_quat(quat_xyzw).as_matrix()


def look_at(
    eye_m: np.ndarray, target_m: np.ndarray, up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0)
) -> Float64Array:
    """`T_world_camera` (4, 4) of an optical frame at `eye_m` that looks at `target_m`, image y away from `up`."""
    eye_m, target_m = np.asarray(eye_m, dtype=np.float64), np.asarray(target_m, dtype=np.float64)
    forward = target_m - eye_m
    distance = np.linalg.norm(forward)
    right = np.cross(forward, up)
    if distance < 1e-9 or np.linalg.norm(right) < 1e-9 * distance:
        raise InputError("look_at needs an eye apart from its target and a view direction not along `up`")
    forward /= distance
    right /= np.linalg.norm(right)
    return rigid(np.stack([right, np.cross(forward, right), forward], axis=1), eye_m)
