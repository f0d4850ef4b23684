"""SceneGen's block against its formulas written out token by token in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gena3d_core.errors import InputError
from gena3d_core.models.flow_blocks import FlowBlockConfig
from gena3d_core.models.scene_blocks import SceneCrossAttention, SceneSelfAttention, scene_block
from gena3d_core.nn.blocks import TransformerBlock

C, H, LATENT, OWN, SHARED = 16, 2, 6, 5, 4
IMAGE = 3
"""Leading tokens of an asset's context that local attention sees."""


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    return x @ layer.weight.double().T + layer.bias.double()


def norm(x: Tensor, layer: nn.Module | None = None) -> Tensor:
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    return x if layer is None else x * layer.weight.double() + layer.bias.double()


def attend(operation: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (N, C), k and v (L, C): head by head."""
    results = []
    for head in range(H):
        qh, kh, vh = (a[:, head * C // H : (head + 1) * C // H] for a in (q, k, v))
        if operation.q_norm is not None:
            qh, kh = (
                a / a.norm(dim=-1, keepdim=True) * math.sqrt(C // H) * n.gamma[head].double()
                for a, n in ((qh, operation.q_norm), (kh, operation.k_norm))
            )
        results.append(torch.softmax(qh @ kh.T / math.sqrt(C // H), dim=-1) @ vh)
    return linear(operation.to_out, torch.cat(results, dim=-1))


def written_out(
    block: TransformerBlock, x: Tensor, t: Tensor, own: Tensor, shared: Tensor, assets: int, special: int
) -> Tensor:
    x, t, own, shared = x.double(), F.silu(t.double()), own.double(), shared.double()
    op = block.operations
    six = [linear(block.modulations["adaLN_modulation"][1], e).chunk(6) for e in t]
    three = [linear(block.modulations["adaLN_modulation_global"][1], e).chunk(3) for e in t]
    rows = list(x)
    for i, row in enumerate(rows):
        head, latent = row[:special], row[special:]
        shift, scale, gate = six[i][:3]
        q, k, v = linear(op["self_attn"].to_qkv, norm(latent) * (1 + scale) + shift).chunk(3, dim=-1)
        latent = latent + gate * attend(op["self_attn"], q, k, v)
        q = linear(op["cross_attn"].to_q, norm(latent, block.norms["cross_attn"]))
        k, v = linear(op["cross_attn"].to_kv, own[i, :IMAGE]).chunk(2, dim=-1)
        rows[i] = torch.cat([head, latent + attend(op["cross_attn"], q, k, v)])
    mixed = list(rows)
    for i in range(len(rows)):
        members = range(i // assets * assets, (i // assets + 1) * assets)
        h = [norm(rows[j], block.norms["global_attn"]) * (1 + three[j][1]) + three[j][0] for j in members]
        _, k, v = linear(op["global_attn"].to_qkv, torch.cat(h)).chunk(3, dim=-1)
        q = linear(op["global_attn"].to_qkv, h[i % assets]).chunk(3, dim=-1)[0]
        mixed[i] = rows[i] + three[i][2] * attend(op["global_attn"], q, k, v)
    for i, row in enumerate(mixed):
        q = linear(op["global_cross_attn"].to_q, norm(row))
        k, v = linear(op["global_cross_attn"].to_kv, torch.cat([own[i], shared[i // assets]])).chunk(2, dim=-1)
        row = row + attend(op["global_cross_attn"], q, k, v)
        head, latent = row[:special], row[special:]
        shift, scale, gate = six[i][3:]
        hidden = F.gelu(linear(op["mlp"].mlp[0], norm(latent) * (1 + scale) + shift), approximate="tanh")
        mixed[i] = torch.cat([head, latent + gate * linear(op["mlp"].mlp[2], hidden)])
    return torch.stack(mixed)


@pytest.mark.parametrize("self_norm", [False, True])
@pytest.mark.parametrize("cross_norm", [False, True])
@pytest.mark.parametrize(("scenes", "assets", "special"), [(1, 1, 1), (1, 3, 5), (2, 2, 3)])
def test_a_block_is_its_formulas(self_norm, cross_norm, scenes, assets, special):
    torch.manual_seed(scenes * 10 + assets)
    config = FlowBlockConfig(C, C, H, mlp_ratio=3.0, qk_rms_norm=self_norm, qk_rms_norm_cross=cross_norm)
    block = scene_block(config, special)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        rows = scenes * assets
        x, t = torch.randn(rows, special + LATENT, C), torch.randn(rows, C)
        own, shared = torch.randn(rows, OWN, C), torch.randn(scenes, SHARED, C)
        contexts = {
            "cross_attn": block.operations["cross_attn"].project(own[:, :IMAGE]),
            "global_attn": assets,
            "global_cross_attn": block.operations["global_cross_attn"].project(own, shared=shared),
        }
        wanted = written_out(block, x, t, own, shared, assets, special)
        torch.testing.assert_close(block(x, t, contexts).double(), wanted, atol=2e-5, rtol=2e-5)


def test_scene_attention_must_know_the_scenes():
    with pytest.raises(InputError, match="number of assets"):
        SceneSelfAttention(C, H)(torch.randn(2, 3, C))


def test_shared_tokens_cannot_be_biased():
    with pytest.raises(InputError, match="key_bias"):
        SceneCrossAttention(C, C, H).project(
            torch.randn(2, OWN, C), shared=torch.randn(1, SHARED, C), key_bias=torch.zeros(2, OWN)
        )


def test_scene_attention_keeps_no_quadratic_buffer():
    """What autograd keeps of it grows with the tokens of a scene, not with their square."""
    attention = SceneSelfAttention(24, 3)

    def kept(assets: int) -> int:
        sizes: list[int] = []
        x = torch.randn(assets, 64, 24, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(lambda a: sizes.append(a.numel()) or a, lambda a: a):
            attention(x, assets)
        return sum(sizes)

    assert kept(16) < 20 * kept(1)
    attention.attention_backend = "reference"
    assert kept(16) > 100 * kept(1)
