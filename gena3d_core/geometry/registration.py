"""Joint refinement of the poses of views with depth: all views against one another, by geometry and colour.

Each view is a rigid cloud. Points of one view are paired with the surface of another where they project into it,
and all views move at once to shrink the distances along the surfaces' normals (Chen and Medioni 1991; Neugebauer
1997 for many views) and the differences of intensity (Park et al. 2017). Recorded poses are a prior, so what the
measurements leave free, such as sliding along a bare plane, stays as recorded, and the mean correction stays near
zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import InputError
from ..types import Float32Array, Float64Array, View
from . import camera, transforms
from .registration_terms import Cloud, Equations, PairingLimits, equations, make_cloud, make_patch


@dataclass(frozen=True)
class RegistrationConfig:
    """Limits and expected errors of the refinement."""

    samples: int = 2500
    """Pixels sampled from each view, for geometry and for colour each."""
    gates_m: tuple[float, ...] = (0.08, 0.05, 0.03)
    """Largest distance of a pair, from coarse to fine; the first must exceed the drift."""
    blurs_px: tuple[float, ...] = (6.0, 3.0, 2.0)
    """Smoothing of the intensity at each gate, for pictures 640 pixels wide; the first must exceed the drift."""
    iterations: int = 8
    """Most Gauss-Newton steps at each gate."""
    use_color: bool = True
    max_angle_deg: float = 40.0
    """Largest angle between the normals of a pair."""
    noise_at_1m: float = 0.0025
    """Standard deviation of depth in metres at one metre; grows with the square of the range."""
    independent_pairs: float = 400.0
    """Neighbouring errors are alike: all pairs of two views together count as so many measurements."""
    max_range_ratio: float = 1.6
    """Points farther than this times the near end of a view's depth are left out: biases of range grow with it."""
    drift_m: float = 0.02
    """Expected error of recorded positions of what a view sees (standard deviation of the prior)."""
    drift_deg: float = 1.0
    """Expected error of recorded headings (about the world's z axis)."""
    tilt_deg: float = 0.4
    """Expected error of recorded tilts, smaller because gravity is measured."""
    max_correction_m: float = 0.06
    """A view that would move farther at the centre of what it sees keeps its recorded pose."""
    max_correction_deg: float = 4.0
    min_pairs: int = 150
    """Fewer pairs with all other views together: too little overlap, the view keeps its recorded pose."""

    def __post_init__(self) -> None:
        if not self.gates_m or len(self.gates_m) != len(self.blurs_px):
            raise InputError("registration: gates_m and blurs_px must have the same length, at least one")


LOCAL = RegistrationConfig(
    samples=1500, gates_m=(0.05, 0.03, 0.02), max_range_ratio=10.0, drift_deg=0.1, tilt_deg=0.1, max_correction_m=0.05
)
"""For `refine_poses_around`: what is left after the joint refinement is a shift; one small object tells no rotation."""


@dataclass(frozen=True, eq=False)
class PoseRefinement:
    """What a refinement did.

    rmse_before_m, rmse_after_m  root mean square distance of the pairs along the normal, the same gate for both
    corrections_m, corrections_deg  (V,) movement of the centre of what the views see, rotation of each view
    refined                      (V,) bool: False where the recorded pose was kept
    warnings                     one line for each view that kept its pose, with the reason
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
    return _refine(views, [_near(view, config.max_range_ratio) for view in views], None, config)


def refine_poses_around(
    views: Sequence[View], center_m: np.ndarray, radius_m: float, config: RegistrationConfig = LOCAL
) -> tuple[list[View], PoseRefinement]:
    """The views with poses that fit one another best within a ball of the world, and a report.

    Range errors of depth cameras are not rigid: what aligns the whole scene leaves single objects a centimetre
    apart. The poses returned hold around `center_m` (3,) only. Views that see nothing of the ball keep their pose
    without a warning.
    """
    center = np.asarray(center_m, dtype=np.float64)
    depths: list[Float32Array | None] = []
    for view in views:
        if view.depth_m is None:
            depths.append(None)
            continue
        center_camera = transforms.apply(transforms.inverse(view.T_world_camera), center).astype(np.float32)
        offset = camera.backproject(view.depth_m, view.intrinsics) - center_camera
        with np.errstate(invalid="ignore"):
            inside = (offset * offset).sum(axis=-1) < radius_m**2
        depths.append(np.where(inside, view.depth_m, np.float32(np.nan)))
    seeing = [i for i, depth in enumerate(depths) if depth is not None and np.isfinite(depth).sum() >= config.min_pairs]
    part, report = _refine([views[i] for i in seeing], [depths[i] for i in seeing], center, config)
    refined, moved, turned, done = list(views), np.zeros(len(views)), np.zeros(len(views)), np.zeros(len(views), bool)
    for k, i in enumerate(seeing):
        refined[i], moved[i], turned[i], done[i] = (
            part[k],
            report.corrections_m[k],
            report.corrections_deg[k],
            report.refined[k],
        )
    return refined, replace(report, corrections_m=moved, corrections_deg=turned, refined=done)


def _near(view: View, max_range_ratio: float) -> Float32Array | None:
    """The view's depth without what lies far behind; None without depth."""
    if view.depth_m is None or not np.isfinite(view.depth_m).any():
        return None
    limit = max_range_ratio * np.nanpercentile(view.depth_m[::4, ::4], 10)
    with np.errstate(invalid="ignore"):
        return np.where(view.depth_m < limit, view.depth_m, np.float32(np.nan))


