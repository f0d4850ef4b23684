"""Crops of objects: the published ones on stored data, ours on pictures whose crop is known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.checkpoints.cases.images import crops as run_case
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.errors import InputError
from gena3d_core.views.object_crops import (
    geometry_image,
    inference_crop,
    object_crop,
    square_box,
    training_crop,
)


def test_golden_case(golden_dir: Path) -> None:
    case = read_case(golden_dir / "j_image_preprocess")
    results = run_case(case)
    differences = compare_case(case, results)
    assert len(differences) == 3
    assert all(difference.ok for difference in differences.values()), differences
    off = {**results.tensors, "out.infer_518": results.tensors["out.infer_518"].int() + 2}
    assert not compare_case(case, type(results)(off, results.comparisons))["out.infer_518"].ok


def masks(shape: tuple[int, int], visible: tuple[slice, slice], occluded: tuple[slice, slice] | None = None) -> tuple:
    shown, hidden = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    shown[visible] = True
    if occluded is not None:
        hidden[occluded] = True
    return shown, hidden


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_box_is_square_centred_and_holds_the_object(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    y1, x1 = data.draw(st.integers(y0, height - 1)), data.draw(st.integers(x0, width - 1))
    mask = np.zeros((height, width), dtype=bool)
    mask[y0 : y1 + 1, x0 : x1 + 1] = True
    left, top, right, bottom = square_box(mask, 1.2)
    side = max(x1 - x0, y1 - y0) + 1
    assert right - left == bottom - top == round(1.2 * side)
    assert left <= x0
    assert top <= y0
    assert right > x1
    assert bottom > y1
    assert abs((left + right) / 2 - (x0 + x1 + 1) / 2) <= 0.5
    assert abs((top + bottom) / 2 - (y0 + y1 + 1) / 2) <= 0.5


def test_crop_without_scaling_is_a_cut(rng: np.random.Generator) -> None:
    color = rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)
    visible, occluded = masks((50, 60), (slice(10, 30), slice(20, 30)), (slice(10, 30), slice(30, 40)))
    crop = object_crop(color, visible, occluded, 20, margin=1.0)
    assert crop.shape == (5, 20, 20)
    assert crop.dtype == np.float32
    expected = color[10:30, 20:40].transpose(2, 0, 1) / 255.0 * visible[10:30, 20:40]
    assert np.allclose(crop[:3], expected, atol=1e-6)
    assert np.array_equal(crop[3], visible[10:30, 20:40])
    assert np.array_equal(crop[4], occluded[10:30, 20:40])


@pytest.mark.parametrize("size", [16, 56, 112, 200])
def test_crop_scales_and_stays_in_range(size: int, rng: np.random.Generator) -> None:
    color = np.full((120, 160, 3), 200, dtype=np.uint8)
    visible, occluded = masks((120, 160), (slice(40, 80), slice(60, 100)))
    crop = object_crop(color, visible, occluded, size, margin=1.25)
    assert crop.shape == (5, size, size)
    # The object takes (1 / margin)² of the crop, whatever its size.
    assert crop[3].mean() == pytest.approx(0.64, abs=2.5 / size)
    assert not crop[4].any()
    inner = crop[:3, size // 4 : -size // 4, size // 4 : -size // 4]
    assert np.allclose(inner, 200 / 255, atol=1e-3)
    assert not crop[:3, 0].any()
    assert set(np.unique(crop[3])) == {0.0, 1.0}


def test_crop_reaches_over_the_edges() -> None:
    color = np.full((30, 40, 3), 255, dtype=np.uint8)
    visible, occluded = masks((30, 40), (slice(0, 30), slice(0, 4)))
    crop = object_crop(color, visible, occluded, 36, margin=1.2)
    assert np.argwhere(crop[3]).min(axis=0).tolist() == [3, 16]
    assert np.argwhere(crop[3]).max(axis=0).tolist() == [32, 19]
    assert np.array_equal(crop[0], crop[3])


def test_crop_of_nothing() -> None:
    empty = np.zeros((8, 8), dtype=bool)
    with pytest.raises(InputError, match="no pixel"):
        object_crop(np.zeros((8, 8, 3), dtype=np.uint8), empty, empty, 14)
    with pytest.raises(InputError, match="visible"):
        object_crop(np.zeros((8, 8, 3), dtype=np.uint8), empty[:4], empty, 14)


def cut_out(alpha_inside: int = 255) -> np.ndarray:
    rgba = np.zeros((100, 140, 4), dtype=np.uint8)
    rgba[30:71, 40:91] = (180, 90, 30, alpha_inside)
    return rgba


def test_published_crops_centre_the_object_over_black() -> None:
    for crop in (inference_crop(cut_out(), 60).astype(float), training_crop(cut_out(), 60) * 255):
        assert crop.shape == (60, 60, 3)
        rows, cols = np.nonzero(crop[..., 0] > 90)
        assert abs(rows.mean() - 29.5) < 1
        assert abs(cols.mean() - 29.5) < 1
        assert np.ptp(cols) + 1 == pytest.approx(60 / 1.2, abs=2)
        assert np.abs(crop[30, 30] - (180, 90, 30)).max() <= 1
        assert not crop[0].any()


def test_alpha_thins_the_colour_and_decides_what_counts() -> None:
    faint = training_crop(cut_out(128), 60) * 255
    assert np.abs(faint[30, 30] - np.array([180, 90, 30]) * 128 / 255).max() < 1.5
    with pytest.raises(InputError, match="no pixel"):
        inference_crop(cut_out(204), 60)
    opaque = cut_out()
    opaque[..., 3] = 255
    with pytest.raises(InputError, match="transparent"):
        inference_crop(opaque)


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300), (518, 518), (10, 900)])
def test_geometry_image_pads_with_white(height: int, width: int) -> None:
    image = np.full((height, width, 3), 100, dtype=np.uint8)
    out = geometry_image(image)
    assert out.shape == (518, 518, 3)
    filled = np.abs(out[..., 0] - 100 / 255) < 1e-3
    rows, cols = filled.any(axis=1).sum(), filled.any(axis=0).sum()
    assert max(rows, cols) == 518
    assert min(rows, cols) % 14 == 0
    assert min(rows, cols) == pytest.approx(518 * min(height, width) / max(height, width), abs=14)
    assert np.all(out[~filled] == 1.0)
    clear = np.concatenate([image, np.zeros((height, width, 1), dtype=np.uint8)], axis=-1)
    assert np.all(geometry_image(clear) == 1.0)
    with pytest.raises(InputError, match="image must be"):
        geometry_image(image[..., 0])
