"""Charts of curves."""

import io

import numpy as np
import pytest
from PIL import Image

from gena3d_core.errors import InputError
from gena3d_core.viz.canvas import object_color
from gena3d_core.viz.curves import GAP, INSIDE, TOP, Curve, Panel, curve_sheet, nice_step, png_bytes


@pytest.mark.parametrize(
    ("rough", "step"), [(1.0, 1.0), (1.1, 2.0), (0.03, 0.05), (0.06, 0.1), (7.0, 10.0), (40.0, 50.0)]
)
def test_steps_of_axes(rough, step):
    assert nice_step(rough) == pytest.approx(step)


def heights(picture, color, x):
    """Rows of the plot of the first panel that have `color` at column x."""
    return np.flatnonzero((picture[TOP:, x] == color).all(axis=1)) + TOP


def test_a_curve_is_drawn_where_its_values_are():
    rising = Panel("error", "px", [Curve("a", [0, 1, 2], [0.0, 5.0, 10.0]), Curve("b", [0, 2], [5.0, 5.0], [1.0, 1.0])])
    picture = curve_sheet([rising], "error")
    left, right, bottom = GAP + INSIDE[0], GAP + INSIDE[2], TOP + INSIDE[3]
    middle = (left + right) // 2
    start, half, end = (heights(picture, object_color(0), x).mean() for x in (left, middle + 12, right))
    assert start == pytest.approx(bottom, abs=2)
    assert start > half > end
    flat = [heights(picture, object_color(1), x).mean() for x in (left, left + 60, right)]
    assert np.ptp(flat) < 2
    assert end < flat[0] < start
    # The bar of the standard error is taller than the dot.
    assert np.ptp(heights(picture, object_color(1), left)) > 10


def test_values_that_do_not_apply_are_left_out():
    gaps = Panel("error", "px", [Curve("a", [0, 1, 2], [1.0, float("nan"), 1.0], [float("nan")] * 3)])
    picture = curve_sheet([gaps] * 4, "error")
    assert (picture == object_color(0)).all(axis=2).any()
    assert picture.shape[0] > curve_sheet([gaps], "error").shape[0]
    assert np.array_equal(np.array(Image.open(io.BytesIO(png_bytes(picture)))), picture)
    with pytest.raises(InputError, match="finite"):
        curve_sheet([Panel("error", "px", [Curve("a", [0], [float("inf")])])], "error")
