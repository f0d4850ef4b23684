"""SceneGen's position vectors and the similarities that they stand for.

A position vector P = [t (3), quat_wxyz (4), s (1)] places an asset in the frame of the query asset of its scene. An
asset's own frame is the unit of its size: its longest side measures 1. Lengths in P are therefore in units of the
query's longest side, s is the asset's size over the query's, and the query itself is the identity.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import Float64Array
from . import transforms

POSE_WIDTH = 8
IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""The query asset."""

S_YUP_ZUP = transforms.rigid(np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]))
"""Rx(-90°): from a z-up voxel grid to the y-up model frame in which the published SceneGen states its poses."""
PUBLISHED_HALF_SIDE = 0.98
"""Half the longest side of a scene as the published code exports it."""


def similarities_from_poses(poses: np.ndarray) -> Float64Array:
    """`S_query_asset` (..., 4, 4) of position vectors (..., 8); quaternions need not have length one.

    Raises `InputError` for a quaternion without direction, a scale that is not positive, or what is not finite.
    """
    P = _checked(poses)
    scale = P[..., 7]
    if (scale <= 0).any():
        raise InputError(f"the scale of an asset must be positive, got {scale.reshape(-1).tolist()}")
    S = np.zeros((*P.shape[:-1], 4, 4))
    # scipy's order is xyzw.
    S[..., :3, :3] = scale[..., None, None] * transforms.matrix_from_quat_xyzw(P[..., [4, 5, 6, 3]])
    S[..., :3, 3] = P[..., :3]
    S[..., 3, 3] = 1.0
    return S


def poses_from_similarities(S_query_asset: np.ndarray) -> Float64Array:
    """Position vectors (..., 8) of similarities (..., 4, 4); quaternions of length one with w >= 0.

    Raises `InputError` for matrices that are no similarities without reflection.
    """
    S = np.asarray(S_query_asset, dtype=np.float64)
    scale, R = split_similarities(S)
    quat_xyzw = transforms.quat_xyzw_from_matrix(R)
    return np.concatenate([S[..., :3, 3], quat_xyzw[..., 3:], quat_xyzw[..., :3], scale[..., None]], axis=-1)


def split_similarities(S: np.ndarray, atol: float = 1e-4) -> tuple[Float64Array, Float64Array]:
    """Scales (...) and rotations (..., 3, 3) of similarities (..., 4, 4).

    Raises `InputError` unless each is finite, has a positive scale and, within `atol`, a proper rotation.
    """
    if S.shape[-2:] != (4, 4) or not np.isfinite(S).all():
        raise InputError(f"similarities must be finite and of shape (..., 4, 4), got {S.shape}")
    determinant = np.linalg.det(S[..., :3, :3])
    if (determinant <= 0).any():
        raise InputError("a similarity must have a positive determinant: this one mirrors or flattens")
    scale = np.cbrt(determinant)
    R = S[..., :3, :3] / scale[..., None, None]
    if np.abs(np.einsum("...ij,...kj->...ik", R, R) - np.eye(3)).max(initial=0.0) > atol:
        raise InputError("a similarity scales all directions alike: this matrix stretches or shears")
    return scale, R


def relative_poses(S_world_asset: np.ndarray, query: int = 0) -> Float64Array:
    """Position vectors (A, 8) of assets placed by `S_world_asset` (A, 4, 4), whose scales are their longest sides.

    t = R_qᵀ (t_i - t_q) / s_q, R = R_qᵀ R_i, s = s_i / s_q; row `query` is the identity. Raises `InputError` for a
    query that is no asset.
    """
    S = np.asarray(S_world_asset, dtype=np.float64)
    if S.ndim != 3 or not 0 <= query < len(S):
        raise InputError(f"query {query} is none of the assets of {S.shape}")
    split_similarities(S)
    poses = poses_from_similarities(transforms.inverse(S[query]) @ S)
    poses[query] = IDENTITY
    return poses


def world_similarities(poses: np.ndarray, S_world_query: np.ndarray) -> Float64Array:
    """`S_world_asset` (A, 4, 4) from position vectors (A, 8) and where the query is: inverse of `relative_poses`."""
    return np.asarray(S_world_query, dtype=np.float64) @ similarities_from_poses(poses)


def in_query_frame(poses: np.ndarray, query: int) -> Float64Array:
    """The scene of position vectors (A, 8) as another of its assets sees it."""
    return relative_poses(similarities_from_poses(poses), query)


def fit_into_cube(
    S_scene_asset: np.ndarray, corners: np.ndarray, half_side: float = PUBLISHED_HALF_SIDE, *, centred: bool = True
) -> Float64Array:
    """Similarities (A, 4, 4) of the scene scaled so that the longest side of its box is 2 · `half_side`.

    corners (A, N, 3): points of each asset in its own frame that span its box. centred: move the middle of the box to
    the origin; False does as the published export, which takes off the middle as it was before the scaling. Raises
    `InputError` for a scene without extent.
    """
    S = np.asarray(S_scene_asset, dtype=np.float64)
    points = np.einsum("aij,anj->ani", S[:, :3, :3], corners) + S[:, None, :3, 3]
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    longest = float((high - low).max())
    if not longest > 0:
        raise InputError("a scene without extent cannot be fitted into a cube")
    scale, middle = 2.0 * half_side / longest, (low + high) / 2.0
    shift = -(scale if centred else 1.0) * middle
    return transforms.rigid(scale * np.eye(3), shift) @ S


def _checked(poses: np.ndarray) -> Float64Array:
    P = np.asarray(poses, dtype=np.float64)
    if P.shape[-1:] != (POSE_WIDTH,) or not np.isfinite(P).all():
        raise InputError(f"position vectors must be finite and of shape (..., {POSE_WIDTH}), got {P.shape}")
    return P
