"""Pose refinement by features."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import camera, transforms
from gena3d_core.geometry.bundle_adjustment import adjust, refine_poses_by_features, triangulate, well_triangulated
from gena3d_core.geometry.feature_tracks import Tracks, find_tracks
from gena3d_core.types import Intrinsics, View

EXACT = {"sigma_feature_rad": 1e-4, "independent_observations": 1e6}
"""Weights for features without systematic errors."""
CAMERA = Intrinsics(width=320, height=240, fx=280.0, fy=280.0, cx=159.5, cy=119.5)


def poses(count: int) -> list[np.ndarray]:
    azimuth = np.radians(np.linspace(-20, 20, count))
    eyes = np.stack([1.2 * np.sin(azimuth), -1.2 * np.cos(azimuth), np.full(count, 0.8)], axis=1)
    return [transforms.look_at(eye, np.zeros(3)) for eye in eyes]


def drifted(T: np.ndarray, rng: np.random.Generator, position_m: float, rotation_rad: float) -> np.ndarray:
    R = Rotation.from_rotvec(rng.normal(scale=rotation_rad, size=3)).as_matrix()
    return transforms.rigid(R, rng.normal(scale=position_m, size=3) + T[:3, 3] - R @ T[:3, 3]) @ T


def blank_views(T: list[np.ndarray]) -> list[View]:
    color = np.zeros((CAMERA.height, CAMERA.width, 3), dtype=np.uint8)
    return [View(color, CAMERA, pose, name=f"v{i}") for i, pose in enumerate(T)]


def exact_tracks(T: list[np.ndarray], points_m: np.ndarray) -> Tracks:
    pixels = [camera.project(transforms.apply(transforms.inverse(pose), points_m), CAMERA)[0] for pose in T]
    view, track = np.divmod(np.arange(len(T) * len(points_m)), len(points_m))
    return Tracks(view, track, np.concatenate(pixels), len(points_m))


def relative_errors(T: np.ndarray, truth: list[np.ndarray]) -> tuple[float, float]:
    """Greatest errors of rotation and of the baseline's direction (rad) of the poses relative to the first."""
    angles, directions = [], []
    for a, b in zip(T[1:], truth[1:], strict=True):
        mine, theirs = transforms.inverse(T[0]) @ a, transforms.inverse(truth[0]) @ b
        angles.append(np.linalg.norm(Rotation.from_matrix(mine[:3, :3].T @ theirs[:3, :3]).as_rotvec()))
        cosine = mine[:3, 3] @ theirs[:3, 3] / np.linalg.norm(mine[:3, 3]) / np.linalg.norm(theirs[:3, 3])
        directions.append(np.arccos(np.clip(cosine, -1, 1)))
    return max(angles), max(directions)


@pytest.fixture
def points_m(rng) -> np.ndarray:
    return rng.uniform((-0.4, -0.4, 0.0), (0.4, 0.4, 0.3), size=(150, 3))


def test_triangulation_of_exact_rays(points_m):
    T = poses(3)
    np.testing.assert_allclose(triangulate(blank_views(T), exact_tracks(T, points_m)), points_m, atol=1e-4)


def test_exact_poses_stay(points_m):
    T = poses(4)
    result = adjust(blank_views(T), exact_tracks(T, points_m))
    np.testing.assert_allclose(result.T_world_camera, T, atol=1e-4)
    np.testing.assert_allclose(result.points_m, points_m, atol=1e-3)
    assert result.residual_px.max() < 0.01


@pytest.mark.parametrize("count", [2, 4])
def test_drift_is_undone_up_to_scale(points_m, rng, count):
    truth = poses(count)
    recorded = [drifted(T, rng, 0.008, 0.004) for T in truth]
    result = adjust(blank_views(recorded), exact_tracks(truth, points_m), **EXACT)
    before, after = relative_errors(np.stack(recorded), truth), relative_errors(result.T_world_camera, truth)
    assert np.median(result.residual_px) < 0.1
    assert after[0] < 0.5 * before[0]
    assert after[1] < 0.5 * before[1]


