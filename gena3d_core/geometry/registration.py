"""Joint refinement of the poses of views with depth: point-to-plane ICP of all views against one another.

Each view is a rigid cloud. Points of one view are paired with the surface of another where they project into it,
and all views move at once to shrink the distances along the surfaces' normals (Chen and Medioni 1991; Neugebauer
1997 for many views). Recorded poses are a prior, so what the geometry leaves free, such as sliding along a bare
plane, stays as recorded, and the mean of the corrections stays near zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..types import Float64Array, View
from . import transforms
from .registration_terms import Cloud, Equations, color_equations, make_cloud, normalized_intensity, shape_equations


@dataclass(frozen=True)
class RegistrationConfig:
    """Limits and expected errors of `refine_view_poses`."""

    points_per_view: int = 6000
    """Pixels sampled from each view."""
    gates_m: tuple[float, ...] = (0.08, 0.05, 0.03)
    """Largest distance of a pair, from coarse to fine; the first must exceed the drift."""
    blurs_px: tuple[float, ...] = (6.0, 3.0, 2.0)
    use_color: bool = True
    color_weight: float = 1.0
    max_range_ratio: float = 1.8
    """Points farther than this times the near end of the view's depth are left out: errors of range grow with it."""
    iterations: int = 8
    """Gauss-Newton steps at each gate."""
    max_angle_deg: float = 40.0
    """Largest angle between the normals of a pair."""
    noise_at_1m: float = 0.0025
    """Standard deviation of depth in metres at one metre; grows with the square of the range."""
    independent_pairs: float = 400.0
    """Neighbouring depth errors are alike: all pairs of two views together count as so many measurements."""
    drift_m: float = 0.02
    """Expected error of recorded positions of what a view sees (standard deviation of the prior)."""
    drift_deg: float = 1.0
    """Expected error of recorded headings (about the world's z axis)."""
    tilt_deg: float = 0.4
    """Expected error of recorded tilts, smaller because gravity is measured."""
    max_correction_m: float = 0.06
    """A view that would move farther at the centre of what it sees keeps its recorded pose."""
    max_correction_deg: float = 4.0
    min_pairs: int = 300
    """Fewer pairs with all other views together: too little overlap, the view keeps its recorded pose."""


@dataclass(frozen=True, eq=False)
class PoseRefinement:
    """What `refine_view_poses` did.

    rmse_before_m, rmse_after_m  robust root mean square distance of the pairs along the normal, same gate for both
    corrections_m, corrections_deg  (V,) movement of the centre of what each view sees, rotation of each view
    refined                      (V,) bool: False where the recorded pose was kept
    warnings                     one line for each view that was kept, or direction that geometry left free
    """

    rmse_before_m: float
    rmse_after_m: float
    corrections_m: Float64Array
    corrections_deg: Float64Array
    refined: np.ndarray
    warnings: tuple[str, ...] = ()

    def residuals(self) -> dict[str, float]:
        """Named figures for a report."""
        return {
            "registration_rmse_before_m": self.rmse_before_m,
            "registration_rmse_m": self.rmse_after_m,
            "pose_correction_max_m": float(self.corrections_m.max(initial=0.0)),
            "pose_correction_max_deg": float(self.corrections_deg.max(initial=0.0)),
        }


def refine_view_poses(
    views: Sequence[View], config: RegistrationConfig | None = None
) -> tuple[list[View], PoseRefinement]:
    """The views with poses aligned to one another, and a report.

    Views need depth; those without keep their pose. A view keeps its recorded pose, with a warning, when it overlaps
    too little with the others or would move farther than drift explains. One view comes back as it is.
    """
    config = config or RegistrationConfig()
    recorded = np.stack([view.T_world_camera for view in views]) if views else np.zeros((0, 4, 4))
    clouds = [make_cloud(view, config.points_per_view, config.max_range_ratio) for view in views]
    active = np.array([cloud is not None for cloud in clouds], dtype=bool)
    warnings = [
        f"registration: view '{view.name}' has no usable depth; its recorded pose is kept"
        for view, usable in zip(views, active, strict=True)
        if not usable
    ]
    poses, center = recorded, _center(clouds, recorded)
    while active.sum() > 1:
        poses, counts = _align(clouds, recorded, active, center, config)
        lonely = active & (counts < config.min_pairs)
        moved_m, turned_deg = _corrections(recorded, poses, center)
        jumped = active & ((moved_m > config.max_correction_m) | (turned_deg > config.max_correction_deg))
        if not (lonely | jumped).any():
            break
        # One view at a time: a single wrong view drags the others along.
        drop = int(np.flatnonzero(lonely)[0] if lonely.any() else np.argmax(np.where(jumped, moved_m, -1.0)))
        active[drop] = False
        poses = recorded
        why = (
            f"overlaps the other views in {int(counts[drop])} points only"
            if lonely[drop]
            else f"would move by {moved_m[drop] * 100:.1f} cm and {turned_deg[drop]:.1f} degrees, more than drift explains"
        )
        warnings.append(f"registration: view '{views[drop].name}' {why}; its recorded pose is kept")
    if active.sum() < 2:
        active[:] = False
        poses = recorded
    before, after = (_rmse(clouds, p, active, config) for p in (recorded, poses))
    if active.any() and not after <= before:
        warnings.append("registration: refinement did not bring the views closer; recorded poses are kept")
        poses, after, active = recorded, before, np.zeros_like(active)
    moved_m, turned_deg = _corrections(recorded, poses, center)
    refined = [replace(view, T_world_camera=T) for view, T in zip(views, poses, strict=True)]
    return refined, PoseRefinement(before, after, moved_m, turned_deg, active, tuple(warnings))