def _refine(
    views: Sequence[View],
    depths: Sequence[Float32Array | None],
    center: Float64Array | None,
    config: RegistrationConfig,
) -> tuple[list[View], PoseRefinement]:
    recorded = np.stack([view.T_world_camera for view in views]) if views else np.zeros((0, 4, 4))
    if len(views) < 2:
        return list(views), PoseRefinement(
            0.0, 0.0, np.zeros(len(views)), np.zeros(len(views)), np.zeros(len(views), bool)
        )
    clouds = [
        make_cloud(view, depth, config.samples) if depth is not None else None
        for view, depth in zip(views, depths, strict=True)
    ]
    active = np.array([cloud is not None for cloud in clouds], dtype=bool)
    warnings = [
        f"registration: view '{view.name}' has no usable depth; its recorded pose is kept"
        for view, usable in zip(views, active, strict=True)
        if not usable
    ]
    if center is None:
        center = _center(clouds, recorded)
    problem = _Problem(views, clouds, recorded, center, _trust(clouds), config)
    poses = recorded
    while active.sum() > 1:
        poses, counts = _align(problem, active)
        moved_m, turned_deg = _corrections(recorded, poses, center)
        lonely = active & (counts < config.min_pairs)
        jumped = active & ((moved_m > config.max_correction_m) | (turned_deg > config.max_correction_deg))
        if not (lonely | jumped).any():
            break
        # One view at a time: a single wrong view drags the others along.
        drop = int(np.flatnonzero(lonely)[0] if lonely.any() else np.argmax(np.where(jumped, moved_m, -1.0)))
        active[drop], poses = False, recorded
        why = (
            f"overlaps the other views in {int(counts[drop])} points only"
            if lonely[drop]
            else f"would move {moved_m[drop] * 100:.1f} cm and {turned_deg[drop]:.1f} degrees, more than drift explains"
        )
        warnings.append(f"registration: view '{views[drop].name}' {why}; its recorded pose is kept")
    if active.sum() < 2:
        active[:], poses = False, recorded
    before, after = _rmse(problem, recorded, active), _rmse(problem, poses, active)
    if active.any() and after > 1.2 * before + 1e-4:
        warnings.append("registration: refinement did not bring the views closer; recorded poses are kept")
        poses, after, active = recorded, before, np.zeros_like(active)
    moved_m, turned_deg = _corrections(recorded, poses, center)
    refined = [replace(view, T_world_camera=T) for view, T in zip(views, poses, strict=True)]
    return refined, PoseRefinement(before, after, moved_m, turned_deg, active, tuple(warnings))


@dataclass(frozen=True, eq=False)
class _Problem:
    """What stays the same while poses change; `trust` (V,) scales each view's prior deviation."""

    views: Sequence[View]
    clouds: Sequence[Cloud | None]
    recorded: Float64Array
    center: Float64Array
    trust: Float64Array
    config: RegistrationConfig


def _center(clouds: Sequence[Cloud | None], poses: Float64Array) -> Float64Array:
    """Median of the sampled world points, about which rotations are taken."""
    points = [
        transforms.apply(T, cloud.sample_points) for cloud, T in zip(clouds, poses, strict=True) if cloud is not None
    ]
    return np.median(np.concatenate(points), axis=0).astype(np.float64) if points else np.zeros(3)


