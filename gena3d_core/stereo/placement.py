"""From a front end's own frame and unit to the world: a similarity from known poses or measured depth, or a guess.

Networks of scene geometry and structure from motion give shapes and poses up to a similarity. What fixes it, best
first: measured depth in views with a known pose, known poses at two or more positions, measured depth alone (scale
only). Without any of them the result is up to scale, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from ..geometry import camera, transforms
from ..geometry.pointcloud import depth_normals
from ..geometry.similarity_fit import fit_cameras, fit_trimmed
from ..types import BoolArray, Float32Array, Float64Array, Intrinsics, View

MIN_BASELINE_M = 0.02
"""Known positions closer together than this tell no scale: TF jitters by millimetres."""
LEAST_PARALLAX = 1e-3
"""Estimated positions closer together than this share of the depth tell no scale either."""
MIN_PAIRS = 30
"""Pixels with both measured and estimated depth from which a view's measurement counts."""
SAMPLES = 4000
"""Pairs of points taken from each view."""
SUSPICIOUS_SHARE = 0.15
SUSPICIOUS_DEG = 10.0
"""Misfit of the known cameras, relative to how far apart they are, and of their orientation, that is reported."""
GUESSED_DEPTH_M = 1.0
"""Median depth where nothing tells the scale."""
MAX_TILT_DEG = 60.0
"""Photographs are not held more tilted than this against the upright, on average."""


@dataclass(frozen=True, eq=False)
class EstimatedViews:
    """What a front end found out about V views, in a frame and a unit of its own.

    T_estimate_camera  (V, 4, 4) optical frame to the front end's
    depth              one (H, W) float32 a view, of the size of its image, NaN = unknown
    confidence         one (H, W) float32 in [0, 1] a view
    intrinsics         one a view
    found              (V,) bool: False for views that could not be placed
    about_metres       the unit is a guess of metres
    """

    T_estimate_camera: Float64Array
    depth: tuple[Float32Array, ...]
    confidence: tuple[Float32Array, ...]
    intrinsics: tuple[Intrinsics, ...]
    found: BoolArray
    about_metres: bool = False


@dataclass(frozen=True, eq=False)
class StereoResult:
    """Views with depth, and how far to trust their scale.

    views      in the order given; a view that could not be placed has no depth, and no pose unless it had one
    metric     False: lengths are up to an unknown scale
    residuals  named figures, such as `stereo_alignment_rmse_m`
    warnings   one line each
    """

    views: tuple[View, ...]
    metric: bool = True
    residuals: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Placement:
    """Similarity S_world_estimate (4, 4) of an estimate's frame to the world; the rest as in `StereoResult`."""

    S_world_estimate: Float64Array
    metric: bool
    residuals: Mapping[str, float]
    warnings: tuple[str, ...]

    @property
    def scale(self) -> float:
        """Metres for one unit of the estimate."""
        return float(np.cbrt(np.linalg.det(self.S_world_estimate[:3, :3])))


def placed_views(views: Sequence[View], estimate: EstimatedViews, name: str) -> StereoResult:
    """The views with the estimate's depth in metres, and its poses where none was known.

    name: of the front end, for messages. Raises `InputError` when no view could be placed.
    """
    placement = place(views, estimate, name)
    poses = _moved(placement.S_world_estimate, estimate.T_estimate_camera)
    result = []
    for i, view in enumerate(views):
        if not estimate.found[i]:
            nothing = np.full(view.color.shape[:2], np.nan, dtype=np.float32)
            result.append(replace(view, depth_m=nothing, depth_confidence=np.zeros_like(nothing)))
            continue
        result.append(
            replace(
                view,
                T_world_camera=view.T_world_camera if view.pose_known else poses[i],
                pose_known=True,
                intrinsics=estimate.intrinsics[i],
                depth_m=(placement.scale * estimate.depth[i]).astype(np.float32),
                depth_confidence=np.where(np.isfinite(estimate.depth[i]), estimate.confidence[i], np.float32(0.0)),
            )
        )
    return StereoResult(tuple(result), placement.metric, placement.residuals, placement.warnings)


