"""Embeddings of time and place, norms, half precision and initialisation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.nn.blocks import SubLayer, TransformerBlock
from gena3d_core.nn.embeddings import TimestepEmbedder, absolute_position_embedding, sinusoid_frequencies
from gena3d_core.nn.initialisation import initialise_transformer, zero
from gena3d_core.nn.layers import FeedForward, SelfAttention
from gena3d_core.nn.norms import ChannelLayerNorm32, HeadRMSNorm, LayerNorm32
from gena3d_core.nn.precision import cast_matrix_layers, matrix_dtype


def test_time_embedding_has_cosines_first() -> None:
    embedder = TimestepEmbedder(6)
    inside = []
    embedder.mlp[0].register_forward_pre_hook(lambda module, args: inside.append(args[0]))
    embedder(torch.tensor([0.0, 437.5]))
    for n in (0, 1, 64, 127):
        angle = 437.5 * math.exp(-math.log(10000.0) * n / 128)
        assert float(inside[0][1, n]) == pytest.approx(math.cos(angle), abs=5e-5)
        assert float(inside[0][1, 128 + n]) == pytest.approx(math.sin(angle), abs=5e-5)
    assert torch.equal(inside[0][0], torch.cat([torch.ones(128), torch.zeros(128)]))


@given(st.integers(6, 200), st.lists(st.tuples(*[st.integers(0, 63)] * 3), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_position_embedding_has_sines_first_axis_by_axis(width: int, cells: list[tuple[int, int, int]]) -> None:
    found = absolute_position_embedding(torch.tensor(cells), width)
    assert found.shape == (len(cells), width)
    F = width // 3 // 2
    for row, cell in zip(found, cells, strict=True):
        expected = []
        for c in cell:
            angles = [c * 10000.0 ** (-n / F) for n in range(F)]
            expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
        expected += [0.0] * (width - 6 * F)
        torch.testing.assert_close(row, torch.tensor(expected), atol=2e-5, rtol=0)


def test_frequencies_fall_from_one() -> None:
    found = sinusoid_frequencies(128)
    assert float(found[0]) == 1.0
    assert float(found[64]) == pytest.approx(1e-2, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("affine", [False, True])
def test_layer_norm_computes_in_float32(dtype: torch.dtype, affine: bool) -> None:
    torch.manual_seed(0)
    norm = LayerNorm32(32, eps=1e-6, elementwise_affine=affine)
    if affine:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    # Large enough that squares overflow in float16.
    x = (torch.randn(4, 5, 32) * 300 + 100).to(dtype)
    wide = x.double()
    expected = (wide - wide.mean(-1, keepdim=True)) / torch.sqrt(wide.var(-1, unbiased=False, keepdim=True) + 1e-6)
    if affine:
        expected = expected * norm.weight.double() + norm.bias.double()
    found = norm(x)
    assert found.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 5e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_channel_norm_is_a_layer_norm_of_each_voxel() -> None:
    norm = ChannelLayerNorm32(8)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(2, 8, 3, 4, 5)
    expected = torch.nn.functional.layer_norm(x[1, :, 2, 3, 4], (8,), norm.weight, norm.bias, 1e-5)
    torch.testing.assert_close(norm(x)[1, :, 2, 3, 4], expected)


def test_head_norm_gives_each_head_its_length() -> None:
    norm = HeadRMSNorm(3, 16)
    x = torch.randn(2, 5, 3, 16) * 100
    torch.testing.assert_close(norm(x).norm(dim=-1), torch.full((2, 5, 3), 4.0))
    torch.nn.init.normal_(norm.gamma)
    torch.testing.assert_close(norm(x)[1, 2, 1], x[1, 2, 1] / x[1, 2, 1].norm() * 4 * norm.gamma[1])
    assert bool((norm(torch.zeros(1, 1, 3, 16)) == 0).all())
    # The sum of squares, and even the length, overflow in float16.
    large = norm(torch.full((1, 1, 3, 16), 3e4, dtype=torch.float16))
    assert large.dtype == torch.float16
    torch.testing.assert_close(large[0, 0].float(), norm.gamma.detach(), atol=2e-3, rtol=2e-3)


def block() -> TransformerBlock:
    sublayers = [
        SubLayer("attn", lambda: SelfAttention(16, 2, qk_norm=HeadRMSNorm), modulation="adaLN"),
        SubLayer("mlp", lambda: FeedForward(16), affine_norm=True),
    ]
    return TransformerBlock(16, sublayers)


def test_half_precision_is_for_matrix_products_only() -> None:
    module = block()
    assert matrix_dtype(module) == torch.float32
    cast_matrix_layers(module, torch.bfloat16)
    assert matrix_dtype(module) == torch.bfloat16
    dtypes = {name: parameter.dtype for name, parameter in module.named_parameters()}
    assert {n for n, d in dtypes.items() if d == torch.float32} == {
        "norms.mlp.weight",
        "norms.mlp.bias",
        "operations.attn.q_norm.gamma",
        "operations.attn.k_norm.gamma",
    }
    out = module(torch.randn(1, 4, 16, dtype=torch.bfloat16), torch.randn(1, 16, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16


def test_precision_of_a_module_without_matrices() -> None:
    assert matrix_dtype(torch.nn.Identity()) == torch.float32


def test_initialisation() -> None:
    torch.manual_seed(0)
    module = torch.nn.ModuleDict({"block": block(), "time": TimestepEmbedder(64)})
    initialise_transformer(module)
    inner = module["block"]
    x = torch.randn(2, 4, 16)
    assert all(bool((p == 0).all()) for p in inner.modulations.parameters())
    bound = math.sqrt(6 / (16 + 48))
    weight = inner.operations["attn"].to_qkv.weight
    assert float(weight.abs().max()) <= bound
    assert float(weight.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert bool((inner.operations["attn"].to_qkv.bias == 0).all())
    assert float(module["time"].mlp[0].weight.std()) == pytest.approx(0.02, rel=0.05)
    assert bool((module["time"].mlp[2].bias == 0).all())
    # Zero modulation closes the gate: the attention adds nothing, the plain feed-forward still does.
    only_mlp = x + inner.operations["mlp"](inner.norms["mlp"](x))
    torch.testing.assert_close(inner(x, torch.randn(2, 16)), only_mlp)
    zero(inner.operations["mlp"])
    assert torch.equal(inner(x, torch.randn(2, 16)), x)
