"""Hints of masks and crops: their numbers, and what they do to position tokens and latent ones."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.generative.scene_denoiser import scene_denoiser
from gena3d_core.models.scene_condition import SceneParts, scene_condition, without_condition
from gena3d_core.models.scene_flow import SceneCondition, SceneFlow, SceneFlowConfig
from gena3d_core.models.scene_hints import AlignedCropEmbedding, MaskBoxEmbedding, SceneHints, mask_boxes
from gena3d_core.models.scene_upgrade import add_hints
from gena3d_core.sampling import FlowSchedule, Guidance, sample

from .test_scene_upgrade import encoder, view  # noqa: F401

SIDE = 20


@given(x=st.integers(0, SIDE - 1), y=st.integers(0, SIDE - 1), width=st.integers(1, SIDE), height=st.integers(1, SIDE))
@settings(deadline=None)
def test_a_rectangle_has_the_box_that_it_is(x, y, width, height):
    width, height = min(width, SIDE - x), min(height, SIDE - y)
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[1, y : y + height, x : x + width] = True
    found = mask_boxes(masks)
    wanted = [x + width / 2, y + height / 2, width, height, (width * height) ** 0.5]
    torch.testing.assert_close(found[1], torch.tensor(wanted) / SIDE)
    assert not found[0].any()  # an empty mask is nowhere


def flow(hints: bool) -> SceneFlow:
    torch.manual_seed(0)
    config = SceneFlowConfig(
        resolution=2, in_channels=3, out_channels=3, model_channels=24, cond_channels=12, num_blocks=2, num_heads=3,
        mlp_ratio=2.0, asset_tokens=5, mask_boxes=hints, aligned_crops=hints,
    )  # fmt: skip
    made = SceneFlow(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def condition(hints: SceneHints | None) -> SceneCondition:
    g = torch.Generator().manual_seed(1)
    return SceneCondition(torch.randn(3, 7, 12, generator=g), torch.randn(1, 4, 12, generator=g), hints)


X, T = torch.randn(3, 3, 2, 2, 2, generator=torch.Generator().manual_seed(2)), torch.full((3,), 400.0)
BOXES = torch.tensor([[0.3, 0.4, 0.2, 0.2, 0.2], [0.7, 0.5, 0.1, 0.3, 0.15], [0.5, 0.8, 0.3, 0.1, 0.2]])
HINTS = SceneHints(BOXES, torch.rand(3, 5, 16, 16, generator=torch.Generator().manual_seed(3)))
NOTHING = HINTS.without(torch.tensor([True, True, True]))


@torch.no_grad()
def run(model, given):
    return model(X, T, model.contexts(given), assets=3, hints=given.hints)


@torch.no_grad()
def test_they_move_tokens_and_nothing_of_models_without_them():
    plain = flow(False)
    for a, b in zip(run(plain, condition(None)), run(plain, condition(HINTS)), strict=True):
        assert torch.equal(a, b)
    model = flow(True)
    moved = SceneHints(BOXES.clone(), HINTS.crops)
    moved.boxes[2, 0] = 0.1
    (_, here), (_, there) = run(model, condition(HINTS)), run(model, condition(moved))
    assert (here[2] - there[2]).abs().max() > 1e-3
    other = SceneHints(BOXES, HINTS.crops.flip(3))
    assert (run(model, condition(HINTS))[0] - run(model, condition(other))[0]).abs().max() > 1e-2
    for a, b in zip(run(model, condition(NOTHING)), run(model, condition(None)), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_pixels_belong_to_the_tokens_that_a_camera_from_the_front_sees_there():
    """A bright spot at the upper right: tokens on the right and at the top change most, at every depth."""
    torch.manual_seed(0)
    embedding = AlignedCropEmbedding(6, 4)
    torch.nn.init.normal_(embedding.last.weight)
    dark, spot = torch.zeros(1, 5, 16, 16), torch.zeros(1, 5, 16, 16)
    spot[:, :, 1:3, 13:15] = 1.0
    change = (embedding(spot) - embedding(dark))[0].abs().sum(dim=1).view(4, 4, 4)  # x, y, z
    for depth in range(4):
        assert change[:, depth].argmax() == 3 * 4 + 3
        assert change[0, depth, 0] == 0  # too far away for any convolution


@torch.no_grad()
def test_the_order_of_the_other_assets_orders_the_answers():
    model, order = flow(True), torch.tensor([0, 2, 1])
    given = condition(HINTS)
    velocity, tokens = run(model, given)
    turned = SceneCondition(given.tokens[order], given.shared, HINTS.of_assets(order))
    other = model(X[order], T, model.contexts(turned), assets=3, hints=turned.hints)
    torch.testing.assert_close(other[0], velocity[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other[1], tokens[order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_guided_step_leaves_them_out_where_nothing_is_known():
    model, given = flow(True), condition(HINTS)
    schedule = FlowSchedule(1, 1.0)
    found = sample(scene_denoiser(model, given, assets=3), X, schedule, Guidance(3.0))
    t = torch.full((3,), 1000.0)
    known = model(X, t, model.contexts(given), assets=3, hints=HINTS)[0]
    nothing = without_condition(given, torch.tensor([True]))
    assert nothing.hints is not None
    assert not nothing.hints.boxes.any()
    assert not nothing.hints.crops.any()
    without = model(X, t, model.contexts(nothing), assets=3, hints=nothing.hints)[0]
    # One Euler step over the whole time; guidance w is (1 + w) times the one minus w times the other.
    torch.testing.assert_close(X - found.x, 4.0 * known - 3.0 * without, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_fresh_embeddings_change_nothing_and_learn():
    plain = flow(False)
    grown = add_hints(plain, mask_boxes=True, aligned_crops=True)
    assert grown.config.mask_boxes
    assert grown.config.aligned_crops
    assert add_hints(grown, mask_boxes=True) is grown
    for a, b in zip(run(grown, condition(HINTS)), run(plain, condition(None)), strict=True):
        assert torch.equal(a, b)
    with torch.enable_grad():
        boxes, crops = MaskBoxEmbedding(8), AlignedCropEmbedding(8, 2)
        for embedding in (boxes, crops):
            embedding.initialise()
        (boxes(BOXES, torch.tensor([True, False, False])).sum() + crops(HINTS.crops).sum()).backward()
    for layer in (boxes.last, crops.last):
        assert layer.weight.grad is not None
        assert layer.weight.grad.abs().sum() > 0


def test_sizes_that_pixels_do_not_fit_are_refused():
    with pytest.raises(InputError, match="aligned_crops: 3 tokens do not divide 16"):
        SceneFlowConfig(
            resolution=3, in_channels=3, out_channels=3, model_channels=24, cond_channels=12, num_blocks=1,
            aligned_crops=True,
        )  # fmt: skip


@torch.no_grad()
def test_the_condition_has_them_with_the_masks(encoder):  # noqa: F811
    given, geometry = view(), torch.randn(2, 6, 12)
    found = scene_condition(encoder, given, geometry).hints
    assert found is not None
    assert torch.equal(found.boxes, mask_boxes(given.masks))
    assert torch.equal(found.crops, given.crops)  # they have as many pixels already
    assert scene_condition(encoder, given, geometry, SceneParts(mask=False)).hints is None
