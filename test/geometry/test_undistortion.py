"""Lens distortion: removing it undoes what the lens did."""

import cv2
import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry.undistortion import FISHEYE, Distortion, undistort_color, undistort_depth
from gena3d_core.types import Intrinsics

INTRINSICS = Intrinsics(160, 120, 120.0, 121.0, 78.0, 61.0)
LENSES = [Distortion(coefficients=(-0.2, 0.05, 0.002, -0.001)), Distortion(FISHEYE, (0.05, -0.01, 0.002, 0.0))]


def seen_through(lens: Distortion, points_m: np.ndarray) -> np.ndarray:
    """(N, 2) pixels where the lens shows points in the camera frame."""
    zero, K, d = np.zeros(3), INTRINSICS.matrix, np.array(lens.coefficients)
    project = cv2.fisheye.projectPoints if lens.model == FISHEYE else cv2.projectPoints
    if lens.model == FISHEYE:
        return project(points_m[:, None], zero, zero, K, d)[0][:, 0]
    return project(points_m, zero, zero, K, d)[0][:, 0]


@pytest.mark.parametrize("lens", LENSES)
def test_dots_move_to_where_a_pinhole_sees_them(lens):
    points_m = np.array([[x, y, 1.0] for x in (-0.4, 0.0, 0.45) for y in (-0.3, 0.05, 0.32)])
    for point in points_m:
        u, v = seen_through(lens, point[None])[0]
        yy, xx = np.mgrid[:120, :160]
        dot = (255 * np.exp(-((xx - u) ** 2 + (yy - v) ** 2) / 8)).astype(np.uint8)
        flat = undistort_color(np.repeat(dot[..., None], 3, axis=2), INTRINSICS, lens)[..., 0].astype(float)
        found = np.array([(flat * xx).sum(), (flat * yy).sum()]) / flat.sum()
        wanted = INTRINSICS.matrix @ point
        np.testing.assert_allclose(found, wanted[:2], atol=0.3)


def test_depth_is_not_mixed_across_edges_and_is_nan_where_the_lens_saw_nothing():
    depth_m = np.where(np.arange(160) < 80, 1.0, 3.0).astype(np.float32)[None].repeat(120, axis=0)
    flat = undistort_depth(depth_m, INTRINSICS, Distortion(coefficients=(0.4, 0.0, 0.0, 0.0)))
    assert set(np.unique(flat[~np.isnan(flat)])) == {1.0, 3.0}
    assert np.isnan(flat[0, 0])
    assert flat.dtype == np.float32


def test_no_distortion_changes_nothing():
    color = np.zeros((120, 160, 3), np.uint8)
    depth_m = np.zeros((120, 160), np.float32)
    for lens in (Distortion(), Distortion(coefficients=(0.0,) * 5), Distortion.from_ros("anything", np.zeros(5))):
        assert lens.is_none
        assert undistort_color(color, INTRINSICS, lens) is color
        assert undistort_depth(depth_m, INTRINSICS, lens) is depth_m


@pytest.mark.parametrize("name", ["plumb_bob", "rational_polynomial", "equidistant"])
def test_models_of_camera_info(name):
    count = {"plumb_bob": 5, "rational_polynomial": 8, "equidistant": 4}[name]
    lens = Distortion.from_ros(name, np.full(count, 0.01))
    assert lens.coefficients == (0.01,) * count
    assert (lens.model == FISHEYE) == (name == "equidistant")


@pytest.mark.parametrize(
    ("model", "d", "message"),
    [("bent", (0.1,), "bent"), ("plumb_bob", (0.1, 0.1), "coefficients"), ("plumb_bob", (np.nan,) * 5, "NaN")],
)
def test_impossible_lenses(model, d, message):
    with pytest.raises(InputError, match=message):
        Distortion.from_ros(model, np.array(d))
