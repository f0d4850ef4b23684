"""Conditions of the flow models: objects without clouds, unseen views, guidance, caching, copies, errors."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.models.conditioning import (
    FlowCondition,
    ViewTokens,
    mask_token_bias,
    repeat_contexts,
    select_views,
    single_views,
    unconditional,
    view_weights,
    with_unconditional,
)
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow
from gena3d_core.nn.attention import PADDING_BIAS

GENA3D = {"stereo_attention": True, "fusion_norm": True, "occlusion_attention": True}
CLOSE = {"atol": 5e-6, "rtol": 0.0}
"""float32, velocities of spread 0.6."""


def run(model: SparseStructureFlow, x: Tensor, t: Tensor, condition: FlowCondition) -> Tensor:
    with torch.no_grad():
        return model(x, t, model.contexts(condition))


def test_padded_views_are_unpadded_views(make_flow: Callable, make_condition: Callable, make_state: Callable) -> None:
    """Views with fewer tokens than others, filled up with masked ones; whatever stands there."""
    model, (x, t) = make_flow(**GENA3D), make_state(2)
    whole = make_condition([2, 1], tokens=7, occlusion=5, biased=True)
    short = replace(
        whole.views,
        tokens=whole.views.tokens[:, :4],
        token_bias=whole.views.token_bias[:, :4],
        occlusion=whole.views.occlusion[:, :3],
    )
    padded = replace(
        whole.views,
        token_bias=whole.views.token_bias.clone().index_fill_(1, torch.tensor([4, 5, 6]), PADDING_BIAS),
        occlusion_bias=torch.tensor([0.0, 0, 0, PADDING_BIAS, PADDING_BIAS]).expand(3, 5),
    )
    expected = run(model, x, t, replace(whole, views=short))
    torch.testing.assert_close(run(model, x, t, replace(whole, views=padded)), expected, **CLOSE)


def test_a_view_that_sees_nothing_contributes_nothing(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """Not even where its tokens are not numbers."""
    model, (x, t) = make_flow(**GENA3D), make_state(2)
    condition = make_condition([3, 1], occlusion=5)
    visibility = torch.tensor([0.3, 0.0, 0.5, 0.2])
    views = replace(condition.views, weight=view_weights(visibility, condition.views.owner, 2))
    broken = replace(views, tokens=views.tokens.clone().index_fill_(0, torch.tensor([1]), torch.nan))
    without = select_views(views, torch.tensor([0, 2, 3]))
    expected = run(model, x, t, replace(condition, views=without))
    assert torch.equal(run(model, x, t, replace(condition, views=broken)), expected)
    assert torch.isfinite(expected).all()


@pytest.mark.parametrize("gating", [True, False])
def test_objects_without_a_cloud(
    gating: bool, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model, (x, t) = make_flow(**GENA3D, gating=gating), make_state(3)
    condition = make_condition([2, 1, 1], occlusion=5)
    assert condition.geometry is not None
    with_clouds, without = run(model, x, t, condition), run(model, x, t, replace(condition, geometry=None))
    mixed = replace(
        condition,
        geometry=condition.geometry.clone().index_fill_(0, torch.tensor([1]), torch.nan),
        has_geometry=torch.tensor([True, False, True]),
    )
    found = run(model, x, t, mixed)
    torch.testing.assert_close(found[[0, 2]], with_clouds[[0, 2]], **CLOSE)
    torch.testing.assert_close(found[1], without[1], **CLOSE)
    assert float((with_clouds[1] - without[1]).abs().max()) > 1e-3
    none = replace(condition, has_geometry=torch.zeros(3, dtype=torch.bool))
    assert torch.equal(run(model, x, t, none), without)
    assert isinstance(model.contexts(none)[0]["stereo_attn"], Tensor)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_constant_unconditional_is_an_all_zero_condition(
    dtype: torch.dtype, atol: float, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """Zero tokens of the views, with log(1e-6) for their patches as Amodal3R has, and zero geometry tokens."""
    model, (x, t) = make_flow(**GENA3D), make_state(2)
    model.set_precision(dtype)
    views = make_condition([2, 1], occlusion=5).views
    bias = mask_token_bias(torch.zeros(3, 5), 2)
    zeros = replace(
        views, tokens=torch.zeros(3, 7, 10), token_bias=bias, occlusion=torch.zeros(3, 5, 10), weight=views.weight
    )
    contexts = [dict(own) for own in model.contexts(FlowCondition(zeros, 2))]
    for own, block in zip(contexts, model.blocks, strict=True):
        own["stereo_attn"] = block.operations["stereo_attn"].project(torch.zeros(2, 64, 24))
    with torch.no_grad():
        expected, found = model(x, t, contexts), model(x, t, unconditional(model.blocks))
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("share_mod", [False, True])
@pytest.mark.parametrize("counts", [[1, 1], [2, 1, 3]], ids=str)
def test_guided_pass_is_two_passes(
    counts: list[int], share_mod: bool, make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model, (x, t) = make_flow(**GENA3D, share_mod=share_mod), make_state(len(counts))
    condition = make_condition(counts, occlusion=5)
    for given in (condition, replace(condition, geometry=None)):
        contexts = model.contexts(given)
        with torch.no_grad():
            both = model(torch.cat([x, x]), torch.cat([t, t]), with_unconditional(contexts, model.blocks))
            expected = torch.cat([model(x, t, contexts), model(x, t, unconditional(model.blocks))])
        torch.testing.assert_close(both, expected, **CLOSE)


def test_contexts_made_once_are_contexts_made_in_every_step(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    model, condition = make_flow(**GENA3D), make_condition([2, 1], occlusion=5, biased=True)
    x, _ = make_state(2)
    with torch.no_grad():
        kept, ends = model.contexts(condition), []
        for cached in (True, False):
            h = x
            for time in (1000.0, 700.0, 300.0):
                contexts = kept if cached else model.contexts(replace(condition))
                h = h - 0.3 * model(h, torch.full((2,), time), contexts)
            ends.append(h)
    assert torch.equal(*ends)


@pytest.mark.parametrize("counts", [[1, 1], [2, 1]], ids=str)
def test_copies_are_rows_of_their_own(
    counts: list[int], make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """Hypotheses of one object share its keys and values; so do they with guidance."""
    model, (x, t) = make_flow(**GENA3D), make_state(6)
    condition = make_condition(counts, occlusion=5)
    contexts = repeat_contexts(model.contexts(condition), 3)
    with torch.no_grad():
        found = model(x, t, contexts)
        both = model(torch.cat([x, x]), torch.cat([t, t]), with_unconditional(contexts, model.blocks))
        alone = model(x, t, unconditional(model.blocks))
    rows = torch.tensor([0, 0, 0, 1, 1, 1])
    pairs = [torch.nonzero(condition.views.owner == row).flatten() for row in rows]
    views = select_views(condition.views, torch.cat(pairs))
    owner = torch.arange(6).repeat_interleave(torch.tensor([len(p) for p in pairs]))
    assert condition.geometry is not None
    expected = run(model, x, t, FlowCondition(replace(views, owner=owner), 6, condition.geometry[rows]))
    torch.testing.assert_close(found, expected, **CLOSE)
    torch.testing.assert_close(both, torch.cat([expected, alone]), **CLOSE)


def test_a_stream_that_the_contexts_do_not_serve(
    make_flow: Callable, make_condition: Callable, make_state: Callable
) -> None:
    """One context for several rows would otherwise be broadcast without a word."""
    model, contexts = make_flow(), make_flow().contexts(make_condition([1]))
    for rows in (2, 4):
        with pytest.raises(InputError, match=f"serves 1 rows of the stream, which has {rows}"):
            model(*make_state(rows), contexts)
    with pytest.raises(InputError, match="serves 3 rows of the stream, which has 2"):
        model(*make_state(2), with_unconditional(model.contexts(make_condition([1, 1, 1])), model.blocks))


def test_weights_of_views() -> None:
    owner = torch.tensor([1, 0, 1, 1])
    found = view_weights(torch.tensor([0.2, 0.9, 0.6, 0.0]), owner, 2)
    torch.testing.assert_close(found, torch.tensor([0.25, 1.0, 0.75, 0.0]))
    with pytest.raises(InputError, match=r"objects \[1\] of the batch are visible in none"):
        view_weights(torch.tensor([0.0, 0.9, 0.0, 0.0]), owner, 2)
    with pytest.raises(InputError, match=r"objects \[2\]"):
        view_weights(torch.tensor([0.1, 0.9, 0.3, 0.2]), owner, 3)
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1, got"):
            view_weights(torch.tensor([bad, 0.9, 0.3, 0.2]), owner, 2)


def test_mask_bias_leaves_special_tokens_alone() -> None:
    found = mask_token_bias(torch.tensor([[0.0, 0.5, 1.0]]), 2)
    expected = torch.tensor([[1.0, 1.0, 0.0, 0.5, 1.0]], dtype=torch.float64).add(1e-6).log()
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


def test_conditions_that_cannot_be(make_flow: Callable, make_condition: Callable) -> None:
    model, condition = make_flow(**GENA3D), make_condition([1, 2], occlusion=5)
    views = condition.views
    wrong: list[tuple[FlowCondition, str]] = [
        (replace(condition, views=replace(views, weight=views.weight * 2)), "must sum to 1"),
        (replace(condition, views=replace(views, weight=torch.tensor([0.0, 0.5, 0.5]))), r"\[0\] have no entry"),
        (replace(condition, views=replace(views, owner=torch.tensor([0, 1, 2]))), r"must lie in 0\.\.1"),
        (replace(condition, views=replace(views, tokens=views.tokens[..., :9])), r"must be \(P, L, 10\)"),
        (replace(condition, views=replace(views, occlusion=None)), "give `occlusion`"),
        (replace(condition, geometry=condition.geometry[:1]), "geometry must be"),
        (replace(condition, geometry=condition.geometry[:, :, :2]), "geometry must be"),
        (replace(condition, has_geometry=torch.tensor([True])), "has_geometry"),
        (replace(condition, views=replace(views, token_bias=torch.zeros(3, 6))), "key_bias must be"),
    ]
    for bad, message in wrong:
        with pytest.raises(InputError, match=message):
            model(torch.zeros(2, 3, 4, 4, 4), torch.zeros(2), model.contexts(bad))


def test_single_views_are_one_view_of_each(make_flow: Callable, make_state: Callable) -> None:
    tokens, (x, t) = torch.randn(2, 7, 10), make_state(2)
    condition = single_views(tokens)
    assert condition.seen[1] is None
    explicit = FlowCondition(ViewTokens(tokens[[1, 0]], torch.tensor([1, 0]), torch.ones(2)), 2)
    assert explicit.seen[1] is not None
    model = make_flow()
    torch.testing.assert_close(run(model, x, t, explicit), run(model, x, t, condition), **CLOSE)
