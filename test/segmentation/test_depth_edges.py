"""Masks moved to depth edges that are known by construction."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import camera
from gena3d_core.segmentation.depth_edges import edge_strength, main_layer, refine_to_depth_edges
from gena3d_core.types import Intrinsics


@settings(max_examples=20, deadline=None)
@given(st.floats(-0.8, 0.8), st.floats(-0.8, 0.8), st.floats(0.4, 3.0))
def test_a_plane_has_no_edges_however_slanted(a, b, distance_m):
    intrinsics = Intrinsics(80, 60, 90.0, 90.0, 40.0, 30.0)
    depth_m = distance_m / np.maximum(camera.pixel_rays(intrinsics) @ np.array([a, b, 1.0], np.float32), 0.2)
    assert edge_strength(depth_m.astype(np.float32)).max() == 0.0


def disk_before_wall(radius=25, near_m=0.8, far_m=1.0):
    rows, cols = np.indices((120, 160))
    truth = np.hypot(rows - 60, cols - 80) <= radius
    return truth, np.where(truth, near_m, far_m).astype(np.float32)


@pytest.mark.parametrize("change_px", [-3, -1, 2, 3])
def test_outlines_move_to_the_edge_from_both_sides(change_px):
    truth, depth_m = disk_before_wall()
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(change_px) + 1,) * 2)
    image = truth.astype(np.uint8)
    wrong = (cv2.dilate(image, kernel) if change_px > 0 else cv2.erode(image, kernel)).astype(bool)
    assert (wrong != truth).sum() > 100
    refined = refine_to_depth_edges(wrong, depth_m)
    assert (refined != truth).sum() <= 2


def test_unknown_depth_along_the_outline_is_no_obstacle():
    truth, depth_m = disk_before_wall()
    rim = cv2.dilate(truth.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~truth
    depth_m[rim] = np.nan
    refined = refine_to_depth_edges(truth, depth_m)
    assert (refined & truth).sum() / (refined | truth).sum() > 0.95


def test_without_an_edge_the_outline_stays():
    truth, depth_m = disk_before_wall(near_m=1.0)
    refined = refine_to_depth_edges(truth, depth_m)
    assert (refined & truth).sum() / (refined | truth).sum() > 0.96


def test_a_leak_to_the_background_is_cut_off_and_a_part_beside_an_occluder_stays():
    depth_m = np.full((60, 100), 1.0, np.float32)
    depth_m[:, 50:56] = 0.6  # an occluder cuts the object in two
    depth_m[:, 80:] = 3.0  # the wall far behind
    mask = np.zeros((60, 100), bool)
    mask[10:50, 20:50] = mask[10:50, 56:80] = mask[20:30, 80:95] = True
    kept = main_layer(mask, depth_m)
    assert not kept[20:30, 83:95].any()
    assert kept[12:48, 58:77].all()
    assert kept[12:48, 22:48].all()


def test_empty_masks_and_wrong_shapes():
    depth_m = np.ones((10, 12), np.float32)
    assert not refine_to_depth_edges(np.zeros((10, 12), bool), depth_m).any()
    with pytest.raises(InputError, match="shape"):
        refine_to_depth_edges(np.zeros((10, 10), bool), depth_m)


def test_thin_parts_are_kept():
    truth, depth_m = disk_before_wall(radius=15)
    truth[58:61, 95:125] = True  # a handle three pixels thick
    depth_m[58:61, 95:125] = 0.8
    refined = refine_to_depth_edges(truth, depth_m)
    assert refined[58:61, 98:122].mean() > 0.9