def place(views: Sequence[View], estimate: EstimatedViews, name: str) -> Placement:
    """Where the estimate lies in the world; see the module for what decides it."""
    found = [i for i in range(len(views)) if estimate.found[i]]
    if not found:
        raise InputError(f"{name}: none of the {len(views)} views could be placed")
    median_depth = _median_depth(estimate, name)
    posed = [i for i in found if views[i].pose_known]
    measured = [i for i in found if _measured_pixels(views[i], estimate.depth[i]).sum() >= MIN_PAIRS]
    known = np.stack([views[i].T_world_camera for i in posed]) if posed else np.zeros((0, 4, 4))
    baseline_m = _spread(known[:, :3, 3])
    estimated = estimate.T_estimate_camera[posed]
    residuals: dict[str, float] = {}
    warnings: list[str] = []
    metric = True
    if both := [i for i in measured if views[i].pose_known]:
        S, residuals["stereo_alignment_rmse_m"] = _by_depth(views, estimate, both)
    elif baseline_m >= MIN_BASELINE_M and _spread(estimated[:, :3, 3]) > LEAST_PARALLAX * median_depth:
        S = fit_cameras(estimated, known, _depth_scale(views, estimate, measured)).S_world_estimate
    else:
        scale = _depth_scale(views, estimate, measured)
        metric = scale is not None
        if scale is None:
            why = "cameras at one place only" if posed else "no known camera position"
            scale, taken = 1.0, "the network's own guess of metres is taken"
            if not estimate.about_metres:
                scale = GUESSED_DEPTH_M / median_depth
                taken = f"a median depth of {GUESSED_DEPTH_M:g} m is assumed"
            warnings.append(f"{name}: sizes are up to scale (no camera depth, {why}): {taken}")
        if posed:
            S = fit_cameras(estimated, known, scale).S_world_estimate
        else:
            S = scale * _upright(estimate)
            S[3, 3] = 1.0
            warnings.append(
                f"{name}: no view has a pose: the world's origin is the first camera, and up is the surface normal "
                "that most of the scene has"
            )
    if posed:
        residuals.update(_camera_misfit(S, estimated, known))
        warnings.extend(_contradictions(residuals, baseline_m, name))
    placement = Placement(S, metric, residuals, tuple(warnings))
    residuals["stereo_scale_m"] = placement.scale
    residuals["stereo_metric"] = float(metric)
    return placement


def upright_views(views: Sequence[View]) -> list[View]:
    """Placed views with depth in a world that is turned upright: for views whose world was a guess."""
    seen = [view for view in views if view.pose_known]
    if not seen:
        return list(views)
    depths = tuple(np.full(v.color.shape[:2], np.nan, np.float32) if v.depth_m is None else v.depth_m for v in seen)
    T = _upright(
        EstimatedViews(
            T_estimate_camera=np.stack([view.T_world_camera for view in seen]),
            depth=depths,
            confidence=depths,
            intrinsics=tuple(view.intrinsics for view in seen),
            found=np.ones(len(seen), dtype=bool),
        )
    )
    return [replace(view, T_world_camera=T @ view.T_world_camera) if view.pose_known else view for view in views]


def _moved(S: Float64Array, T_estimate_camera: Float64Array) -> Float64Array:
    """Cameras (V, 4, 4) moved by a similarity: they stay rigid."""
    moved = S @ T_estimate_camera
    moved[:, :3, :3] /= np.cbrt(np.linalg.det(S[:3, :3]))
    return moved


def _spread(positions_m: np.ndarray) -> float:
    """Largest distance of a position (V, 3) from the first; 0 for none."""
    return float(np.linalg.norm(positions_m - positions_m[:1], axis=1).max(initial=0.0))


def _measured_pixels(view: View, depth: Float32Array) -> BoolArray:
    if view.depth_m is None:
        return np.zeros(depth.shape, dtype=bool)
    return np.isfinite(view.depth_m) & (np.nan_to_num(view.depth_m) > 0) & np.isfinite(depth)


