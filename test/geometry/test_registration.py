"""Views of analytic scenes with known errors of pose: what can be seen is corrected, what cannot stays as recorded."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import camera, transforms
from gena3d_core.geometry.registration import RegistrationConfig, refine_poses_around, refine_view_poses

EYES = ((0.55, -0.35, 0.45), (0.1, -0.7, 0.45), (-0.5, -0.45, 0.45), (0.6, 0.2, 0.5))
CENTER = np.array([0.0, 0.0, 0.03])
BALL = (0.05, 0.14, 0.05)


def textured(view, strength=40.0):
    """The view with a pattern that sticks to the world."""
    points = camera.world_points(view)
    wave = np.sin(points @ np.array([41.0, 23.0, 17.0])) + np.sin(points @ np.array([-19.0, 47.0, 13.0]))
    color = view.color + strength * np.nan_to_num(wave)[..., None] / 2.0
    return replace(view, color=np.clip(color, 0, 255).astype(np.uint8))


def make_views(solids, things, eyes=EYES, noise=0.001, seed=0):
    rng = np.random.default_rng(seed)
    views = []
    for number, eye in enumerate(eyes):
        view = textured(solids.render(things, eye, CENTER, name=f"v{number}")[0])
        depth = view.depth_m + rng.normal(size=view.depth_m.shape).astype(np.float32) * noise * view.depth_m**2
        views.append(replace(view, depth_m=depth))
    return views


@pytest.fixture(scope="module")
def views(solids):
    things = (
        solids.Box((-0.12, 0.05, 0.04), (0.06, 0.04, 0.04)),
        solids.Cylinder((0.1, -0.05, 0.0), 0.04, 0.1),
        solids.Sphere(BALL, 0.05),
        solids.Box((-0.02, -0.16, 0.02), (0.03, 0.05, 0.02)),
    )
    return make_views(solids, things)


@pytest.fixture(scope="module")
def plane(solids):
    """Two views of the bare table."""
    return make_views(solids, (), EYES[:2])


def moved(view, shift_m, turn_deg, axis=(0.0, 0.0, 1.0)):
    """The view as if its pose had been recorded wrong: turned about the scene's centre, then shifted."""
    R = Rotation.from_rotvec(np.radians(turn_deg) * np.asarray(axis)).as_matrix()
    delta = transforms.rigid(R, CENTER - R @ CENTER + np.asarray(shift_m))
    return replace(view, T_world_camera=delta @ view.T_world_camera)


def misfit_m(views, truth, point=CENTER):
    """Largest distance between where two views place a point of the scene, in metres."""
    placed = [
        transforms.apply(v.T_world_camera, transforms.apply(transforms.inverse(t.T_world_camera), point))
        for v, t in zip(views, truth, strict=True)
    ]
    return max(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(placed, 2))


@settings(max_examples=12, deadline=None)
@given(
    shift=st.tuples(*[st.floats(-0.015, 0.015)] * 3),
    turn_deg=st.floats(-1.2, 1.2),
    which=st.integers(0, 2),
)
def test_a_drifted_view_is_brought_back(views, shift, turn_deg, which):
    three = views[:3]
    drifted = [moved(v, shift, turn_deg) if i == which else v for i, v in enumerate(three)]
    refined, report = refine_view_poses(drifted)
    assert report.refined.all()
    for offset in ((0.0, 0.0, 0.0), (0.2, 0.0, 0.0), (0.0, 0.2, 0.0)):
        assert misfit_m(refined, three, CENTER + np.array(offset)) < 0.003


def test_all_views_drifted_agree_afterwards_and_their_mean_stays(views):
    shifts = np.array([[0.012, 0.0, 0.004], [-0.01, 0.008, -0.004], [0.0, -0.012, 0.006], [0.004, 0.006, -0.006]])
    drifted = [moved(v, s, a) for v, s, a in zip(views, shifts, (0.8, -0.5, 0.3, -0.6), strict=True)]
    refined, report = refine_view_poses(drifted)
    assert misfit_m(drifted, views) > 0.02
    assert misfit_m(refined, views) < 0.003
    placed = [
        transforms.apply(r.T_world_camera, transforms.apply(transforms.inverse(d.T_world_camera), CENTER)) - CENTER
        for r, d in zip(refined, drifted, strict=True)
    ]
    assert np.linalg.norm(np.mean(placed, axis=0)) < 0.004
    assert report.rmse_after_m < 0.6 * report.rmse_before_m
    assert report.residuals()["pose_correction_max_m"] == pytest.approx(report.corrections_m.max())