def _center(clouds: Sequence[Cloud | None], poses: Float64Array) -> Float64Array:
    """Median of the sampled world points, about which rotations are taken."""
    points = [
        transforms.apply(T, cloud.shape_samples.points)
        for cloud, T in zip(clouds, poses, strict=True)
        if cloud is not None
    ]
    return np.median(np.concatenate(points), axis=0).astype(np.float64) if points else np.zeros(3)


def _align(
    clouds: Sequence[Cloud | None],
    recorded: Float64Array,
    active: np.ndarray,
    center: Float64Array,
    config: RegistrationConfig,
) -> tuple[Float64Array, np.ndarray]:
    """Poses (V, 4, 4) after Gauss-Newton from coarse to fine, and the number of pairs (V,) at the end."""
    poses = recorded.copy()
    counts = np.zeros(len(poses), dtype=np.int64)
    for gate_m, blur_px in zip(config.gates_m, config.blurs_px, strict=True):
        images = [normalized_intensity(cloud.view, blur_px) if cloud is not None else None for cloud in clouds]
        for _ in range(config.iterations):
            shape = shape_equations(clouds, poses, active, gate_m, config.max_angle_deg, config.noise_at_1m)
            color = color_equations(clouds, poses, active, gate_m, config.max_angle_deg, images)
            counts[:] = 0
            for pair in shape:
                counts[pair.source] += len(pair.residuals)
                counts[pair.target] += len(pair.residuals)
            step = _solve(shape + (color if config.use_color else []), recorded, poses, center, config)
            poses = np.stack([_move(T, twist, center) for T, twist in zip(poses, step, strict=True)])
            if np.abs(step[:, 3:]).max() < 1e-4 and np.abs(step[:, :3]).max() < 1e-4:
                break
    return poses, counts


def _solve(
    pairs: Sequence[Equations],
    recorded: Float64Array,
    poses: Float64Array,
    center: Float64Array,
    config: RegistrationConfig,
) -> Float64Array:
    """One Gauss-Newton step: twists (V, 6), rotation vector then translation about `center`."""
    count = len(poses)
    H = np.zeros((count, count, 6, 6))
    g = np.zeros((count, 6))
    tilt, heading = np.radians(config.tilt_deg), np.radians(config.drift_deg)
    prior = np.array([tilt, tilt, heading, *[config.drift_m] * 3]) ** -2.0
    total = np.stack([_twist(T, R, center) for T, R in zip(poses, recorded, strict=True)])
    H[range(count), range(count)] += np.diag(prior)
    g -= prior * total
    for pair in pairs:
        if len(pair.residuals) < 20:
            continue
        scaled = pair.residuals / pair.sigmas
        spread = max(1.0, 1.4826 * float(np.median(np.abs(scaled))))
        weights = 1.0 / (1.0 + (scaled / (2.0 * spread)) ** 2) ** 2 / (pair.sigmas * spread) ** 2
        # Two ordered couples see the same surface, hence one half.
        weights *= min(1.0, 0.5 * config.independent_pairs / len(weights))
        J = np.concatenate([np.cross(pair.points - center, pair.gradients), pair.gradients], axis=1)
        JW = J * weights[:, None]
        block, force = JW.T @ J, JW.T @ pair.residuals
        H[pair.source, pair.source] += block
        H[pair.target, pair.target] += block
        H[pair.source, pair.target] -= block
        H[pair.target, pair.source] -= block
        g[pair.source] -= force
        g[pair.target] += force
    matrix = H.transpose(0, 2, 1, 3).reshape(6 * count, 6 * count)
    return np.linalg.solve(matrix, g.reshape(-1)).reshape(count, 6)


def _move(T: Float64Array, twist: Float64Array, center: Float64Array) -> Float64Array:
    R = transforms.Rotation.from_rotvec(twist[:3]).as_matrix()
    return transforms.rigid(R, center - R @ center + twist[3:]) @ T


def _twist(T: Float64Array, T_recorded: Float64Array, center: Float64Array) -> Float64Array:
    """Rotation vector and translation about `center` that led from `T_recorded` to `T`."""
    delta = T @ transforms.inverse(T_recorded)
    rotation = transforms.Rotation.from_matrix(delta[:3, :3]).as_rotvec()
    return np.concatenate([rotation, delta[:3, :3] @ center + delta[:3, 3] - center])


def _corrections(
    recorded: Float64Array, poses: Float64Array, center: Float64Array
) -> tuple[Float64Array, Float64Array]:
    twists = np.array([_twist(T, R, center) for T, R in zip(poses, recorded, strict=True)]).reshape(-1, 6)
    return np.linalg.norm(twists[:, 3:], axis=1), np.degrees(np.linalg.norm(twists[:, :3], axis=1))


def _rmse(clouds: Sequence[Cloud | None], poses: Float64Array, active: np.ndarray, config: RegistrationConfig) -> float:
    """Root mean square of the distances along the normals within the coarsest gate; 0 without pairs."""
    equations = shape_equations(clouds, poses, active, config.gates_m[0], config.max_angle_deg, config.noise_at_1m)
    distances = [pair.residuals for pair in equations]
    joined = np.concatenate(distances) if distances else np.zeros(0)
    return float(np.sqrt(np.mean(joined**2))) if len(joined) else 0.0
