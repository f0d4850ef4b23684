"""Where estimated views lie in the world, from the same scene in another frame and unit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.stereo.placement import EstimatedViews, placed_views

SCENE = {"planes": [((0, 0, 1), 0.0)], "spheres": [((0.05, 0.0, 0.06), 0.06), ((-0.2, 0.1, 0.09), 0.09)]}
EYES = ((0.7, 0.0, 0.5), (0.3, 0.6, 0.6), (-0.4, 0.5, 0.4))


@pytest.fixture(scope="module")
def views(analytic_view):
    return [
        analytic_view(transforms.look_at(np.array(eye), np.zeros(3)), **SCENE, name=f"view {i}")
        for i, eye in enumerate(EYES)
    ]


def elsewhere(views, scale=0.4, seed=0, found=None):
    """What a perfect front end says about the views in a frame and unit of its own, and S_world_estimate."""
    rng = np.random.default_rng(seed)
    S_estimate_world = transforms.rigid(Rotation.random(random_state=seed).as_matrix() / scale, rng.normal(size=3))
    T = S_estimate_world @ np.stack([view.T_world_camera for view in views])
    T[:, :3, :3] *= scale
    estimate = EstimatedViews(
        T_estimate_camera=T,
        depth=tuple((view.depth_m / scale).astype(np.float32) for view in views),
        confidence=tuple(np.full(view.depth_m.shape, 0.9, np.float32) for view in views),
        intrinsics=tuple(view.intrinsics for view in views),
        found=np.ones(len(views), bool) if found is None else np.array(found),
    )
    return estimate, transforms.inverse(S_estimate_world)


def stripped(view, *, pose=False, depth=False):
    """The view with only what is named."""
    unposed = {} if pose else {"T_world_camera": np.eye(4), "pose_known": False}
    return replace(view, **unposed, **({} if depth else {"depth_m": None}))


GIVEN = {
    "poses": [(True, False), (True, False), (True, False)],
    "two poses": [(True, False), (False, False), (True, False)],
    "depth and pose of one": [(False, False), (True, True), (False, False)],
    "one pose, depth of another": [(False, False), (True, False), (False, True)],
    "all": [(True, True)] * 3,
}


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_views_come_back_to_the_world_in_metres(views, given):
    estimate, _ = elsewhere(views)
    known = [stripped(view, pose=pose, depth=depth) for view, (pose, depth) in zip(views, given, strict=True)]
    result = placed_views(known, estimate, "test")
    assert result.metric
    assert result.warnings == ()
    assert result.residuals["stereo_scale_m"] == pytest.approx(0.4, rel=1e-3)
    for view, back in zip(views, result.views, strict=True):
        assert back.pose_known
        np.testing.assert_allclose(back.T_world_camera, view.T_world_camera, atol=2e-3)
        np.testing.assert_allclose(back.depth_m, view.depth_m, rtol=2e-3)


def test_depth_alone_tells_the_scale_and_the_table_tells_up(views):
    estimate, _ = elsewhere(views)
    result = placed_views([stripped(view, depth=True) for view in views], estimate, "test")
    assert result.metric
    assert ["no view has a pose" in text for text in result.warnings] == [True]
    assert result.residuals["stereo_scale_m"] == pytest.approx(0.4, rel=1e-3)
    T_back_world = result.views[0].T_world_camera @ transforms.inverse(views[0].T_world_camera)
    np.testing.assert_allclose(T_back_world[:3, 2], (0, 0, 1), atol=0.02)
    np.testing.assert_allclose(result.views[0].T_world_camera[:3, 3], 0.0, atol=1e-9)
    for view, back in zip(views, result.views, strict=True):
        np.testing.assert_allclose(back.T_world_camera, T_back_world @ view.T_world_camera, atol=2e-3)


@pytest.mark.parametrize("posed", [0, 1])
def test_without_depth_and_positions_the_result_is_up_to_scale_and_says_so(views, posed):
    estimate, _ = elsewhere(views)
    result = placed_views([stripped(view, pose=i < posed) for i, view in enumerate(views)], estimate, "test")
    assert not result.metric
    assert result.residuals["stereo_metric"] == 0.0
    assert any("up to scale" in text for text in result.warnings)
    depth = np.concatenate([view.depth_m[np.isfinite(view.depth_m)] for view in result.views])
    assert np.median(depth) == pytest.approx(1.0, rel=1e-5)
    if posed:
        np.testing.assert_allclose(result.views[0].T_world_camera, views[0].T_world_camera, atol=1e-9)


def test_positions_that_are_nearly_the_same_tell_no_scale(views):
    jitter = transforms.rigid(t=np.array([0.004, 0.0, 0.0])) @ views[0].T_world_camera
    known = [stripped(views[0], pose=True), replace(stripped(views[1], pose=True), T_world_camera=jitter)]
    result = placed_views(known, elsewhere(views[:2])[0], "test")
    assert not result.metric


def test_poses_that_contradict_the_images_are_reported(views):
    turned = transforms.rigid(Rotation.from_euler("z", 40, degrees=True).as_matrix())
    known = [stripped(view, pose=True) for view in views]
    known[2] = replace(known[2], T_world_camera=turned @ known[2].T_world_camera)
    result = placed_views(known, elsewhere(views)[0], "test")
    assert any("check TF" in text for text in result.warnings)
    assert result.residuals["stereo_camera_max_deg"] > 10


def test_a_view_that_was_not_placed_has_no_depth(views):
    estimate, _ = elsewhere(views, found=[True, False, True])
    known = [stripped(view, pose=i != 1) for i, view in enumerate(views)]
    result = placed_views(known, estimate, "test")
    assert [view.pose_known for view in result.views] == [True, False, True]
    assert [bool(np.isfinite(view.depth_m).any()) for view in result.views] == [True, False, True]
    with pytest.raises(InputError, match="none of the 3 views"):
        placed_views(known, replace(estimate, found=np.zeros(3, bool)), "test")


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.01, 100.0), seed=st.integers(0, 2**16))
def test_any_similarity_is_undone(views, scale, seed):
    estimate, S_world_estimate = elsewhere(views, scale, seed)
    result = placed_views(
        [stripped(views[0], pose=True), stripped(views[1], pose=True), stripped(views[2])], estimate, "x"
    )
    np.testing.assert_allclose(result.views[2].T_world_camera, views[2].T_world_camera, atol=1e-6)
    assert result.residuals["stereo_scale_m"] == pytest.approx(
        np.cbrt(np.linalg.det(S_world_estimate[:3, :3])), rel=1e-6
    )
