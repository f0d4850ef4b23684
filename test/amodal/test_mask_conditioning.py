"""Amodal3R's mask preparation: stored data, and masks whose shares are known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.amodal.mask_conditioning import patch_ratios, split_grey_mask, visible_image
from gena3d_core.checkpoints.cases.images import amodal_masks as run_case
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.errors import InputError


def test_golden_case(golden_dir: Path) -> None:
    case = read_case(golden_dir / "d_amodal_mask_preprocess")
    results = run_case(case)
    differences = compare_case(case, results)
    assert len(differences) == 7
    assert all(difference.ok for difference in differences.values()), differences
    for name, tensor in results.tensors.items():
        spoilt = tensor.clone()
        # Two grey levels, a flipped mask pixel, a tenth of a patch: each is too much.
        spoilt.view(-1)[0] += 2 if tensor.dtype == torch.uint8 and tensor.ndim == 3 else 1 if "mask" in name else 0.1
        broken = {**results.tensors, name: spoilt}
        assert not compare_case(case, type(results)(broken, results.comparisons))[name].ok, name


def test_grey_values_and_growth() -> None:
    mask = np.full((9, 9), 188, dtype=np.uint8)
    mask[4, 4] = 126
    mask[0] = 231
    mask[8] = 230
    mask[7, 0] = 127
    removed, occluder = split_grey_mask(mask, 0)
    assert np.argwhere(occluder).tolist() == [[4, 4]]
    assert removed.sum() == 10
    removed, occluder = split_grey_mask(mask, 3)
    assert np.argwhere(occluder).tolist() == [[3, 4], [4, 3], [4, 4], [4, 5], [5, 4]]
    assert np.array_equal(removed, occluder | (mask > 230))
    assert split_grey_mask(mask, 5)[1].sum() > occluder.sum()
    with pytest.raises(InputError, match="kernel_size"):
        split_grey_mask(mask, -1)


def test_removed_pixels_are_black() -> None:
    image = np.full((40, 60, 3), 77, dtype=np.uint8)
    removed = np.zeros((40, 60), dtype=bool)
    removed[:, :30] = True
    out = visible_image(image, removed, 120)
    assert out.shape == (120, 120, 3)
    assert not out[:, :55].any()
    assert (out[:, 65:] == 77).all()
    with pytest.raises(InputError, match="removed"):
        visible_image(image, removed[:10])


@given(st.integers(0, 2**32 - 1), st.integers(1, 900), st.integers(1, 900))
@settings(max_examples=30, deadline=None)
def test_ratios_follow_the_nearest_resize(seed: int, height: int, width: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < 0.5
    stretched = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None].float(), (518, 518), mode="nearest")
    expected = torch.nn.functional.avg_pool2d(stretched, 14)[0, 0]
    assert np.abs(patch_ratios(mask) - expected.numpy()).max() < 1e-6


def test_ratios_of_plain_masks() -> None:
    assert np.array_equal(patch_ratios(np.ones((3, 5), dtype=bool)), np.ones((37, 37)))
    halves = np.zeros((74, 74), dtype=bool)
    halves[::2] = True
    assert np.array_equal(patch_ratios(halves), np.full((37, 37), 0.5))
    assert patch_ratios(halves, 28, 7).shape == (4, 4)
    with pytest.raises(InputError, match="multiple"):
        patch_ratios(halves, 100, 14)
