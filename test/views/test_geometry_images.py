"""Sizes and values of views for the geometry networks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.views.geometry_images import limited_size, stacked_views

SIDE = st.integers(1, 5000)


@settings(max_examples=200, deadline=None)
@given(width=SIDE, height=SIDE, limit=st.integers(196, 400_000), multiple=st.sampled_from([7, 14]))
def test_sizes_are_whole_patches_within_the_limit(width: int, height: int, limit: int, multiple: int) -> None:
    wide, high = limited_size(width, height, pixel_limit=limit, multiple=multiple)
    assert wide % multiple == high % multiple == 0
    assert 0 < wide * high <= limit
    assert limited_size(height, width, pixel_limit=limit, multiple=multiple)[0] in range(
        high - multiple, high + multiple + 1
    )


@settings(max_examples=100, deadline=None)
@given(width=st.integers(100, 5000), ratio=st.floats(0.4, 2.5))
def test_the_aspect_ratio_stays_and_the_limit_is_used(width: int, ratio: float) -> None:
    height = round(width * ratio)
    wide, high = limited_size(width, height)
    assert wide * high > 0.9 * 255_000
    # Half a patch by rounding, one more where the area had to shrink.
    scale = (255_000 / (width * height)) ** 0.5
    assert abs(wide - width * scale) <= 21
    assert abs(high - height * scale) <= 21


def test_images_are_stretched_to_the_size_of_the_first(rng) -> None:
    images = [np.full((110, 150, 3), (255, 128, 0), np.uint8), rng.integers(0, 256, (60, 40, 3), dtype=np.uint8)]
    found = stacked_views(images, pixel_limit=9000)
    assert found.shape == (2, 3, 70, 112)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], np.array([1.0, 128 / 255, 0.0])[:, None, None].repeat(70, 1).repeat(112, 2))
    np.testing.assert_allclose(found[1].mean(axis=(1, 2)), images[1].mean(axis=(0, 1)) / 255, atol=0.02)


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match="no view"):
        stacked_views([])
    with pytest.raises(InputError, match="uint8"):
        stacked_views([np.zeros((30, 30, 3), np.float32)])
    with pytest.raises(InputError, match=r"images\[1\]"):
        stacked_views([np.zeros((30, 30, 3), np.uint8), np.zeros((30, 30), np.uint8)])
    with pytest.raises(InputError, match="pixels"):
        limited_size(0, 30)
    with pytest.raises(InputError, match="pixel_limit"):
        limited_size(30, 30, pixel_limit=195)
