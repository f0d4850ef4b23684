"""Views as one long context, and one view per step."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.models.conditioning import FlowCondition, select_views, single_views
from gena3d_core.models.view_fusion import concatenate_views, view_at_step


def own_views(condition: FlowCondition, row: int) -> list[int]:
    return torch.nonzero(condition.views.owner == row).flatten().tolist()


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.booleans(), st.booleans(), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_one_long_context_is_what_each_object_gets_alone(
    make_flow: Callable,
    make_condition: Callable,
    make_state: Callable,
    counts: list[int],
    biased: bool,
    shuffled: bool,
    seed: int,
) -> None:
    model = make_flow(occlusion_attention=True, stereo_attention=True)
    condition = make_condition(counts, occlusion=4, biased=biased, seed=seed)
    if shuffled:
        order = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(seed))
        condition = replace(condition, views=select_views(condition.views, order))
    x, t = make_state(len(counts))
    joined = concatenate_views(condition)
    assert joined.views.tokens.shape == (len(counts), 7 * max(counts), 10)
    with torch.no_grad():
        found = model(x, t, model.contexts(joined))
        for row in range(len(counts)):
            pairs, views = own_views(condition, row), condition.views
            alone = single_views(
                torch.cat(list(views.tokens[pairs]))[None],
                None if views.token_bias is None else torch.cat(list(views.token_bias[pairs]))[None],
                torch.cat(list(views.occlusion[pairs]))[None],
            )
            alone = replace(alone, geometry=condition.geometry[row : row + 1])
            expected = model(x[row : row + 1], t[row : row + 1], model.contexts(alone))
            torch.testing.assert_close(found[row], expected[0], atol=5e-6, rtol=0)


def test_even_views_need_no_bias(make_condition: Callable) -> None:
    assert concatenate_views(make_condition([2, 2])).views.token_bias is None
    assert concatenate_views(make_condition([2, 1])).views.token_bias is not None


def test_views_that_see_nothing_are_left_out(make_condition: Callable) -> None:
    condition = make_condition([3, 1])
    weight = torch.tensor([0.5, 0.0, 0.5, 1.0])
    blind = replace(condition, views=replace(condition.views, weight=weight))
    assert concatenate_views(blind).views.tokens.shape[1] == 14
    assert torch.equal(view_at_step(blind, 1).views.tokens[0], condition.views.tokens[2])


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [5, 3, 0, 1, 4, 2]])
def test_each_object_cycles_through_its_own_views(order: list[int], make_condition: Callable) -> None:
    condition = make_condition([3, 1, 2], occlusion=4, biased=True)
    condition = replace(condition, views=select_views(condition.views, torch.tensor(order)))
    for step in range(7):
        chosen = view_at_step(condition, step)
        assert torch.equal(chosen.views.weight, torch.ones(3))
        assert torch.equal(chosen.views.owner, torch.arange(3))
        assert chosen.geometry is condition.geometry
        for row in range(3):
            pairs = own_views(condition, row)
            pair = pairs[step % len(pairs)]
            for name in ("tokens", "token_bias", "occlusion"):
                assert torch.equal(getattr(chosen.views, name)[row], getattr(condition.views, name)[pair])


def test_one_view_each_is_left_as_it_is(make_condition: Callable) -> None:
    condition = make_condition([1, 1], occlusion=4)
    for same in (concatenate_views(condition), view_at_step(condition, 3)):
        assert same.views is condition.views
