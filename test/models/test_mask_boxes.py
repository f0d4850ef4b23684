"""Boxes of masks: their numbers, and what they do to position tokens."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.generative.scene_denoiser import scene_denoiser
from gena3d_core.models.mask_boxes import MaskBoxEmbedding, mask_boxes
from gena3d_core.models.scene_condition import SceneParts, scene_condition, without_condition
from gena3d_core.models.scene_flow import SceneCondition, SceneFlow, SceneFlowConfig
from gena3d_core.models.scene_upgrade import add_mask_boxes
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


def flow(boxes: bool) -> SceneFlow:
    torch.manual_seed(0)
    config = SceneFlowConfig(
        resolution=2, in_channels=3, out_channels=3, model_channels=24, cond_channels=12, num_blocks=2, num_heads=3,
        mlp_ratio=2.0, asset_tokens=5, mask_boxes=boxes,
    )  # fmt: skip
    made = SceneFlow(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made.eval()


def condition(boxes: torch.Tensor | None) -> SceneCondition:
    g = torch.Generator().manual_seed(1)
    return SceneCondition(torch.randn(3, 7, 12, generator=g), torch.randn(1, 4, 12, generator=g), boxes)


X, T = torch.randn(3, 3, 2, 2, 2, generator=torch.Generator().manual_seed(2)), torch.full((3,), 400.0)
BOXES = torch.tensor([[0.3, 0.4, 0.2, 0.2, 0.2], [0.7, 0.5, 0.1, 0.3, 0.15], [0.5, 0.8, 0.3, 0.1, 0.2]])


@torch.no_grad()
def run(model, given):
    return model(X, T, model.contexts(given), assets=3, boxes=given.boxes)


@torch.no_grad()
def test_they_move_position_tokens_and_nothing_of_models_without_them():
    plain = flow(False)
    for a, b in zip(run(plain, condition(None)), run(plain, condition(BOXES)), strict=True):
        assert torch.equal(a, b)
    model = flow(True)
    moved = BOXES.clone()
    moved[2, 0] = 0.1
    (_, here), (_, there) = run(model, condition(BOXES)), run(model, condition(moved))
    assert (here[2] - there[2]).abs().max() > 1e-3
    zeros = run(model, condition(torch.zeros_like(BOXES)))
    for a, b in zip(zeros, run(model, condition(None)), strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_only_places_relative_to_the_query_and_own_ones_count():
    """The other assets in another order: the same answers in that order."""
    model, order = flow(True), torch.tensor([0, 2, 1])
    given = condition(BOXES)
    velocity, tokens = run(model, given)
    turned = SceneCondition(given.tokens[order], given.shared, BOXES[order])
    other = model(X[order], T, model.contexts(turned), assets=3, boxes=turned.boxes)
    torch.testing.assert_close(other[0], velocity[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(other[1], tokens[order], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_guided_step_leaves_them_out_where_nothing_is_known():
    model, given = flow(True), condition(BOXES)
    schedule = FlowSchedule(1, 1.0)
    found = sample(scene_denoiser(model, given, assets=3), X, schedule, Guidance(3.0))
    t = torch.full((3,), 1000.0)
    known = model(X, t, model.contexts(given), assets=3, boxes=BOXES)[0]
    nothing = without_condition(given, torch.tensor([True]))
    assert nothing.boxes is not None
    assert not nothing.boxes.any()
    without = model(X, t, model.contexts(nothing), assets=3, boxes=nothing.boxes)[0]
    # One Euler step over the whole time; guidance w is (1 + w) times the one minus w times the other.
    torch.testing.assert_close(X - found.x, 4.0 * known - 3.0 * without, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_a_fresh_embedding_changes_nothing_and_learns():
    plain = flow(False)
    grown = add_mask_boxes(plain)
    for a, b in zip(run(grown, condition(BOXES)), run(plain, condition(None)), strict=True):
        assert torch.equal(a, b)
    with torch.enable_grad():
        embedding = MaskBoxEmbedding(8)
        embedding.initialise()
        embedding(BOXES, torch.tensor([True, False, False])).sum().backward()
    assert embedding.last.weight.grad is not None
    assert embedding.last.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_the_condition_has_them_with_the_masks(encoder):  # noqa: F811
    given, geometry = view(), torch.randn(2, 6, 12)
    found = scene_condition(encoder, given, geometry).boxes
    assert found is not None
    assert torch.equal(found, mask_boxes(given.masks))
    assert scene_condition(encoder, given, geometry, SceneParts(mask=False)).boxes is None
