"""Depth figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.metrics.depth import depth_error, texture_mask


@settings(deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(0.1, 10.0))
def test_a_constant_ratio_is_found(ratio, depth):
    reference = np.full((4, 5), depth, dtype=np.float32)
    result = depth_error(reference * np.float32(1.0 + ratio), reference)
    assert result.median_ratio == pytest.approx(abs(ratio), abs=1e-5)
    assert result.rmse_m == pytest.approx(abs(ratio) * depth, abs=1e-4 * depth)
    assert result.bad_fraction == float(abs(ratio) > 0.05) or abs(abs(ratio) - 0.05) < 1e-6
    assert result.coverage == 1.0


def test_only_known_and_masked_pixels_count():
    reference = np.array([[1.0, 2.0, np.nan, 4.0]], dtype=np.float32)
    estimated = np.array([[1.1, np.nan, 3.0, 8.0]], dtype=np.float32)
    result = depth_error(estimated, reference, np.array([[True, True, True, False]]))
    assert result.pixels == 2
    assert result.coverage == 0.5
    assert result.median_ratio == pytest.approx(0.1, abs=1e-6)
    assert result.bad_fraction == 1.0


def test_nothing_in_common_is_nan_not_zero():
    result = depth_error(np.full((2, 2), np.nan), np.ones((2, 2)))
    assert np.isnan([result.median_ratio, result.mean_ratio, result.rmse_m, result.bad_fraction]).all()
    assert result.coverage == 0.0
    assert result.pixels == 4


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\(2, 2\)"):
        depth_error(np.ones((2, 2)), np.ones((2, 3)))


def test_texture_is_where_the_image_varies(rng):
    color = np.full((60, 80, 3), 120, dtype=np.uint8)
    color[:, 40:] = rng.integers(0, 255, size=(60, 40, 1), dtype=np.uint8)
    mask = texture_mask(color)
    assert not mask[:, :34].any()
    assert mask[:, 46:].all()
