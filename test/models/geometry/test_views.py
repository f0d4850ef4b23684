"""Streams of several views."""

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.models.geometry.views import (
    across_views,
    check_views,
    geometry_block,
    token_positions,
    within_views,
)
from gena3d_core.nn.rotary import planar_rotation


def test_positions_count_from_one_and_special_tokens_have_none() -> None:
    expected = [[0, 0], [0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]
    assert token_positions(2, 2, 3).tolist() == expected


def test_views_mix_across_but_not_within() -> None:
    torch.manual_seed(0)
    block = geometry_block(16, 2)
    x = torch.randn(2, 3, 4, 16)
    changed = x.clone()
    changed[0, 1] = torch.randn(4, 16)
    within = planar_rotation(token_positions(0, 2, 2), 8)
    with torch.no_grad():
        apart = (within_views(block, changed, within) - within_views(block, x, within)).abs().amax(dim=(2, 3))
        mixed = (across_views(block, changed, within.repeated(3)) - across_views(block, x, within.repeated(3))).abs()
    assert (apart > 1e-4).tolist() == [[False, True, False], [False, False, False]]
    assert (mixed.amax(dim=(2, 3)) > 1e-4).tolist() == [[True, True, True], [False, False, False]]


@pytest.mark.parametrize(
    "shape", [(3, 28, 28), (1, 0, 3, 28, 28), (1, 1, 4, 28, 28), (1, 1, 3, 28, 27), (0, 1, 3, 28, 28)]
)
def test_views_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"views|sides"):
        check_views(torch.zeros(shape), 14)
