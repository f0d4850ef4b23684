"""Self-attention, cross-attention and feed-forward against their formulas."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gena3d_core.errors import InputError
from gena3d_core.nn.layers import AlignedContext, CrossAttention, FeedForward, GatedCrossAttention, SelfAttention
from gena3d_core.nn.norms import HeadRMSNorm
from gena3d_core.nn.packing import pack

C, H, D, L = 12, 3, 4, 10


def randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    return module.double().eval()


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """q (N, D), k and v (L, D) of one head."""
    return torch.softmax(q @ k.T / math.sqrt(q.shape[-1]) + bias, dim=-1) @ v


def head_norm(x: Tensor, norm: nn.Module | None, head: int) -> Tensor:
    return x if norm is None else F.normalize(x, dim=-1) * math.sqrt(x.shape[-1]) * norm.gamma[head]


@pytest.mark.parametrize("qk_norm", [None, HeadRMSNorm])
@pytest.mark.parametrize("padded", [False, True])
def test_self_attention(qk_norm: type | None, padded: bool) -> None:
    layer = randomised(SelfAttention(C, H, qk_norm=qk_norm))
    x = torch.randn(2, 5, C, dtype=torch.float64)
    bias = torch.tensor([[0.0] * 5, [0.0, 0, 0, -1e4, -1e4]], dtype=torch.float64) if padded else None
    expected = []
    for b in range(2):
        heads = []
        for h in range(H):
            rows = [slice(part * C + h * D, part * C + (h + 1) * D) for part in range(3)]
            q, k, v = (x[b] @ layer.to_qkv.weight[r].T + layer.to_qkv.bias[r] for r in rows)
            q, k = head_norm(q, layer.q_norm, h), head_norm(k, layer.k_norm, h)
            heads.append(softmax_attention(q, k, v, 0.0 if bias is None else bias[b]))
        expected.append(layer.to_out(torch.cat(heads, -1)))
    torch.testing.assert_close(layer(x, bias), torch.stack(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("qk_norm", [None, HeadRMSNorm])
@pytest.mark.parametrize("kind", [CrossAttention, GatedCrossAttention])
def test_cross_attention(kind: type[CrossAttention], qk_norm: type | None) -> None:
    layer = randomised(kind(C, L, H, qk_norm=qk_norm))
    x, context = torch.randn(2, 5, C, dtype=torch.float64), torch.randn(2, 7, L, dtype=torch.float64)
    bias = torch.randn(2, 7, dtype=torch.float64)
    total = bias
    if isinstance(layer, GatedCrossAttention):
        assert layer.gate[0].out_features == L // 2
        total = bias + torch.log(torch.sigmoid(layer.gate(context))[..., 0] + 1e-6)
    expected = []
    for b in range(2):
        q, kv, heads = layer.to_q(x[b]), layer.to_kv(context[b]), []
        for h in range(H):
            part = slice(h * D, (h + 1) * D)
            q_h, k_h = head_norm(q[:, part], layer.q_norm, h), head_norm(kv[:, :C][:, part], layer.k_norm, h)
            heads.append(softmax_attention(q_h, k_h, kv[:, C:][:, part], total[b]))
        expected.append(layer.to_out(torch.cat(heads, -1)))
    found = layer(x, layer.project(context, key_bias=bias))
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("kind", [CrossAttention, GatedCrossAttention])
def test_an_all_zero_context_gives_a_constant(kind: type[CrossAttention]) -> None:
    layer = randomised(kind(C, L, H, qk_norm=HeadRMSNorm))
    x = torch.randn(2, 5, C, dtype=torch.float64)
    zeros = layer.project(torch.zeros(2, 7, L, dtype=torch.float64), key_bias=torch.randn(2, 7, dtype=torch.float64))
    constant = layer.constant_output()
    torch.testing.assert_close(layer(x, zeros), constant.expand_as(x), atol=1e-12, rtol=0)
    assert torch.equal(layer(x, constant), constant.expand_as(x))
    both = layer(x, layer.project(torch.randn(1, 7, L)).changed(constant=constant))
    torch.testing.assert_close(both[1], constant.expand(5, C), atol=0, rtol=0)


def test_packed_entries_are_averaged_before_the_norm() -> None:
    layer = randomised(CrossAttention(C, L, H, fusion_norm=True))
    x, context = torch.randn(2, 5, C, dtype=torch.float64), torch.randn(3, 7, L, dtype=torch.float64)
    owner, weight = torch.tensor([1, 0, 1]), torch.tensor([0.3, 1.0, 0.7], dtype=torch.float64)
    found = layer(x, layer.project(context, packing=pack(owner, 2), weight=weight))
    plain = randomised(CrossAttention(C, L, H))
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if "fusion" not in k})
    single = [plain(x[o : o + 1], plain.project(context[p : p + 1]))[0] for p, o in enumerate(owner.tolist())]
    fused = torch.stack([single[1], 0.3 * single[0] + 0.7 * single[2]])
    torch.testing.assert_close(found, layer.fusion_norm(fused), atol=1e-12, rtol=0)


def test_packing_survives_a_change_of_other_fields() -> None:
    layer = CrossAttention(C, L, H)
    packing = pack(torch.tensor([1, 0, 1]), 2)
    context = layer.project(torch.randn(3, 7, L), packing=packing, weight=torch.tensor([0.3, 1.0, 0.7]))
    assert context.packing is packing
    assert context.changed(copies=2).packing is packing
    moved = context.changed(owner=torch.tensor([0, 1, 0]))
    assert moved.packing is not None
    assert moved.packing is not packing
    assert torch.equal(moved.packing.owner, torch.tensor([0, 1, 0]))


def test_aligned_context_gives_each_place_its_own_token() -> None:
    layer = randomised(AlignedContext(C, L))
    context = torch.randn(2, 5, L, dtype=torch.float64)
    x = torch.randn(8, 5, C, dtype=torch.float64)
    constant = layer.constant_output()
    served = layer.project(context).changed(copies=3)
    found = layer(x, served.changed(constant=constant))
    expected = context @ layer.to_out.weight.T + layer.to_out.bias
    torch.testing.assert_close(found[:6], expected.repeat_interleave(3, 0), atol=1e-12, rtol=0)
    assert torch.equal(found[6:], constant.expand(2, 5, C))
    assert torch.equal(layer(x, constant), constant.expand_as(x))
    zeros = layer.project(torch.zeros_like(context))
    torch.testing.assert_close(layer(x[:2], zeros), constant.expand(2, 5, C), atol=1e-12, rtol=0)
    for wrong in (x, x[:6, :4]):
        with pytest.raises(InputError, match="serves 6 rows of"):
            layer(wrong, served)
    with pytest.raises(InputError, match="must be projected"):
        layer(x, None)


def test_weights_keep_their_precision_in_half() -> None:
    """Twenty shares of 1/20, which bfloat16 holds to three digits: their sum must still be 1."""
    layer = randomised(CrossAttention(C, L, H)).to(torch.bfloat16)
    context, x = torch.randn(1, 7, L).expand(20, 7, L), torch.randn(1, 5, C).to(torch.bfloat16)
    weight = torch.rand(20) + 0.1
    packing = pack(torch.zeros(20, dtype=torch.int64), 1)
    packed = layer(x, layer.project(context, packing=packing, weight=weight / weight.sum()))
    single = layer(x, layer.project(context[:1]))
    torch.testing.assert_close(packed, single, atol=float(single.abs().max()) * 2**-7, rtol=0)


def test_gradients_in_float64() -> None:
    layer = randomised(GatedCrossAttention(4, 4, 2, qk_norm=HeadRMSNorm))
    x = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    context = torch.randn(3, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.tensor([0.4, 1.0, 0.6], dtype=torch.float64, requires_grad=True)
    packing = pack(torch.tensor([0, 1, 0]), 2)
    assert torch.autograd.gradcheck(
        lambda x, c, w: layer(x, layer.project(c, packing=packing, weight=w)), [x, context, weight]
    )


@pytest.mark.parametrize(("exact", "approximate"), [(True, "none"), (False, "tanh")])
def test_feed_forward(exact: bool, approximate: str) -> None:
    layer = randomised(FeedForward(C, 2.5, exact_gelu=exact))
    assert layer.mlp[0].out_features == 30
    x = torch.randn(2, 3, C, dtype=torch.float64)
    hidden = F.gelu(F.linear(x, layer.mlp[0].weight, layer.mlp[0].bias), approximate=approximate)
    torch.testing.assert_close(layer(x), F.linear(hidden, layer.mlp[2].weight, layer.mlp[2].bias))


def test_contexts_of_the_wrong_shape() -> None:
    layer = CrossAttention(C, L, H)
    for shape in [(2, 7, L + 1), (7, L), (1, 2, 7, L)]:
        with pytest.raises(InputError, match=r"must be \(P, L, 10\)"):
            layer.project(torch.zeros(shape))
    with pytest.raises(InputError, match="3 entries, but 2 owners"):
        layer.project(torch.zeros(3, 7, L), packing=pack(torch.tensor([0, 0]), 1), weight=torch.ones(2))
