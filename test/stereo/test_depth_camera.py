"""Cleaning and confidence of measured depth."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry.transforms import look_at, rigid
from gena3d_core.stereo import make_stereo_matcher
from gena3d_core.stereo.depth_camera import DepthCameraConfig, incidence_angle_deg
from gena3d_core.types import Intrinsics, View

CAMERA = Intrinsics(width=80, height=60, fx=90.0, fy=90.0, cx=39.5, cy=29.5)


def view_of(depth_m: np.ndarray, name: str = "v") -> View:
    return View(np.zeros((60, 80, 3), dtype=np.uint8), CAMERA, rigid(), depth_m.astype(np.float32), name=name)


@pytest.fixture
def clean():
    return make_stereo_matcher("depth_camera")


def test_a_clean_wall_is_kept_as_it_is(clean):
    depth_m = np.full((60, 80), 1.2)
    (view,) = clean([view_of(depth_m)])
    np.testing.assert_array_equal(view.depth_m, depth_m.astype(np.float32))
    assert view.depth_confidence.dtype == np.float32
    assert (view.depth_confidence > 0.5).all()


def test_an_edge_between_two_surfaces_is_kept(clean):
    depth_m = np.full((60, 80), 1.5)
    depth_m[20:40, 30:50] = 1.0
    (view,) = clean([view_of(depth_m)])
    np.testing.assert_array_equal(view.depth_m, depth_m.astype(np.float32))


def test_flying_pixels_between_two_surfaces_are_removed(clean):
    depth_m = np.full((60, 80), 1.5)
    depth_m[20:40, 30:50] = 1.0
    depth_m[20:40, 29] = 1.3
    depth_m[20:40, 50] = 1.15
    (view,) = clean([view_of(depth_m)])
    assert np.isnan(view.depth_m[20:40, [29, 50]]).all()
    assert np.isfinite(view.depth_m[20:40, 31:49]).all()
    assert (view.depth_confidence[20:40, 29] == 0).all()


def test_isolated_pixels_are_removed(clean):
    depth_m = np.full((60, 80), np.nan)
    depth_m[20:50, 20:60] = 1.0
    depth_m[5, 5] = depth_m[5, 6] = 0.8
    depth_m[30, 30] = 0.5
    (view,) = clean([view_of(depth_m)])
    assert np.isnan(view.depth_m[[5, 5, 30], [5, 6, 30]]).all()
    assert np.isfinite(view.depth_m[21:29, 21:59]).all()


@pytest.mark.parametrize("bad", [0.0, -1.0, np.inf, -np.inf, np.nan, 0.05, 60.0])
def test_depth_out_of_range_is_invalid(clean, bad):
    depth_m = np.full((60, 80), 1.0)
    depth_m[10:30, 10:30] = bad
    (view,) = clean([view_of(depth_m)])
    assert np.isnan(view.depth_m[10:30, 10:30]).all()
    assert np.isfinite(view.depth_m[40:]).all()
    assert (view.depth_confidence[10:30, 10:30] == 0).all()


def test_confidence_falls_with_range(clean):
    means = [clean([view_of(np.full((60, 80), z))])[0].depth_confidence.mean() for z in (0.5, 1.0, 2.0, 4.0, 7.0)]
    assert all(a > b for a, b in pairwise(means))


def test_confidence_falls_at_grazing_incidence(clean, analytic_view):
    def mean_confidence(elevation_deg: float) -> float:
        e = np.radians(elevation_deg)
        eye = np.array([0.0, -np.cos(e), np.sin(e)])
        (view,) = clean([analytic_view(look_at(eye, np.zeros(3)), [((0.0, 0.0, 1.0), 0.0)], intrinsics=CAMERA)])
        return float(view.depth_confidence[25:35, 30:50].mean())

    assert mean_confidence(60.0) > mean_confidence(22.0) > mean_confidence(12.0)


def test_incidence_angle_of_a_known_plane(analytic_view):
    e = np.radians(35.0)
    view = analytic_view(
        look_at(np.array([0.0, -np.cos(e), np.sin(e)]), np.zeros(3)), [((0.0, 0.0, 1.0), 0.0)], intrinsics=CAMERA
    )
    angle_deg = incidence_angle_deg(view.depth_m, view.intrinsics)
    assert angle_deg[29:31, 39:41] == pytest.approx(55.0, abs=1.0)


def test_confidence_of_the_camera_is_respected(clean):
    view = view_of(np.full((60, 80), 1.0))
    plain = clean([view])[0].depth_confidence
    given = replace(view, depth_confidence=np.full((60, 80), 0.5, dtype=np.float32))
    np.testing.assert_allclose(clean([given])[0].depth_confidence, 0.5 * plain, rtol=1e-6)


def test_views_without_depth_are_named(clean):
    views = [view_of(np.ones((60, 80)), "with"), replace(view_of(np.ones((60, 80)), "without"), depth_m=None)]
    with pytest.raises(InputError, match=r"1 of 2 views.*without.*plane_sweep"):
        clean(views)
    kept = make_stereo_matcher("depth_camera", allow_missing=True)(views)
    assert np.isfinite(kept[0].depth_m).all()
    assert np.isnan(kept[1].depth_m).all()
    assert (kept[1].depth_confidence == 0).all()


def test_no_view_and_no_valid_depth_are_errors(clean):
    with pytest.raises(InputError, match="0 of 0"):
        clean([])
    with pytest.raises(InputError, match="in metres"):
        clean([view_of(np.full((60, 80), 1200.0))])
    with pytest.raises(InputError, match="depth range"):
        DepthCameraConfig(min_depth_m=2.0, max_depth_m=1.0)


def test_one_empty_view_among_good_ones_is_a_warning(clean):
    with pytest.warns(UserWarning, match="dark"):
        views = clean([view_of(np.ones((60, 80))), view_of(np.full((60, 80), np.nan), "dark")])
    assert np.isnan(views[1].depth_m).all()


def test_kitchen_depth_is_mostly_kept(kitchen_dir, clean):
    import cv2

    depth_mm = cv2.imread(str(kitchen_dir / "depth" / "000358.png"), cv2.IMREAD_UNCHANGED)
    depth_m = np.where(depth_mm == 0, np.nan, depth_mm / 1000.0).astype(np.float32)
    intrinsics = Intrinsics(640, 480, 523.1, 523.1, 320.1, 235.8)
    view = View(np.zeros((480, 640, 3), dtype=np.uint8), intrinsics, rigid(), depth_m)
    (cleaned,) = clean([view])
    assert np.isfinite(cleaned.depth_m).sum() > 0.97 * np.isfinite(depth_m).sum()
    near, far = (cleaned.depth_confidence[(depth_m > a) & (depth_m < b)].mean() for a, b in ((0.5, 1.2), (2.4, 4.0)))
    assert near > far
