"""Encoders of scene geometry: views see each other, scenes do not, and numbering assets means nothing."""

import pytest
import torch

from gena3d_core.checkpoints.own_models import build_own, own_config
from gena3d_core.errors import InputError
from gena3d_core.models.geometry.vggt import VggtAggregator, VggtAggregatorConfig, condition_tokens
from gena3d_core.models.scene_geometry import (
    SmallSceneGeometry,
    SmallSceneGeometryConfig,
    VggtSceneGeometry,
    outline_channels,
    scene_geometry_encoder,
)

CONFIG = SmallSceneGeometryConfig(stem=(8, 8), width=24, depth=1, heads=3, registers=2, out_width=20)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    module = SmallSceneGeometry(CONFIG)
    module.initialise()
    with torch.no_grad():
        module.special_token.add_(0.5 * torch.randn_like(module.special_token))
    return module.eval()


def views(scenes=2, count=3, side=16):
    g = torch.Generator().manual_seed(1)
    images = torch.rand(scenes, count, 3, side, side, generator=g)
    instances = torch.randint(0, 3, (scenes, count, side // 4, side // 4), generator=g)
    return images, instances.repeat_interleave(4, 2).repeat_interleave(4, 3)


@torch.no_grad()
def test_tokens_of_every_view_see_the_other_views_of_their_scene_only(encoder):
    images, instances = views()
    tokens = encoder.encode(images, instances)
    assert tokens.shape == (2, 3, 1 + 2 + 4, 20)
    assert encoder.width == 20
    alone = encoder.encode(images[:1], instances[:1])
    torch.testing.assert_close(tokens[:1], alone, atol=1e-5, rtol=1e-5)
    changed = images.clone()
    changed[0, 2] = 1.0 - changed[0, 2]
    other = encoder.encode(changed, instances)
    assert (other[0, 0] - tokens[0, 0]).abs().max() > 1e-3
    torch.testing.assert_close(other[1], tokens[1], atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_the_order_of_later_views_is_the_order_of_their_tokens(encoder):
    images, instances = views()
    order = [0, 2, 1]
    tokens, turned = encoder.encode(images, instances), encoder.encode(images[:, order], instances[:, order])
    torch.testing.assert_close(turned, tokens[:, order], atol=1e-5, rtol=1e-5)
    first = encoder.encode(images[:, [1, 0, 2]], instances[:, [1, 0, 2]])
    assert (first[:, 0] - tokens[:, 1]).abs().max() > 1e-3  # the first view is the one that the others relate to


@torch.no_grad()
def test_instances_count_by_their_outlines_not_their_numbers(encoder):
    images, instances = views()
    tokens = encoder.encode(images, instances)
    renumbered = torch.where(instances > 0, 7 - instances, 0)
    torch.testing.assert_close(encoder.encode(images, renumbered), tokens)
    assert (encoder.encode(images, (instances > 0).long()) - tokens).abs().max() > 1e-4
    assert (encoder.encode(images) - tokens).abs().max() > 1e-3


def test_outlines_are_where_neighbours_differ():
    instances = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    instances[..., 1:, 1:] = 5
    found = outline_channels(torch.zeros(1, 1, 3, 4, 4), instances)[0, 0]
    assert found[0].sum() == 9
    assert found[1, 2:, 2:].sum() == 0
    assert found[1, 0].all()
    assert found[1, 1, 1:].all()


def test_it_learns_where_a_spot_is(encoder):
    torch.manual_seed(0)
    module = SmallSceneGeometry(CONFIG)
    module.initialise()
    reader = torch.nn.Linear(20, 2)
    optimizer = torch.optim.Adam([*module.parameters(), *reader.parameters()], lr=5e-3)
    place = torch.randint(0, 4, (16, 2))
    images = torch.zeros(16, 1, 3, 16, 16)
    for i, (row, column) in enumerate(place.tolist()):
        images[i, 0, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 1.0
    losses = []
    for _ in range(60):
        loss = (reader(module.encode(images)[:, 0, 0]) - place / 4.0).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


@torch.no_grad()
def test_the_aggregator_of_vggt_is_an_encoder():
    torch.manual_seed(0)
    aggregator = VggtAggregator(VggtAggregatorConfig(width=24, patch_size=4, depth=2, heads=3, encoder=None)).eval()
    images, instances = views()
    encoder = scene_geometry_encoder(aggregator)
    assert isinstance(encoder, VggtSceneGeometry)
    tokens = encoder.encode(images, instances)
    assert tokens.shape == (2, 3, 2 * (5 + 16), encoder.width)
    torch.testing.assert_close(tokens, condition_tokens(aggregator(images)[0]))


def test_what_is_no_encoder_is_refused(encoder):
    assert scene_geometry_encoder(encoder) is encoder
    with pytest.raises(InputError, match="no encoder"):
        scene_geometry_encoder(torch.nn.Linear(2, 2))
    with pytest.raises(InputError, match="instances must be"):
        encoder.encode(views()[0], torch.zeros(2, 3, 8, 8, dtype=torch.long))
    with pytest.raises(InputError, match="multiples of 8"):
        encoder.encode(torch.rand(1, 1, 3, 12, 12))
    with pytest.raises(InputError, match="multiples of 4"):
        SmallSceneGeometryConfig(width=20, heads=3)


def test_it_is_saved_like_the_other_networks(encoder):
    again = build_own(*own_config(encoder))
    assert isinstance(again, SmallSceneGeometry)
    assert again.config == CONFIG
    again.load_state_dict(encoder.state_dict())
