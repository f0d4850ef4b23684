from functools import partial

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.nn.blocks import SubLayer, TransformerBlock
from gena3d_core.nn.layers import FeedForward, SelfAttention
from gena3d_core.nn.norms import HeadRMSNorm
from gena3d_core.nn.sparse import (
    SparseTensor,
    WindowAttention,
    concatenate,
    from_padded,
    sample_windows,
    serialised_windows,
    shifted_windows,
    to_padded,
    windows,
)

WIDTH, HEADS = 24, 4
PARTITIONS = {
    "shifted": partial(shifted_windows, window=3, shift=1),
    "unshifted": partial(shifted_windows, window=3),
    "hilbert": partial(serialised_windows, length=11, shift=4),
    "morton": partial(serialised_windows, length=11, curve="morton"),
    "full": sample_windows,
}


@pytest.fixture(params=[64, 0], ids=["exact", "padded"])
def buckets(request, monkeypatch):
    """Windows of exactly equal size together, or padded to about equal size."""
    monkeypatch.setattr(windows, "EXACT_BUCKETS", request.param)


def layer(qk_norm=True):
    torch.manual_seed(0)
    made = WindowAttention(WIDTH, HEADS, qk_norm=HeadRMSNorm if qk_norm else None)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def dense_attention(made, feats, index):
    """All rows against all, masked to rows of the same window."""
    q, k, v = (part[0].transpose(0, 1) for part in made.project(feats[None]))
    logits = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
    logits = logits.masked_fill(index[:, None] != index, -torch.inf)
    return made.to_out((logits.softmax(-1) @ v).transpose(0, 1).flatten(1))


@pytest.mark.parametrize("name", PARTITIONS)
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.usefixtures("buckets")
def test_equals_dense_masked_attention(make, name, qk_norm):
    x, made = make(WIDTH), layer(qk_norm)
    context = PARTITIONS[name](x.geometry)
    torch.testing.assert_close(
        made(x.feats[None], context)[0], dense_attention(made, x.feats, context.index), atol=1e-5, rtol=1e-4
    )


@pytest.mark.usefixtures("buckets")
def test_gradient_equals_dense(make):
    x, made = make(WIDTH), layer()
    context = shifted_windows(x.geometry, 3, 1)
    gradients = []
    for attend in (lambda f: made(f[None], context)[0], lambda f: dense_attention(made, f, context.index)):
        feats = x.feats.clone().requires_grad_()
        made.zero_grad()
        attend(feats).square().sum().backward()
        gradients.append([feats.grad, *(p.grad.clone() for p in made.parameters())])
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-4 * float(wanted.detach().abs().max()), rtol=1e-3)


@pytest.mark.usefixtures("buckets")
def test_backends_agree(make):
    x, made = make(WIDTH), layer()
    context = shifted_windows(x.geometry, 3, 1)
    found = made(x.feats[None], context)
    made.attention_backend = "reference"
    torch.testing.assert_close(found, made(x.feats[None], context), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PARTITIONS)
def test_batched_is_one_by_one(make, name):
    parts = [make(WIDTH, batch=1, grid=(8, 8, 8), seed=seed) for seed in range(3)]
    made = layer()
    alone = [made(part.feats[None], PARTITIONS[name](part.geometry))[0] for part in parts]
    both = concatenate(parts)
    together = made(both.feats[None], PARTITIONS[name](both.geometry))[0]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", PARTITIONS)
def test_order_of_rows_does_not_matter(make, name):
    x, made = make(WIDTH, batch=1), layer()
    order = torch.randperm(len(x.feats), generator=torch.Generator().manual_seed(0))
    permuted = SparseTensor.create(x.coords[order], x.feats[order])
    found = made(permuted.feats[None], PARTITIONS[name](permuted.geometry))[0]
    wanted = made(x.feats[None], PARTITIONS[name](x.geometry))[0][order]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_one_window_per_sample_is_attention_on_padded_rows(make):
    x, made = make(WIDTH, batch=3), layer()
    padded, bias = to_padded(x)
    dense = SelfAttention.forward(made, padded, bias)
    torch.testing.assert_close(
        made(x.feats[None], sample_windows(x.geometry))[0], from_padded(dense, x).feats, atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 3e-2), (torch.float16, 5e-3)])
@pytest.mark.usefixtures("buckets")
def test_half_precision_is_near(make, dtype, tolerance):
    x, made = make(WIDTH), layer()
    context = shifted_windows(x.geometry, 3, 1)
    wanted = made(x.feats[None], context)
    found = made.to(dtype)(x.feats[None].to(dtype), context)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, atol=tolerance * float(wanted.detach().abs().max()), rtol=0)


def test_inside_a_transformer_block(make):
    x = make(WIDTH)
    torch.manual_seed(0)
    block = TransformerBlock(
        WIDTH,
        [
            SubLayer("attn", partial(WindowAttention, WIDTH, HEADS)),
            SubLayer("mlp", partial(FeedForward, WIDTH)),
        ],
    )
    context = shifted_windows(x.geometry, 3, 1)
    found = block(x.feats[None], contexts={"attn": context})
    assert found.shape == (1, *x.feats.shape)
    attended = x.feats + dense_attention(
        block.operations["attn"], torch.nn.functional.layer_norm(x.feats, (WIDTH,), eps=1e-6), context.index
    )
    wanted = attended + block.operations["mlp"](torch.nn.functional.layer_norm(attended, (WIDTH,), eps=1e-6))
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=1e-4)


def test_other_rows_than_the_windows_are_refused(make):
    x = make(WIDTH)
    context = shifted_windows(x.geometry, 3)
    with pytest.raises(InputError, match="need a stream"):
        layer()(x.feats[None, :-1], context)
