"""How different two camera poses are for a reconstruction: baseline and view angle in units of 'one new view'."""

from __future__ import annotations

import numpy as np

from ..types import Float64Array

SATURATION = 8.0
"""Beyond this many units poses are merely 'far': more distance adds little, so sharpness decides."""


def pose_distance(
    T_a: np.ndarray, T_b: np.ndarray, baseline_unit_m: float = 0.05, angle_unit_rad: float = 0.14
) -> Float64Array:
    """Distances (A, B) between poses `T_a` (A, 4, 4) and `T_b` (B, 4, 4), each `T_world_camera`.

    One unit is `baseline_unit_m` metres of baseline or `angle_unit_rad` radians between the optical axes; both add up
    in quadrature and the sum saturates softly at `SATURATION`. Roll about the optical axis shows nothing new and
    counts nothing.
    """
    baseline_m = np.linalg.norm(T_a[:, None, :3, 3] - T_b[None, :, :3, 3], axis=-1)
    cos = np.clip(np.einsum("ai,bi->ab", T_a[:, :3, 2], T_b[:, :3, 2]), -1.0, 1.0)
    units = np.hypot(baseline_m / baseline_unit_m, np.arccos(cos) / angle_unit_rad)
    return SATURATION * -np.expm1(-units / SATURATION)


def farthest_points(distance: np.ndarray, weight: np.ndarray, count: int) -> list[int]:
    """Greedy choice of `count` of N poses: each next one has the largest weight x distance to those chosen.

    distance (N, N) symmetric; weight (N,) > 0, largest for the first choice. Ties go to the lower index, so a caller
    who sorts by a key that does not depend on the order of arrival gets a result that does not either.
    """
    if count <= 0 or len(weight) == 0:
        return []
    chosen = [int(np.argmax(weight))]
    nearest = distance[chosen[0]].copy()
    while len(chosen) < min(count, len(weight)):
        # Exact repeats of a chosen pose have distance 0: the small floor lets the sharpest of them win.
        gain = weight * (nearest + 1e-6)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        nearest = np.minimum(nearest, distance[chosen[-1]])
    return chosen
