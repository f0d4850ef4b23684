"""Structure from motion with pycolmap: poses of photographs without any weights; the plane sweep then gives depth."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import InputError, MissingDependencyError
from ..types import Float32Array, Intrinsics, View
from .depth_camera import DepthCamera
from .placement import EstimatedViews, StereoResult, placed_views, upright_views
from .plane_sweep import PlaneSweep, PlaneSweepConfig
from .signal_handlers import kept_handlers

NAME = "sfm"
MIN_MATCHES = 15
"""Fewer than these between two views are chance."""
ENOUGH_MATCHES, FEW_MATCHES = 50, 30
"""Matches of the pair of views that a reconstruction starts from: usually, and where there is no better one."""
PATIENT_CONTRAST = 0.002
"""Contrast that a feature must have where few were found, a third of the usual."""


@dataclass(frozen=True)
class StructureFromMotionConfig:
    """How the photographs are matched and placed."""

    max_image_side: int = 1600
    """Features are looked for in images of at most this side, in pixels."""
    max_features: int = 4096
    """Features of each view."""
    min_triangulation_deg: float = 4.0
    """Angle between the viewing rays of the first pair below which it is not trusted to start from."""
    thorough: bool = True
    """Where fewer than half of the views can be placed, try once more with tolerant, many times slower features."""
    keep_measured: bool = True
    """Views with depth of their own keep it, cleaned, and lend its scale to the others."""
    threads: int = -1
    """Threads of pycolmap, -1: all cores."""
    seed: int = 0
    sweep: PlaneSweepConfig = field(default_factory=lambda: PlaneSweepConfig(refine_poses=False))
    """Of the depth; the poses have been adjusted by then."""

    def __post_init__(self) -> None:
        if self.max_image_side < 64 or self.max_features < 16 or not 0 < self.min_triangulation_deg < 90:
            raise InputError("sfm needs max_image_side >= 64, max_features >= 16, 0 < min_triangulation_deg < 90")


class StructureFromMotion:
    """`StereoMatcher` for colour views without poses (or with poses, which then only fix frame and scale)."""

    def __init__(self, config: StructureFromMotionConfig | None = None, device: str = "cpu") -> None:
        """Raises `MissingDependencyError` without pycolmap."""
        self.config = config or StructureFromMotionConfig()
        self._colmap = _pycolmap()
        self._sweep = PlaneSweep(self.config.sweep, device=device)

    def __call__(self, views: Sequence[View]) -> list[View]:
        """`match`, with its warnings as Python warnings."""
        result = self.match(views)
        for text in result.warnings:
            warnings.warn(text)
        return list(result.views)

    def match(self, views: Sequence[View]) -> StereoResult:
        """Views with poses and depth; see `placement` for the scale.

        A view that matches no other comes back without depth, and a warning names it. Raises `InputError`, with the
        reason, when no two views could be placed.
        """
        estimate, residual_px = estimated_views(views, self.config, self._colmap)
        placed = placed_views(views, estimate, NAME)
        notes = list(placed.warnings)
        if lost := [view.name for view, found in zip(views, estimate.found, strict=True) if not found]:
            notes.append(f"{NAME}: {len(lost)} of {len(views)} views match too little to be placed: {', '.join(lost)}")
        chosen = [i for i in range(len(views)) if estimate.found[i]]
        result = list(placed.views)
        own = [i for i in chosen if self.config.keep_measured and _has_depth(views[i])]
        if own:
            cleaned = DepthCamera()([_with_depth_of(result[i], views[i]) for i in own])
            for i, view in zip(own, cleaned, strict=True):
                result[i] = view
        if len(own) < len(chosen):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                swept = self._sweep([result[i] for i in chosen])
            notes.extend(str(w.message) for w in caught if issubclass(w.category, UserWarning))
            for i, view in zip(chosen, swept, strict=True):
                result[i] = result[i] if i in own else view
        if not any(views[i].pose_known for i in chosen):
            result = upright_views(result)
        residuals = {
            **placed.residuals,
            "sfm_residual_px": residual_px,
            "sfm_views_placed_share": len(chosen) / len(views),
        }
        return StereoResult(tuple(result), placed.metric, residuals, tuple(notes))


def estimated_views(
    views: Sequence[View], config: StructureFromMotionConfig, colmap: Any = None
) -> tuple[EstimatedViews, float]:
    """Poses of the views and sparse depth (NaN but at features), and the mean reprojection error in pixels.

    Intrinsics that are known stay as they are, the others are estimated, one set for each camera name and image size.
    Raises `InputError` for fewer than 2 views or when nothing could be placed.
    """
    colmap = colmap or _pycolmap()
    if len(views) < 2:
        raise InputError(f"{NAME} needs at least 2 views from different places, got {len(views)}")
    first: tuple[EstimatedViews, float] | None = None
    reason: InputError | None = None
    for patient in (False, True) if config.thorough else (False,):
        try:
            found = _attempt(views, config, colmap, patient)
        except InputError as error:
            reason = error
            continue
        if first is None or found[0].found.sum() > first[0].found.sum():
            first = found
        if 2 * first[0].found.sum() >= len(views):
            break
    if first is None:
        assert reason is not None
        raise reason
    return first


def _attempt(
    views: Sequence[View], config: StructureFromMotionConfig, colmap: Any, patient: bool
) -> tuple[EstimatedViews, float]:
    """See `estimated_views`; patient: with features that bear wider baselines, at many times the cost."""
    with tempfile.TemporaryDirectory(prefix="gena3d_sfm_") as scratch:
        folder, database = Path(scratch) / "images", Path(scratch) / "database.db"
        names = _write_images(views, folder)
        fixed = _extract(views, names, folder, database, config, colmap, patient)
        matching = colmap.FeatureMatchingOptions(num_threads=config.threads, guided_matching=patient)
        colmap.match_exhaustive(database, matching, device=colmap.Device.cpu)
        options = colmap.IncrementalPipelineOptions(
            min_model_size=2,
            multiple_models=False,
            num_threads=config.threads,
            random_seed=config.seed,
            extract_colors=False,
            constant_cameras=fixed,
        )
        options.mapper.init_min_tri_angle = config.min_triangulation_deg
        options.mapper.init_min_num_inliers = FEW_MATCHES if patient else ENOUGH_MATCHES
        options.triangulation.ignore_two_view_tracks = len(views) > 2
        models = colmap.incremental_mapping(database, folder, Path(scratch), options)
        if not models:
            raise InputError(_why_not(views, database, colmap))
        model = max(models.values(), key=lambda m: m.num_reg_images())
        return _estimate(views, names, model), float(model.compute_mean_reprojection_error())


def _pycolmap() -> Any:
    try:
        # Its log library takes SIGTERM over and ends the process with a trace, which would cost a node its clean end.
        with kept_handlers():
            import pycolmap
    except ImportError as error:
        raise MissingDependencyError("pycolmap", "the stereo matcher 'sfm'", "'gena3d[sfm]'") from error
    # Its progress would drown our own messages; failures are reported by us.
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL.value)
    return pycolmap


def _camera_key(view: View) -> tuple[Any, ...]:
    known = view.intrinsics if view.intrinsics_known else None
    return view.camera, view.intrinsics.width, view.intrinsics.height, known


def _write_images(views: Sequence[View], folder: Path) -> list[str]:
    """Writes lossless images, a folder for each camera; their names relative to `folder`."""
    keys = list(dict.fromkeys(_camera_key(view) for view in views))
    names = []
    for i, view in enumerate(views):
        name = f"camera_{keys.index(_camera_key(view)):03d}/view_{i:04d}.png"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.ascontiguousarray(view.color)).save(folder / name, compress_level=1)
        names.append(name)
    return names


def _extract(
    views: Sequence[View],
    names: Sequence[str],
    folder: Path,
    database: Path,
    config: StructureFromMotionConfig,
    colmap: Any,
    patient: bool,
) -> set[int]:
    """Features of all views into the database; the cameras whose intrinsics must stay."""
    extraction = colmap.FeatureExtractionOptions(num_threads=config.threads, max_image_size=config.max_image_side)
    extraction.sift.max_num_features = config.max_features
    if patient:
        extraction.sift.peak_threshold = PATIENT_CONTRAST
        extraction.sift.estimate_affine_shape = extraction.sift.domain_size_pooling = True
    for key in dict.fromkeys(_camera_key(view) for view in views):
        members = [i for i, view in enumerate(views) if _camera_key(view) == key]
        given, known = views[members[0]].intrinsics, views[members[0]].intrinsics_known
        # COLMAP counts pixels from the corner of the image, we from the centre of the first pixel.
        focal = (given.fx, given.fy) if known else ((given.fx + given.fy) / 2.0,)
        params = (*focal, given.cx + 0.5, given.cy + 0.5)
        reader = colmap.ImageReaderOptions(
            camera_model="PINHOLE" if known else "SIMPLE_PINHOLE", camera_params=",".join(map(repr, map(float, params)))
        )
        colmap.extract_features(
            database,
            folder,
            [names[i] for i in members],
            camera_mode=colmap.CameraMode.PER_FOLDER,
            reader_options=reader,
            extraction_options=extraction,
            device=colmap.Device.cpu,
        )
    by_name = dict(zip(names, views, strict=True))
    with colmap.Database.open(database) as opened:
        return {image.camera_id for image in opened.read_all_images() if by_name[image.name].intrinsics_known}


def _estimate(views: Sequence[View], names: Sequence[str], model: Any) -> EstimatedViews:
    images = {image.name: image for image in model.images.values() if image.has_pose}
    poses = np.full((len(views), 4, 4), np.nan)
    depths, intrinsics = [], []
    for i, (view, name) in enumerate(zip(views, names, strict=True)):
        image = images.get(name)
        if image is None:
            depths.append(np.full(view.color.shape[:2], np.nan, dtype=np.float32))
            intrinsics.append(view.intrinsics)
            continue
        T_camera_estimate = np.vstack([image.cam_from_world().matrix(), (0.0, 0.0, 0.0, 1.0)])
        poses[i] = np.linalg.inv(T_camera_estimate)
        depths.append(_sparse_depth(image, model, T_camera_estimate, view.intrinsics))
        intrinsics.append(view.intrinsics if view.intrinsics_known else _intrinsics(image.camera, view.intrinsics))
    confidence = tuple(np.isfinite(depth).astype(np.float32) for depth in depths)
    found = np.isfinite(poses).all(axis=(1, 2))
    return EstimatedViews(poses, tuple(depths), confidence, tuple(intrinsics), found)


def _sparse_depth(image: Any, model: Any, T_camera_estimate: np.ndarray, intrinsics: Intrinsics) -> Float32Array:
    depth = np.full((intrinsics.height, intrinsics.width), np.nan, dtype=np.float32)
    seen = image.get_observation_points2D()
    if not len(seen):
        return depth
    points = np.array([model.points3D[p.point3D_id].xyz for p in seen])
    pixels = np.array([p.xy for p in seen]).astype(np.int64)
    inside = (pixels >= 0).all(axis=1) & (pixels < (intrinsics.width, intrinsics.height)).all(axis=1)
    z = points @ T_camera_estimate[2, :3] + T_camera_estimate[2, 3]
    chosen = inside & (z > 0)
    depth[pixels[chosen, 1], pixels[chosen, 0]] = z[chosen]
    return depth


def _intrinsics(camera: Any, guess: Intrinsics) -> Intrinsics:
    return replace(
        guess,
        fx=float(camera.focal_length_x),
        fy=float(camera.focal_length_y),
        cx=float(camera.principal_point_x) - 0.5,
        cy=float(camera.principal_point_y) - 0.5,
    )


def _why_not(views: Sequence[View], database: Path, colmap: Any) -> str:
    with colmap.Database.open(database) as opened:
        features = [opened.num_keypoints_for_image(image.image_id) for image in opened.read_all_images()]
        matches = [len(pair.inlier_matches) for pair in opened.read_two_view_geometries()[1]]
    verified, inliers = sum(count >= MIN_MATCHES for count in matches), sum(matches)
    pairs = len(views) * (len(views) - 1) // 2
    if min(features) < 50:
        cause = "there is too little texture, or the images are blurred"
    elif not verified:
        cause = "no two views show the same part of the scene"
    elif inliers < ENOUGH_MATCHES * verified:
        cause = "the views overlap too little"
    else:
        cause = "the views were probably taken from one place, or show only one plane"
    return (
        f"{NAME}: no two of the {len(views)} views could be placed: {cause} ({min(features)} to {max(features)} "
        f"features a view, {verified} of {pairs} pairs of views match geometrically, {inliers} matches in all); take "
        "views a hand's width to half a metre apart with most of the scene in common, or a stereo matcher with "
        "weights, such as 'pi3'"
    )


def _has_depth(view: View) -> bool:
    return view.depth_m is not None and bool(np.isfinite(view.depth_m).any())


def _with_depth_of(view: View, source: View) -> View:
    return replace(view, depth_m=source.depth_m, depth_confidence=source.depth_confidence)
