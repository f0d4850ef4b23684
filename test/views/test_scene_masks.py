"""What becomes of masks that overlap, are empty, too many, or of another size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gena3d_core.errors import InputError
from gena3d_core.views.scene_masks import MIN_PIXELS, checked_scene

IMAGE = np.zeros((40, 60, 3), dtype=np.uint8)


def masks(*boxes):
    found = np.zeros((len(boxes), 40, 60), dtype=bool)
    for mask, (x, y, side) in zip(found, boxes, strict=True):
        mask[y : y + side, x : x + side] = True
    return found


def check(own):
    ids = list(range(len(own)))
    return checked_scene(ids, ["" for _ in ids], [IMAGE], [own])


def test_masks_apart_stay_as_they_are():
    own = masks((2, 2, 10), (20, 20, 8))
    found = check(own)
    np.testing.assert_array_equal(found.scene.masks[0], own)
    assert found.scene.ids == (0, 1)
    assert found.warnings == ()


def test_the_smaller_of_two_overlapping_masks_keeps_the_pixels():
    own = masks((0, 0, 30), (10, 10, 12), (40, 5, 10))
    found = check(own)
    np.testing.assert_array_equal(found.scene.masks[0][1], own[1])
    np.testing.assert_array_equal(found.scene.masks[0][0], own[0] & ~own[1])
    (told,) = found.warnings
    assert "object 0 and object 1 overlap by 100 % of the smaller one" in told


def test_the_second_of_two_equal_masks_is_left_out():
    found = check(masks((5, 5, 10), (5, 5, 10), (30, 5, 10)))
    assert found.scene.ids == (0, 2)
    assert any("object 1 is left out: other masks cover all but 0 of its 100 pixels" in w for w in found.warnings)


def test_empty_and_tiny_masks_are_left_out():
    found = check(masks((5, 5, 10), (0, 0, 0), (30, 5, 3), (20, 20, 10)))
    assert found.scene.ids == (0, 3)
    assert found.warnings == (
        "object 1 is left out: its mask is empty",
        "object 2 is left out: its mask has only 9 pixels",
    )


def test_one_mask_is_a_scene_that_says_so():
    found = check(masks((5, 5, 10)))
    assert len(found.scene.ids) == 1
    assert "the only one" in found.warnings[0]


def test_an_object_hidden_in_one_picture_is_kept():
    seen, hidden = masks((5, 5, 10), (30, 5, 10)), masks((5, 5, 10), (0, 0, 0))
    found = checked_scene([3, 4], ["mug", "bowl"], [IMAGE, IMAGE], [hidden, seen])
    assert found.scene.ids == (3, 4)
    assert found.scene.pixels.tolist() == [[100, 0], [100, 100]]
    with pytest.raises(InputError, match=r"no object of the scene is to be seen: none of 2 masks has 16 pixels"):
        check(masks((0, 0, 0), (0, 0, 2)))


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (np.zeros((0, 40, 60), dtype=bool), "at least one mask"),
        (np.ones((255, 40, 60), dtype=bool), "255 masks are more than the 254"),
        (np.ones((2, 60, 40), dtype=bool), "masks of image 0 must have shape"),
    ],
)
def test_what_is_no_scene_is_refused(own, message):
    with pytest.raises(InputError, match=message):
        check(own)


@settings(max_examples=25, deadline=None)
@given(own=hnp.arrays(bool, st.tuples(st.integers(1, 5), st.just(40), st.just(60)), elements=st.booleans()))
def test_no_pixel_has_two_owners_and_none_gets_a_new_one(own):
    if own.any(axis=(1, 2)).sum() == 0:
        return
    try:
        found = check(own)
    except InputError:
        return
    kept = found.scene.masks[0]
    assert kept.sum(axis=0).max() <= 1
    assert not (kept & ~own[list(found.scene.ids)]).any()
    assert (kept.sum(axis=(1, 2)) >= MIN_PIXELS).all()
