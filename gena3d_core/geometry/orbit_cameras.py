"""Cameras spread over a sphere, looking at its centre: the views of the published data sets.

Directions are (yaw, pitch) in radians: (cos yaw cos pitch, sin yaw cos pitch, sin pitch), z up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..types import Float64Array, require_shape

PRIMES = (2, 3, 5, 7, 11, 13)
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""OpenGL and Blender cameras look along -z with y up, OpenCV's along z with y down; the same matrix leads back."""


def radical_inverse(index: np.ndarray, base: int) -> Float64Array:
    """(N,) digits of `index` (N,) in `base` mirrored at the point: van der Corput's sequence, in [0, 1)."""
    rest = np.array(index, dtype=np.int64)
    if base < 2 or (rest < 0).any():
        raise InputError(f"a radical inverse needs a base of at least 2 and indices from 0, got base {base}")
    inverse, digit = np.zeros(rest.shape), 1.0 / base
    while rest.any():
        inverse += digit * (rest % base)
        rest //= base
        digit /= base
    return inverse


def hammersley(count: int, dimensions: int) -> Float64Array:
    """(count, dimensions) Hammersley points in [0, 1): i / count, then radical inverses in the first primes."""
    if count < 1 or not 1 <= dimensions <= len(PRIMES) + 1:
        raise InputError(f"Hammersley points: count >= 1, 1 to {len(PRIMES) + 1} dimensions; got {count}, {dimensions}")
    index = np.arange(count)
    return np.stack([index / count, *(radical_inverse(index, prime) for prime in PRIMES[: dimensions - 1])], axis=1)


def sphere_yaw_pitch(
    count: int, offset: Sequence[float] | np.ndarray = (0.0, 0.0), favour_above: bool = False
) -> Float64Array:
    """(count, 2) yaw and pitch of directions spread evenly over the sphere.

    offset shifts the pattern: its first entry in steps of the points, from 0 to 1, the second in turns.
    favour_above: a quarter of the cameras stand below the origin instead of half, as in TRELLIS' data set.
    """
    pattern = hammersley(count, 2)
    u, v = pattern[:, 0] + offset[0] / count, pattern[:, 1] + offset[1]
    if favour_above:
        u = np.where(u < 0.25, 2.0 * u, 2.0 * u / 3.0 + 1.0 / 3.0)
    return np.stack([2.0 * np.pi * v, np.arccos(np.clip(1.0 - 2.0 * u, -1.0, 1.0)) - np.pi / 2.0], axis=1)


def orbit_poses_opengl(yaw_pitch: np.ndarray, radius: np.ndarray | float) -> Float64Array:
    """(N, 4, 4) camera-to-world, OpenGL axes, of cameras at `radius` (N,) or one, that look at the origin, z up.

    Defined by yaw also where the camera stands right above or below the origin.
    """
    require_shape("yaw_pitch", yaw_pitch, (None, 2))
    (sin_yaw, sin_pitch), (cos_yaw, cos_pitch) = np.sin(yaw_pitch).T, np.cos(yaw_pitch).T
    right = np.stack([-sin_yaw, cos_yaw, np.zeros_like(sin_yaw)], axis=-1)
    up = np.stack([-cos_yaw * sin_pitch, -sin_yaw * sin_pitch, cos_pitch], axis=-1)
    back = np.stack([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch], axis=-1)
    poses = np.tile(np.eye(4), (len(yaw_pitch), 1, 1))
    poses[:, :3, :3] = np.stack([right, up, back], axis=-1)
    poses[:, :3, 3] = np.broadcast_to(np.asarray(radius, dtype=np.float64), (len(yaw_pitch),))[:, None] * back
    return poses


def opencv_from_opengl(T_world_camera: np.ndarray) -> Float64Array:
    """`T_world_camera` (..., 4, 4) with OpenGL camera axes -> the same pose with optical axes (REP-103), and back."""
    return np.asarray(T_world_camera, dtype=np.float64) @ OPENGL_FROM_OPENCV


def normalised_intrinsics(fov: np.ndarray | float) -> Float64Array:
    """(..., 3, 3) camera matrices of square images with full field of view `fov` (...), sides of length 1."""
    fov = np.asarray(fov, dtype=np.float64)
    if not ((fov > 0) & (fov < np.pi)).all():
        raise InputError("a field of view lies between 0 and π radians")
    K = np.zeros((*fov.shape, 3, 3))
    K[..., 0, 0] = K[..., 1, 1] = 0.5 / np.tan(fov / 2.0)
    K[..., :2, 2] = 0.5
    K[..., 2, 2] = 1.0
    return K


def framing_radius(fov: np.ndarray | float) -> Float64Array:
    """Distance (...) from which the sphere around the cube [-0.5, 0.5]^3 just fills a field of view (...)."""
    return np.sqrt(3.0) / 2.0 / np.sin(np.asarray(fov, dtype=np.float64) / 2.0)


def project_normalised(
    points: np.ndarray, T_camera_world: np.ndarray, K: np.ndarray
) -> tuple[Float64Array, Float64Array]:
    """Points (P, 3) in N cameras (N, 4, 4), optical axes, with K (N, 3, 3): uv (N, P, 2) and depth (N, P).

    uv counts image sides from the upper left corner, x right, y down; NaN where the depth is not positive.
    """
    in_camera = np.einsum("nij,pj->npi", T_camera_world[:, :3, :3], points) + T_camera_world[:, None, :3, 3]
    image = np.einsum("nij,npj->npi", K, in_camera)
    depth = in_camera[..., 2]
    front = np.where(depth > 0, depth, np.nan)
    return image[..., :2] / front[..., None], depth