def test_wrong_matches_are_outvoted(points_m, rng):
    truth = poses(4)
    recorded = [drifted(T, rng, 0.006, 0.003) for T in truth]
    tracks = exact_tracks(truth, points_m)
    pixels = tracks.pixels.copy()
    wrong = rng.choice(len(pixels), size=len(pixels) // 10, replace=False)
    pixels[wrong] += rng.uniform(-25, 25, size=(len(wrong), 2))
    result = adjust(blank_views(recorded), replace(tracks, pixels=pixels), **EXACT)
    assert relative_errors(result.T_world_camera, truth)[0] < 0.5 * relative_errors(np.stack(recorded), truth)[0]
    assert np.median(result.residual_px) < 0.5


def test_a_tight_prior_holds_the_recorded_poses(points_m, rng):
    truth = poses(3)
    recorded = [drifted(T, rng, 0.01, 0.01) for T in truth]
    tracks = exact_tracks(truth, points_m)
    result = adjust(blank_views(recorded), tracks, sigma_position_m=1e-9, sigma_rotation_rad=1e-9)
    np.testing.assert_allclose(result.T_world_camera, recorded, atol=1e-5)


def test_points_without_parallax_are_told_apart(points_m):
    T = poses(3)
    far = np.array([[0.0, 300.0, 0.0]])
    tracks = exact_tracks(T, np.concatenate([points_m, far + np.array([[0.0, 0.0, -190.0]])]))
    views = blank_views(T)
    good = well_triangulated(views, tracks, adjust(views, tracks))
    assert good[:-1].all()
    assert not good[-1]


def waves(points_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    direction = rng.normal(size=(60, 2))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    k = direction * (2 * np.pi / rng.uniform(0.02, 0.2, size=(60, 1)))
    return np.clip(128 + 16 * np.sin(points_m[..., :2] @ k.T + rng.uniform(0, 7, 60)).sum(-1), 0, 255)


@pytest.fixture(scope="module")
def ground_views() -> list[View]:
    """Textured ground with a step, rendered exactly."""
    views = []
    for i, T in enumerate(poses(3)):
        direction = camera.pixel_rays(CAMERA) @ T[:3, :3].T
        points = T[:3, 3] - direction * (T[2, 3] / direction[..., 2:])
        on_step = T[:3, 3] - direction * ((T[2, 3] - 0.15) / direction[..., 2:])
        points = np.where((np.abs(on_step[..., :2]) < 0.2).all(axis=-1, keepdims=True), on_step, points)
        gray = waves(points + points[..., 2:], np.random.default_rng(5)).astype(np.uint8)
        views.append(View(np.repeat(gray[..., None], 3, axis=-1), CAMERA, T, name=f"v{i}"))
    return views


def test_tracks_of_rendered_views_are_right(ground_views):
    tracks = find_tracks(ground_views)
    assert tracks.count > 50
    pairs = tracks.view * tracks.count + tracks.track
    assert len(np.unique(pairs)) == len(pairs)
    residual_px = adjust(ground_views, tracks, sigma_position_m=1e-9, sigma_rotation_rad=1e-9).residual_px
    assert np.median(residual_px) < 0.3
    assert (residual_px < 2.0).mean() > 0.95


def test_refinement_of_rendered_views(ground_views, rng):
    recorded = [replace(v, T_world_camera=drifted(v.T_world_camera, rng, 0.008, 0.004)) for v in ground_views]
    truth = [view.T_world_camera for view in ground_views]
    refined, residual_px = refine_poses_by_features(recorded)
    assert residual_px < 0.6
    assert [view.name for view in refined] == [view.name for view in recorded]
    tracks = find_tracks(ground_views)
    hold = {"sigma_position_m": 1e-9, "sigma_rotation_rad": 1e-9}
    assert residual_px < 0.7 * np.median(adjust(recorded, tracks, **hold).residual_px)
    after = relative_errors(np.stack([v.T_world_camera for v in refined]), truth)
    before = relative_errors(np.stack([v.T_world_camera for v in recorded]), truth)
    assert after[0] < before[0]


def test_without_features_the_poses_stay():
    views = blank_views(poses(3))
    refined, residual_px = refine_poses_by_features(views)
    assert np.isnan(residual_px)
    assert all(a is b for a, b in zip(refined, views, strict=True))


def test_no_view_is_an_error():
    with pytest.raises(InputError, match="no views"):
        refine_poses_by_features([])