def test_exact_poses_stay_where_they_are(views):
    refined, report = refine_view_poses(views)
    assert misfit_m(refined, views) < 0.002
    assert report.corrections_m.max() < 0.002
    assert report.warnings == ()


def test_color_holds_what_a_bare_plane_leaves_free(plane):
    drifted = [plane[0], moved(plane[1], (0.012, -0.008, 0.0), 0.0)]
    with_color, _ = refine_view_poses(drifted)
    without, _ = refine_view_poses(drifted, RegistrationConfig(use_color=False))
    assert misfit_m(with_color, plane) < 0.003
    # Sliding along the plane is free for geometry alone: the recorded pose stays.
    assert misfit_m(without, drifted) < 0.003


def test_a_bare_plane_still_corrects_height(plane):
    drifted = [plane[0], moved(plane[1], (0.0, 0.0, 0.015), 0.0)]
    refined, _ = refine_view_poses(drifted, RegistrationConfig(use_color=False))
    errors = [
        transforms.apply(r.T_world_camera, transforms.apply(transforms.inverse(t.T_world_camera), CENTER)) - CENTER
        for r, t in zip(refined, plane, strict=True)
    ]
    assert abs(errors[0][2] - errors[1][2]) < 0.001
    assert np.linalg.norm(errors[0][:2] - errors[1][:2]) < 0.006


def test_views_without_overlap_keep_their_poses(views):
    away = replace(views[1], T_world_camera=transforms.rigid(None, np.array([5.0, 0.0, 0.0])) @ views[1].T_world_camera)
    refined, report = refine_view_poses([views[0], away])
    assert not report.refined.any()
    assert any("overlaps" in warning and "v" in warning for warning in report.warnings)
    for before, after in zip((views[0], away), refined, strict=True):
        np.testing.assert_array_equal(before.T_world_camera, after.T_world_camera)


def test_a_view_that_would_move_too_far_is_left_alone_and_named(views):
    wrong = moved(views[3], (0.05, -0.04, 0.0), 0.0)
    refined, report = refine_view_poses([*views[:3], wrong], RegistrationConfig(max_correction_m=0.02))
    assert not report.refined[3]
    assert report.refined[:3].all()
    assert any("'v3'" in warning for warning in report.warnings)
    np.testing.assert_array_equal(refined[3].T_world_camera, wrong.T_world_camera)
    assert misfit_m(refined[:3], views[:3]) < 0.003


def test_a_view_without_depth_is_named_and_kept(views):
    blind = replace(views[2], depth_m=None)
    nothing = replace(views[3], depth_m=np.full_like(views[3].depth_m, np.nan))
    refined, report = refine_view_poses([views[0], moved(views[1], (0.01, 0.0, 0.0), 0.0), blind, nothing])
    assert report.refined.tolist() == [True, True, False, False]
    assert sum("no usable depth" in warning for warning in report.warnings) == 2
    assert misfit_m(refined[:2], views[:2]) < 0.003


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_views_come_back_as_they_are(views, count):
    refined, report = refine_view_poses(views[:count])
    assert [r is v for r, v in zip(refined, views[:count], strict=True)] == [True] * count
    assert report.rmse_after_m == 0.0


def test_refinement_around_an_object_aligns_that_object(views):
    ball = np.array(BALL)
    drifted = [views[0], moved(views[1], (0.008, -0.006, 0.004), 0.0), views[3]]
    truth = [views[0], views[1], views[3]]
    refined, report = refine_poses_around(drifted, ball, 0.13)
    assert report.refined.all()
    assert misfit_m(refined, truth, ball) < 0.003


def test_views_that_do_not_see_the_ball_keep_their_pose(views):
    refined, report = refine_poses_around(views, np.array([3.0, 0.0, 0.0]), 0.1)
    assert not report.refined.any()
    assert report.warnings == ()
    assert all(r is v for r, v in zip(refined, views, strict=True))


def test_gates_and_blurs_must_match():
    with pytest.raises(InputError, match="blurs_px"):
        RegistrationConfig(gates_m=(0.05,))


def test_the_result_repeats(views):
    drifted = [views[0], moved(views[1], (0.01, 0.005, -0.004), 0.4)]
    first, second = refine_view_poses(drifted)[0], refine_view_poses(drifted)[0]
    np.testing.assert_array_equal(first[1].T_world_camera, second[1].T_world_camera)
