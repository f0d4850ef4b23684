import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import camera, transforms
from gena3d_core.types import Intrinsics, View

INTRINSICS = Intrinsics(width=32, height=24, fx=30.0, fy=31.0, cx=15.2, cy=11.8)


def make_view(depth_m, T_world_camera=None):
    color = np.zeros((24, 32, 3), dtype=np.uint8)
    return View(color, INTRINSICS, np.eye(4) if T_world_camera is None else T_world_camera, depth_m=depth_m)


def test_project_undoes_backproject(rng):
    depth_m = rng.uniform(0.3, 3.0, (24, 32)).astype(np.float32)
    pixels, z = camera.project(camera.backproject(depth_m, INTRINSICS), INTRINSICS)
    np.testing.assert_allclose(z, depth_m)
    columns, rows = np.meshgrid(np.arange(32), np.arange(24))
    np.testing.assert_allclose(pixels, np.stack([columns, rows], axis=-1), atol=1e-4)


@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.5, 2.0))
def test_world_points_land_on_their_own_pixel(x, y, z):
    T_world_camera = transforms.look_at([x, y, z], [x + 0.3, y + 0.2, 0.0])
    depth_m = np.full((24, 32), 0.7, dtype=np.float32)
    view = make_view(depth_m, T_world_camera)
    rows, cols, depth, inside = camera.pixel_index(camera.world_points(view).reshape(-1, 3), view)
    assert inside.all()
    np.testing.assert_array_equal(rows.reshape(24, 32), np.arange(24)[:, None].repeat(32, axis=1))
    np.testing.assert_array_equal(cols.reshape(24, 32), np.arange(32)[None].repeat(24, axis=0))
    np.testing.assert_allclose(depth, 0.7, atol=1e-4)


def test_invalid_depth_gives_nan_points():
    depth_m = np.full((24, 32), np.nan, dtype=np.float32)
    assert np.isnan(camera.world_points(make_view(depth_m))).all()


def test_points_behind_the_camera_are_not_inside():
    view = make_view(np.ones((24, 32), dtype=np.float32))
    _, _, _, inside = camera.pixel_index(np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), view)
    assert inside.tolist() == [False, False, True]


def test_world_points_need_depth():
    with pytest.raises(InputError, match="no depth"):
        camera.world_points(make_view(None))
