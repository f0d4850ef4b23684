"""Structured-latent flow: what its savings and the batch must not change."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.models.conditioning import (
    FlowCondition,
    ViewTokens,
    single_views,
    unconditional,
    with_unconditional,
)
from gena3d_core.models.structured_latent_flow import StructuredLatentFlow, StructuredLatentFlowConfig
from gena3d_core.nn.sparse import SparseTensor, concatenate, repeat_samples

CONFIG = StructuredLatentFlowConfig(
    resolution=16,
    in_channels=4,
    model_channels=32,
    cond_channels=12,
    out_channels=4,
    num_blocks=2,
    num_heads=4,
    mlp_ratio=2.0,
    io_block_channels=(16,),
    qk_rms_norm=True,
)
TOKENS = 5


def model_of(config: StructuredLatentFlowConfig, seed: int = 0) -> StructuredLatentFlow:
    """Every parameter random, so that no branch starts as nothing."""
    torch.manual_seed(seed)
    model = StructuredLatentFlow(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def sample_of(cells: int, seed: int, resolution: int = 16) -> SparseTensor:
    g = torch.Generator().manual_seed(seed)
    flat = torch.randperm(resolution**3, generator=g)[:cells]
    ijk = torch.stack([flat // resolution**2, flat // resolution % resolution, flat % resolution], dim=-1)
    coords = torch.cat([torch.zeros(cells, 1, dtype=torch.long), ijk], dim=-1).int()
    return SparseTensor.create(coords, torch.randn(cells, CONFIG.in_channels, generator=g))


def tokens_of(count: int, seed: int) -> Tensor:
    return torch.randn(count, TOKENS, CONFIG.cond_channels, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_a_batch_gives_what_its_samples_give_alone():
    model, parts = model_of(CONFIG), [sample_of(30, 1), sample_of(73, 2), sample_of(5, 3)]
    tokens, t = tokens_of(3, 4), torch.tensor([100.0, 500.0, 900.0])
    together = model(concatenate(parts), t, model.contexts(single_views(tokens))).samples()
    for i, part in enumerate(parts):
        alone = model(part, t[i : i + 1], model.contexts(single_views(tokens[i : i + 1])))
        torch.testing.assert_close(together[i], alone.feats, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("occlusion", [False, True])
def test_a_sample_never_sees_the_image_of_another(occlusion):
    model = model_of(replace(CONFIG, occlusion_attention=occlusion))
    x, t = concatenate([sample_of(30, 1), sample_of(40, 2)]), torch.full((2,), 300.0)
    bias = torch.log(torch.rand(2, TOKENS, generator=torch.Generator().manual_seed(3)))
    tokens, other = tokens_of(2, 4), tokens_of(2, 5)
    other[0] = tokens[0]
    occluded = (tokens_of(2, 6), torch.cat([tokens_of(2, 6)[:1], tokens_of(1, 7)])) if occlusion else (None, None)
    first = model(x, t, model.contexts(single_views(tokens, bias, occluded[0]))).samples()
    second = model(x, t, model.contexts(single_views(other, bias, occluded[1]))).samples()
    torch.testing.assert_close(first[0], second[0], rtol=0, atol=0)
    assert (first[1] - second[1]).abs().max() > 1e-2


@torch.no_grad()
def test_one_guided_pass_is_two_passes():
    model = model_of(replace(CONFIG, occlusion_attention=True))
    x, t = concatenate([sample_of(30, 1), sample_of(73, 2)]), torch.tensor([200.0, 700.0])
    tokens, occluded = tokens_of(2, 4), tokens_of(2, 5)
    contexts = model.contexts(single_views(tokens, None, occluded))
    both = model(repeat_samples(x, 2), t.repeat(2), with_unconditional(contexts, model.blocks)).feats
    zeros = model.contexts(single_views(torch.zeros_like(tokens), None, torch.zeros_like(occluded)))
    separate = [model(x, t, c).feats for c in (contexts, zeros)]
    torch.testing.assert_close(both, torch.cat(separate), rtol=1e-4, atol=1e-5)
    constant = model(x, t, unconditional(model.blocks)).feats
    torch.testing.assert_close(constant, separate[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_views_are_fused_whatever_their_order():
    model = model_of(replace(CONFIG, fusion_norm=True, occlusion_attention=True))
    x, t = concatenate([sample_of(30, 1), sample_of(43, 2)]), torch.tensor([200.0, 700.0])
    views = ViewTokens(
        tokens_of(4, 3), torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.3, 0.2, 1.0]), occlusion=tokens_of(4, 4)
    )
    order = torch.tensor([2, 0, 1, 3])
    shuffled = ViewTokens(
        views.tokens[order], views.owner[order], views.weight[order], occlusion=views.occlusion[order]
    )
    found = [model(x, t, model.contexts(FlowCondition(v, 2))).feats for v in (views, shuffled)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(
    "change",
    [
        {"io_block_channels": (), "patch_size": 1},
        {"io_block_channels": (16, 24), "patch_size": 4},
        {"num_io_res_blocks": 1},
        {"num_io_res_blocks": 3},
        {"use_skip_connection": False},
        {"share_mod": True},
        {"num_heads": None, "num_head_channels": 8},
    ],
)
def test_rows_of_a_sample_may_come_in_any_order(change):
    model = model_of(replace(CONFIG, **change))
    x, t, tokens = sample_of(60, 1), torch.tensor([400.0]), tokens_of(1, 2)
    contexts = model.contexts(single_views(tokens))
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    shuffled = model(SparseTensor.create(x.coords[order], x.feats[order]), t, contexts)
    found = model(x, t, contexts)
    assert found.feats.std() > 0.01
    torch.testing.assert_close(shuffled.feats, found.feats[order], rtol=1e-4, atol=1e-5)


def test_fresh_parameters_give_no_velocity_and_every_one_of_them_learns():
    torch.manual_seed(0)
    model = StructuredLatentFlow(replace(CONFIG, io_block_channels=(16, 24), patch_size=4, occlusion_attention=True))
    model.initialise()
    x, t = concatenate([sample_of(30, 1), sample_of(43, 2)]), torch.tensor([200.0, 700.0])
    condition = single_views(tokens_of(2, 3), None, tokens_of(2, 4))
    assert not model(x, t, model.contexts(condition)).feats.any()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model(x, t, model.contexts(condition)).feats.square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    model, x, t = model_of(CONFIG), sample_of(60, 1), torch.tensor([400.0])
    condition = single_views(tokens_of(1, 2))
    exact = model(x, t, model.contexts(condition)).feats
    model.set_precision(dtype)
    half = model(x, t, model.contexts(condition)).feats
    assert half.dtype == torch.float32
    assert model.input_layer.weight.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_wrong_sizes_are_named():
    with pytest.raises(InputError, match="patch_size 2"):
        replace(CONFIG, io_block_channels=(16, 24))
    with pytest.raises(InputError, match="num_io_res_blocks"):
        replace(CONFIG, num_io_res_blocks=0)
    model = model_of(CONFIG)
    x = sample_of(10, 0)
    with pytest.raises(InputError, match="4 channels, got 3"):
        model(x.replace(x.feats[:, :3]), torch.ones(1), unconditional(model.blocks))
    with pytest.raises(InputError, match=r"t must be \(1,\)"):
        model(x, torch.ones(2), unconditional(model.blocks))
