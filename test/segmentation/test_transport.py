"""Masks carried between views, on planes with a known shift and on a table with known masks."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.segmentation import transport
from gena3d_core.types import Intrinsics, View


def wall_view(shift_m=0.0, depth_m=1.0, size=(40, 60), focal=100.0):
    """A camera that looks along +z at a wall at z = depth, moved along x; world and camera axes agree."""
    height, width = size
    T = np.eye(4)
    T[0, 3] = shift_m
    return View(
        np.zeros((height, width, 3), np.uint8),
        Intrinsics(width, height, focal, focal, width / 2, height / 2),
        T,
        np.full(size, depth_m, np.float32),
        name=f"at {shift_m}",
    )


@settings(max_examples=25, deadline=None)
@given(
    pixels=st.integers(-20, 20),
    depth_m=st.floats(0.5, 4.0),
    left=st.integers(0, 40),
    top=st.integers(0, 25),
    width=st.integers(1, 19),
    height=st.integers(1, 14),
)
def test_a_sideways_step_shifts_the_mask_by_the_disparity(pixels, depth_m, left, top, width, height):
    source, target = wall_view(0.0, depth_m), wall_view(pixels * depth_m / 100.0, depth_m)
    mask = np.zeros((40, 60), bool)
    mask[top : top + height, left : left + width] = True
    found = transport.evidence([transport.look_up(target, source)], [mask])
    columns = np.arange(60) + pixels
    on_source = (columns >= 0) & (columns < 60)
    expected = np.zeros_like(mask)
    expected[:, on_source] = mask[:, columns[on_source]]
    np.testing.assert_array_equal(found.inside, expected)
    np.testing.assert_array_equal(found.outside, on_source[None, :] & ~expected)


def test_what_the_source_cannot_see_is_undecided():
    source, target = wall_view(), wall_view()
    source.depth_m[:, :30] = 0.5
    found = transport.evidence([transport.look_up(target, source)], [np.ones((40, 60), bool)])
    assert not found.inside[:, :30].any()
    assert not found.outside[:, :30].any()
    assert found.inside[:, 30:].all()


def test_sources_vote_and_a_tie_is_for_the_object():
    view = wall_view()
    full, none = np.ones((40, 60), bool), np.zeros((40, 60), bool)
    same = transport.look_up(view, view)
    assert transport.evidence([same] * 2, [full, none]).inside.all()
    assert transport.evidence([same] * 3, [full, none, none]).outside.all()
    with pytest.raises(InputError, match="at least one"):
        transport.evidence([], [])


def test_depth_is_needed_on_both_sides():
    blind = replace(wall_view(), depth_m=None, name="blind")
    for pair in ((blind, wall_view()), (wall_view(), blind)):
        with pytest.raises(InputError, match="'blind' has no depth"):
            transport.look_up(*pair)


def test_every_object_of_the_table_agrees_with_its_own_mask_only(known_table):
    views, truth = known_table
    count = int(truth.max())
    masks = [[labels == k for k in range(1, count + 1)] for labels in truth]
    lookups = transport.Lookups(views)
    for source in range(3):
        for target in range(3):
            if source == target:
                continue
            for number, mask in enumerate(masks[source]):
                one = transport.evidence([lookups(target, source)], [mask])
                if one.inside.sum() < 60:
                    continue
                scores = transport.agreement(np.stack(masks[target]), one)
                assert scores.argmax() == number
                assert scores[number] > 0.8
                assert np.delete(scores, number).max() < 0.2


def test_agreement_leaves_undecided_pixels_out():
    inside, outside = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    inside[:, :2], outside[:, 4:] = True, True
    masks = np.zeros((3, 4, 6), bool)
    masks[0, :, :4] = True  # all that is known, and what nobody knows
    masks[1] = True
    np.testing.assert_allclose(transport.agreement(masks, transport.Evidence(inside, outside)), [1.0, 0.5, 0.0])
    nothing = transport.Evidence(np.zeros_like(inside), np.zeros_like(inside))
    np.testing.assert_array_equal(transport.agreement(masks, nothing), 0.0)


def test_specks_do_not_blow_up_the_box_and_points_lie_deep_inside():
    mask = np.zeros((50, 80), bool)
    mask[10:30, 20:60] = True
    mask[45, 75] = True
    np.testing.assert_array_equal(transport.box_of(transport.main_part(mask)), [20, 10, 59, 29])
    points, labels = transport.inner_points(mask, 3)
    cols, rows = points[labels == 1].astype(int).T
    assert (labels == 1).sum() >= 2
    assert mask[rows, cols].all()
    assert ((rows >= 16) & (rows <= 23)).all()
    with pytest.raises(InputError, match="empty"):
        transport.box_of(np.zeros((3, 3), bool))
    with pytest.raises(InputError, match="empty"):
        transport.inner_points(np.zeros((3, 3), bool), 2)


def test_a_thin_mask_has_fewer_points_than_asked_for():
    mask = np.zeros((9, 9), bool)
    mask[4, 4] = True
    points, labels = transport.inner_points(mask, 3)
    assert labels.tolist() == [1, -1, -1]
    assert points[0].tolist() == [4.0, 4.0]