def _trust(clouds: Sequence[Cloud | None]) -> Float64Array:
    """(V,) factor on the prior deviation of each view: depth errs more near the borders of the picture and far away."""
    factors = np.ones(len(clouds))
    ranges = np.array([np.median(c.sample_points[:, 2]) if c is not None else np.nan for c in clouds])
    typical = np.nanmedian(ranges) if np.isfinite(ranges).any() else 1.0
    for i, cloud in enumerate(clouds):
        if cloud is None:
            continue
        middle = np.median(cloud.sample_uv, axis=0) / (cloud.intrinsics.width, cloud.intrinsics.height) * 2.0 - 1.0
        factors[i] = (1.0 + 2.0 * float(np.abs(middle).max()) ** 4) * max(1.0, float(ranges[i] / typical))
    return factors


def _align(problem: _Problem, active: np.ndarray) -> tuple[Float64Array, np.ndarray]:
    """Poses (V, 4, 4) after Gauss-Newton from coarse to fine, and the number of pairs (V,) at the end."""
    config, poses = problem.config, problem.recorded.copy()
    counts = np.zeros(len(poses), dtype=np.int64)
    for gate_m, blur_px in zip(config.gates_m, config.blurs_px, strict=True):
        limits = PairingLimits(gate_m, config.max_angle_deg, config.noise_at_1m)
        patches = (
            [make_patch(view, blur_px * view.intrinsics.width / 640.0) for view in problem.views]
            if config.use_color
            else None
        )
        for _ in range(config.iterations):
            shape, color = equations(problem.clouds, poses, active, limits, patches)
            counts[:] = 0
            for pair in shape:
                counts[[pair.source, pair.target]] += len(pair.residuals)
            step = _solve(shape + color, poses, problem)
            for i in np.flatnonzero(active):
                poses[i] = _move(poses[i], step[i], problem.center)
            if np.abs(step[:, 3:]).max() < 2e-4 and np.abs(step[:, :3]).max() < 2e-4:
                break
    return poses, counts


def _solve(pairs: Sequence[Equations], poses: Float64Array, problem: _Problem) -> Float64Array:
    """One Gauss-Newton step: twists (V, 6), rotation vector then translation about the centre."""
    config, count = problem.config, len(poses)
    tilt, heading = np.radians(config.tilt_deg), np.radians(config.drift_deg)
    deviation = np.array([tilt, tilt, heading, *[config.drift_m] * 3]) * problem.trust[:, None]
    total = _twists(problem.recorded, poses, problem.center)
    H = np.zeros((count, count, 6, 6))
    H[range(count), range(count)] = deviation[:, :, None] ** -2.0 * np.eye(6)
    g = -total * deviation**-2.0
    for pair in pairs:
        if len(pair.residuals) < 20:
            continue
        scaled = pair.residuals / pair.sigmas
        spread = max(1.0, 1.4826 * float(np.median(np.abs(scaled))))
        weights = 1.0 / (1.0 + (scaled / (2.0 * spread)) ** 2) ** 2 / (pair.sigmas * spread) ** 2
        # Two ordered couples see the same surface, hence one half.
        weights *= min(1.0, 0.5 * config.independent_pairs / len(weights))
        J = np.concatenate([np.cross(pair.points - problem.center, pair.gradients), pair.gradients], axis=1)
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
    R = Rotation.from_rotvec(twist[:3]).as_matrix()
    return transforms.rigid(R, center - R @ center + twist[3:]) @ T


def _twists(recorded: Float64Array, poses: Float64Array, center: Float64Array) -> Float64Array:
    """(V, 6) rotation vectors and translations about `center` that led from the recorded poses to `poses`."""
    delta = poses @ transforms.inverse(recorded)
    rotation = Rotation.from_matrix(delta[:, :3, :3]).as_rotvec()
    return np.concatenate([rotation, delta[:, :3, :3] @ center + delta[:, :3, 3] - center], axis=1)


def _corrections(
    recorded: Float64Array, poses: Float64Array, center: Float64Array
) -> tuple[Float64Array, Float64Array]:
    twists = _twists(recorded, poses, center)
    return np.linalg.norm(twists[:, 3:], axis=1), np.degrees(np.linalg.norm(twists[:, :3], axis=1))


def _rmse(problem: _Problem, poses: Float64Array, active: np.ndarray) -> float:
    """Root mean square of the distances along the normals within the coarsest gate; 0 without pairs."""
    limits = PairingLimits(problem.config.gates_m[0], problem.config.max_angle_deg, problem.config.noise_at_1m)
    shape, _ = equations(problem.clouds, poses, active, limits, None)
    joined = np.concatenate([pair.residuals for pair in shape]) if shape else np.zeros(0)
    return float(np.sqrt(np.mean(joined**2))) if len(joined) else 0.0
