"""Depth of one camera as another sees it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.geometry import camera, transforms
from gena3d_core.geometry.depth_registration import register_depth
from gena3d_core.types import Intrinsics, View

DEPTH_CAMERA = Intrinsics(80, 60, 70.0, 70.0, 39.5, 29.5)
COLOR_CAMERA = Intrinsics(120, 90, 110.0, 112.0, 60.0, 44.0)


@given(
    st.tuples(*[st.floats(-0.05, 0.05)] * 3),
    st.tuples(*[st.floats(-0.05, 0.05)] * 3),
    st.floats(0.5, 2.0),
    st.floats(-0.3, 0.3),
)
@settings(max_examples=40, deadline=None)
def test_a_plane_stays_the_same_plane(rotation, translation, distance_m, slope):
    """Every registered pixel, back in the depth camera, lies on the plane that the depth camera saw."""
    normal = np.array([slope, 0.2, -1.0])
    rays = camera.pixel_rays(DEPTH_CAMERA)
    depth_m = (-distance_m / (rays @ normal.astype(np.float32))).astype(np.float32)
    T = transforms.rigid(Rotation.from_rotvec(rotation).as_matrix(), np.array(translation))
    registered = register_depth(depth_m, DEPTH_CAMERA, COLOR_CAMERA, T)
    view = View(np.zeros((90, 120, 3), np.uint8), COLOR_CAMERA, transforms.inverse(T), registered)
    points = camera.world_points(view)
    points = points[np.isfinite(points[..., 2])]
    assert len(points) > 500
    # A pixel of the coarser camera covers several of the finer one: half its width times the slope.
    tolerance = distance_m * 0.06
    np.testing.assert_allclose(points @ normal, -distance_m, atol=tolerance)


def test_identity_keeps_every_pixel():
    rng = np.random.default_rng(0)
    depth_m = rng.uniform(0.4, 3.0, (60, 80)).astype(np.float32)
    depth_m[rng.random((60, 80)) < 0.2] = np.nan
    same = register_depth(depth_m, DEPTH_CAMERA, DEPTH_CAMERA, np.eye(4))
    np.testing.assert_allclose(same, depth_m, rtol=1e-6)


def test_the_nearer_surface_wins():
    depth_m = np.full((60, 80), 2.0, np.float32)
    depth_m[20:40, 30:50] = 0.5
    moved = register_depth(depth_m, DEPTH_CAMERA, DEPTH_CAMERA, transforms.rigid(t=np.array([0.1, 0, 0])))
    shift_near, shift_far = round(0.1 * 70 / 0.5), round(0.1 * 70 / 2.0)
    np.testing.assert_allclose(moved[30, 30 + shift_near : 50 + shift_near], 0.5)
    np.testing.assert_allclose(moved[10, shift_far:], 2.0)
    assert np.isnan(moved[10, : shift_far - 1]).all()


def test_finer_camera_gets_no_holes():
    depth_m = np.full((60, 80), 1.0, np.float32)
    finer = Intrinsics(240, 180, 210.0, 210.0, 119.5, 89.5)
    assert np.isfinite(register_depth(depth_m, DEPTH_CAMERA, finer, np.eye(4))).all()


def test_nothing_seen_and_points_behind_the_camera():
    depth_m = np.full((60, 80), np.nan, np.float32)
    assert np.isnan(register_depth(depth_m, DEPTH_CAMERA, COLOR_CAMERA, np.eye(4))).all()
    turned = transforms.rigid(np.diag([-1.0, 1.0, -1.0]))
    assert np.isnan(register_depth(np.ones_like(depth_m), DEPTH_CAMERA, COLOR_CAMERA, turned)).all()
