"""The rotation of queries and keys by positions in a plane."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.layers import SelfAttention
from gena3d_core.nn.norms import head_layer_norm
from gena3d_core.nn.rotary import planar_rotation

STEP = st.integers(0, 40)


def turned_by_hand(x: torch.Tensor, row: float, column: float, base: float) -> torch.Tensor:
    """One head's vector (D,), pair by pair as complex numbers."""
    D = len(x)
    pairs, out = D // 4, x.clone()
    for half, position in enumerate((row, column)):
        for i in range(pairs):
            a, b = half * D // 2 + i, half * D // 2 + i + pairs
            angle = torch.tensor(position * base ** (-2 * i / (D / 2)), dtype=torch.float64)
            z = torch.complex(x[a], x[b]) * torch.polar(torch.ones_like(angle), angle)
            out[a], out[b] = z.real, z.imag
    return out


@pytest.mark.parametrize(("width", "base"), [(4, 100.0), (12, 100.0), (16, 7.0)])
def test_equals_the_definition(width: int, base: float) -> None:
    positions = torch.tensor([[0, 0], [1, 2], [5, 3], [37, 1]])
    x = torch.randn(2, 4, 3, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = planar_rotation(positions, width, base)(x)
    for n, (row, column) in enumerate(positions.tolist()):
        for b, h in ((0, 0), (1, 2)):
            expected = turned_by_hand(x[b, n, h], row, column, base)
            torch.testing.assert_close(found[b, n, h], expected, atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(a=st.tuples(STEP, STEP), b=st.tuples(STEP, STEP), shift=st.tuples(STEP, STEP), seed=st.integers(0, 99))
def test_products_depend_on_differences_of_positions(
    a: tuple[int, int], b: tuple[int, int], shift: tuple[int, int], seed: int
) -> None:
    q, k = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    here, there = torch.tensor([a, b]), torch.tensor([a, b]) + torch.tensor(shift)
    products = [
        (planar_rotation(p[:1], 16)(q) * planar_rotation(p[1:], 16)(k)).sum() for p in (here.double(), there.double())
    ]
    torch.testing.assert_close(products[0], products[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(planar_rotation(here[:1], 16)(q).norm(), q.norm(), atol=1e-5, rtol=0)


def test_the_origin_stays_and_copies_repeat() -> None:
    x = torch.randn(1, 6, 2, 8)
    positions = torch.tensor([[0, 0], [1, 2], [3, 1]])
    rotation = planar_rotation(positions, 8)
    assert torch.equal(rotation(x[:, :3])[:, 0], x[:, 0])
    both = rotation.repeated(2)(x)
    assert torch.equal(both, torch.cat([rotation(x[:, :3]), rotation(x[:, 3:])], dim=1))
    assert rotation(x[:, :3].bfloat16()).dtype == torch.bfloat16


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        planar_rotation(torch.zeros(3, 2), 6)
    with pytest.raises(InputError, match="positions"):
        planar_rotation(torch.zeros(3, 3), 8)
    with pytest.raises(InputError, match="3 tokens"):
        planar_rotation(torch.zeros(3, 2), 8)(torch.zeros(1, 4, 2, 8))


def test_self_attention_norms_heads_then_turns_them() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(24, 3, qk_norm=head_layer_norm).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x, positions = torch.randn(2, 5, 24, dtype=torch.float64), torch.randint(0, 9, (5, 2))
    assert layer.q_norm is not None
    assert layer.k_norm is not None
    q, k, v = (part.reshape(2, 5, 3, 8) for part in layer.to_qkv(x).chunk(3, dim=-1))

    def normed(heads: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
        centred = heads - heads.mean(-1, keepdim=True)
        unit = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return unit * norm.weight + norm.bias

    rotation = planar_rotation(positions, 8)
    q, k = rotation(normed(q, layer.q_norm)), rotation(normed(k, layer.k_norm))
    weights = torch.einsum("bnhd,bmhd->bhnm", q, k).div(8**0.5).softmax(-1)
    expected = layer.to_out(torch.einsum("bhnm,bmhd->bnhd", weights, v).flatten(2))
    torch.testing.assert_close(layer(x, rotation), expected, atol=1e-10, rtol=0)
    assert not torch.allclose(layer(x), expected, atol=1e-3)
