"""SceneGen's position vectors and the similarities that they stand for.

A position vector P = [t (3), quat_wxyz (4), s (1)] places an asset in the frame of the query asset of its scene. An
asset's own frame is the unit of its size: its longest side measures 1. Lengths in P are therefore in units of the
query's longest side, s is the asset's size over the query's, and the query itself is the identity.
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..types import Float64Array
from . import similarity, transforms

POSE_WIDTH = 8
MIN_QUATERNION = 1e-6
MIN_SCALE = 0.01
"""Least size of an asset in units of the query's that a network is believed."""
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
    P = np.asarray(poses, dtype=np.float64)
    if P.ndim < 1 or P.shape[-1] != POSE_WIDTH:
        raise InputError(f"poses must have {POSE_WIDTH} numbers [t, quat_wxyz, s] in the last axis, got {P.shape}")
    faults = ~np.isfinite(P).all(axis=-1) | (P[..., 7] <= 0) | (np.linalg.norm(P[..., 3:7], axis=-1) < MIN_QUATERNION)
    if faults.any():
        index = tuple(int(i) for i in np.argwhere(faults)[0])
        raise InputError(
            f"pose {index} is {np.round(P[index], 4).tolist()}: it needs finite numbers, a quaternion that is not zero "
            "and a scale above 0"
        )
    return similarity.compose(P[..., :3], similarity.matrix_from_quat_wxyz(P[..., 3:7]), P[..., 7])


def poses_from_similarities(S_query_asset: np.ndarray) -> Float64Array:
    """Position vectors (..., 8) of similarities (..., 4, 4); quaternions of length one with w >= 0.

    Raises `InputError` for matrices that are no similarities without reflection.
    """
    S = np.asarray(S_query_asset, dtype=np.float64)
    scale, R = split_similarities(S)
    return np.concatenate([S[..., :3, 3], similarity.quat_wxyz_from_matrix(R), scale[..., None]], axis=-1)


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


def valid_poses(poses: np.ndarray, query: int | None = None) -> Float64Array:
    """Position vectors (..., 8) as a network gives them, made such that `similarities_from_poses` takes them.

    Quaternions get length one and w >= 0 (one without direction becomes the identity), scales are at least `MIN_SCALE`;
    row `query` of the last axis but one becomes the identity. Raises `InputError` for numbers that are not finite.
    """
    P = np.array(poses, dtype=np.float64)
    if not np.isfinite(P).all():
        raise InputError("a network gave poses that are not finite: compute in float32 or check the checkpoint")
    q = P[..., 3:7]
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    q = np.where(length < MIN_QUATERNION, IDENTITY[3:7], q / np.maximum(length, MIN_QUATERNION))
    P[..., 3:7] = np.where(q[..., :1] < 0, -q, q)
    P[..., 7] = np.maximum(P[..., 7], MIN_SCALE)
    if query is not None:
        P[..., query, :] = IDENTITY
    return P


def mean_poses(poses: np.ndarray, weights: np.ndarray | None = None) -> Float64Array:
    """Mean (A, 8) of K position vectors (K, A, 8) of each of A assets in the frame of the same query.

    weights (K,) or (K, A), equal by default. The mean is that of `similarity.mean_similarity`: of rotations, not of
    quaternions' components, and of the logarithms of scales. Errors as of it and of `similarities_from_poses`.
    """
    S = np.swapaxes(similarities_from_poses(poses), 0, 1)
    w = None if weights is None else np.asarray(weights, dtype=np.float64)
    if w is not None:
        w = np.broadcast_to(w if w.ndim == 2 else w[:, None], S.shape[1::-1]).T
    return poses_from_similarities(similarity.mean_similarity(S, w))


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