def _by_depth(views: Sequence[View], estimate: EstimatedViews, chosen: Sequence[int]) -> tuple[Float64Array, float]:
    """Similarity from pixels with measured and estimated depth, and the root mean square of what is left."""
    source, target = [], []
    for i in chosen:
        view, depth = views[i], estimate.depth[i]
        pixels = np.flatnonzero(_measured_pixels(view, depth))
        pixels = pixels[:: max(1, len(pixels) // SAMPLES)]
        assert view.depth_m is not None
        here = camera.backproject(depth, estimate.intrinsics[i]).reshape(-1, 3)[pixels]
        there = camera.backproject(view.depth_m, view.intrinsics).reshape(-1, 3)[pixels]
        source.append(transforms.apply(estimate.T_estimate_camera[i], here.astype(np.float64)))
        target.append(transforms.apply(view.T_world_camera, there.astype(np.float64)))
    return fit_trimmed(np.concatenate(source), np.concatenate(target))


def _depth_scale(views: Sequence[View], estimate: EstimatedViews, measured: Sequence[int]) -> float | None:
    """Median of measured over estimated depth; None without measurement."""
    ratios = []
    for i in measured:
        pixels = _measured_pixels(views[i], estimate.depth[i])
        depth_m = views[i].depth_m
        assert depth_m is not None
        ratios.append(depth_m[pixels] / estimate.depth[i][pixels])
    return float(np.median(np.concatenate(ratios))) if ratios else None


def _median_depth(estimate: EstimatedViews, name: str) -> float:
    depth = np.concatenate([d[np.isfinite(d)] for d in estimate.depth])
    if not len(depth):
        raise InputError(f"{name}: no pixel of any view has a trusted depth: surfaces without texture, or no overlap")
    return float(np.median(depth))


def _upright(estimate: EstimatedViews) -> Float64Array:
    """Rigid `T_upright_estimate` (4, 4): z is the normal that most surface has, the origin the first placed camera."""
    cameras = estimate.T_estimate_camera[estimate.found]
    held = -cameras[:, :3, 1].mean(axis=0)
    held /= max(float(np.linalg.norm(held)), 1e-9)
    up = _common_normal(estimate, held)
    forward = cameras[0, :3, 2]
    side = np.cross(up, forward)
    if np.linalg.norm(side) < 1e-6:
        side = cameras[0, :3, 0]
    y = np.cross(up, side - up * (side @ up))
    y /= np.linalg.norm(y)
    R = np.stack([np.cross(y, up), y, up])
    return transforms.rigid(R, -R @ cameras[0, :3, 3])


def _common_normal(estimate: EstimatedViews, held: Float64Array) -> Float64Array:
    """(3,) the densest direction of surface normals that is not too far from `held` up; that itself without any."""
    normals = []
    for i in np.flatnonzero(estimate.found):
        in_camera = depth_normals(camera.backproject(estimate.depth[i], estimate.intrinsics[i])).reshape(-1, 3)
        in_camera = in_camera[np.isfinite(in_camera).all(axis=1)]
        every = max(1, len(in_camera) * int(estimate.found.sum()) // 2000)
        normals.append(in_camera[::every].astype(np.float64) @ estimate.T_estimate_camera[i][:3, :3].T)
    candidates = np.concatenate(normals)
    candidates = candidates[candidates @ held > np.cos(np.radians(MAX_TILT_DEG))]
    if len(candidates) < MIN_PAIRS:
        return held
    alike = candidates @ candidates.T > np.cos(np.radians(10.0))
    up = candidates[alike[np.argmax(alike.sum(axis=1))]].mean(axis=0)
    return up / np.linalg.norm(up)


def _camera_misfit(S: Float64Array, estimated: Float64Array, known: Float64Array) -> dict[str, float]:
    moved = _moved(S, estimated)
    left_m = np.linalg.norm(moved[:, :3, 3] - known[:, :3, 3], axis=1)
    cosine = (np.einsum("vij,vij->v", moved[:, :3, :3], known[:, :3, :3]) - 1.0) / 2.0
    angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return {
        "stereo_camera_rmse_m": float(np.sqrt((left_m**2).mean())),
        "stereo_camera_max_deg": float(angle.max()),
    }


def _contradictions(residuals: Mapping[str, float], baseline_m: float, name: str) -> list[str]:
    off_m, off_deg = residuals["stereo_camera_rmse_m"], residuals["stereo_camera_max_deg"]
    if off_m <= max(MIN_BASELINE_M, SUSPICIOUS_SHARE * baseline_m) and off_deg <= SUSPICIOUS_DEG:
        return []
    return [
        f"{name}: the known camera poses and those that the images tell differ by {100 * off_m:.1f} cm and "
        f"{off_deg:.0f} degrees: check TF and its stamps, or distrust the scale"
    ]
