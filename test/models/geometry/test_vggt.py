"""The aggregator as a whole: tokens of the first view, layers, precision, errors."""

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.models.geometry.vggt import VggtAggregatorConfig, condition_tokens
from gena3d_core.models.image_encoders.dinov2 import DinoV2Config


def views(count: int = 3, scenes: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(scenes, count, 3, 28, 42, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("plain", [False, True])
def test_shapes_and_layers(make_aggregator, plain):
    model = make_aggregator(**({"encoder": None} if plain else {}))
    with torch.no_grad():
        first, last = model(views(2, scenes=2), layers=(0, -1))
        (alone,) = model(views(2, scenes=2))
        again = model(views(2, scenes=2), layers=(1, 0, 1))
    assert first.shape == last.shape == (2, 2, model.special_tokens + 6, 48)
    assert not torch.allclose(first, last, atol=1e-2)
    for ours, wanted in ((alone, last), (again[0], last), (again[1], first), (again[2], last)):
        torch.testing.assert_close(ours, wanted)


def test_only_the_first_view_is_special(make_aggregator):
    model, images = make_aggregator(), views(4)
    with torch.no_grad():
        (found,) = model(images)
        (others,) = model(images[:, [0, 3, 1, 2]])
        (reordered,) = model(images[:, [1, 0, 2, 3]])
    torch.testing.assert_close(others, found[:, [0, 3, 1, 2]], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(reordered, found[:, [1, 0, 2, 3]], atol=1e-2)


def test_scenes_do_not_see_each_other(make_aggregator):
    model, images = make_aggregator(), views(2, scenes=2)
    with torch.no_grad():
        (together,) = model(images)
        (alone,) = model(images[1:])
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)


def test_condition_tokens_stack_the_halves():
    features = torch.arange(2 * 3 * 4.0).view(2, 3, 4)
    found = condition_tokens(features)
    assert found.shape == (2, 6, 2)
    assert found[0].tolist() == [[0, 1], [4, 5], [8, 9], [2, 3], [6, 7], [10, 11]]


def test_half_precision_stays_near(make_aggregator):
    with torch.no_grad():
        (exact,) = make_aggregator()(views())
        model = make_aggregator()
        model.set_precision(torch.bfloat16)
        (found,) = model(views())
    assert model.global_blocks[0].operations["mlp"].mlp[0].weight.dtype == torch.bfloat16
    assert found.dtype == torch.float32
    assert (found - exact).norm() / exact.norm() < 0.05


def test_what_does_not_fit_is_refused(make_aggregator):
    with pytest.raises(InputError, match="layers"):
        make_aggregator()(views(), layers=(2,))
    with pytest.raises(InputError, match="sides"):
        make_aggregator()(torch.rand(1, 1, 3, 30, 28))
    with pytest.raises(InputError, match="encoder's width"):
        VggtAggregatorConfig(width=64, heads=4)
    with pytest.raises(InputError, match="patch"):
        VggtAggregatorConfig(width=48, heads=4, patch_size=16, encoder=DinoV2Config(embed_dim=48))
    with pytest.raises(InputError, match="multiples of 4"):
        VggtAggregatorConfig(width=24, heads=4, encoder=None)
