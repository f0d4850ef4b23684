"""The transformer block against its formula, sub-layer by sub-layer."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gena3d_core.nn.blocks import SubLayer, TransformerBlock
from gena3d_core.nn.layers import CrossAttention, FeedForward, SelfAttention

C = 12


def randomise(module: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.4
    return module.double()


class Recorder(nn.Module):
    """A linear map that keeps what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(C, C)
        self.seen: list[tuple[Tensor, object]] = []

    def forward(self, x: Tensor, context: object) -> Tensor:
        self.seen.append((x, context))
        return self.linear(x)


def norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + eps)


def test_modulated_block_is_shift_scale_gate_of_the_users_in_turn() -> None:
    sublayers = [
        SubLayer("a", Recorder, modulation="adaLN"),
        SubLayer("b", Recorder, affine_norm=True),
        SubLayer("c", Recorder, modulation="adaLN"),
    ]
    block = randomise(TransformerBlock(C, sublayers))
    assert isinstance(block, TransformerBlock)
    x, embedding = torch.randn(2, 5, C, dtype=torch.float64), torch.randn(2, C, dtype=torch.float64)
    m = F.linear(F.silu(embedding), block.modulations["adaLN"][1].weight, block.modulations["adaLN"][1].bias)
    shift_a, scale_a, gate_a, shift_c, scale_c, gate_c = (part[:, None] for part in m.chunk(6, dim=-1))
    op = {name: block.operations[name].linear for name in "abc"}
    h = x + gate_a * op["a"](norm(x) * (1 + scale_a) + shift_a)
    h = h + op["b"](norm(h) * block.norms["b"].weight + block.norms["b"].bias)
    h = h + gate_c * op["c"](norm(h) * (1 + scale_c) + shift_c)
    found = block(x, embedding, {"b": "what b reads"})
    torch.testing.assert_close(found, h, atol=1e-12, rtol=0)
    assert [block.operations[name].seen[0][1] for name in "abc"] == [None, "what b reads", None]


def test_shared_modulation_is_handed_over() -> None:
    sublayers = [SubLayer("a", Recorder, modulation="adaLN")]
    own, shared = TransformerBlock(C, sublayers), TransformerBlock(C, sublayers, own_modulation=False)
    randomise(own)
    shared.double().load_state_dict({k: v for k, v in own.state_dict().items() if "modulation" not in k})
    x, embedding = torch.randn(2, 5, C, dtype=torch.float64), torch.randn(2, C, dtype=torch.float64)
    vector = own.modulations["adaLN"](embedding)
    torch.testing.assert_close(shared(x, vector), own(x, embedding), atol=0, rtol=0)


def test_two_modulations_do_not_mix() -> None:
    sublayers = [SubLayer("a", Recorder, modulation="first"), SubLayer("b", Recorder, modulation="second")]
    block = randomise(TransformerBlock(C, sublayers))
    x, embedding = torch.randn(1, 3, C, dtype=torch.float64), torch.randn(1, C, dtype=torch.float64)
    with torch.no_grad():
        block.modulations["second"][1].weight.zero_()
        block.modulations["second"][1].bias.zero_()
    shift, scale, gate = (part[:, None] for part in block.modulations["first"](embedding).chunk(3, dim=-1))
    expected = x + gate * block.operations["a"].linear(norm(x) * (1 + scale) + shift)
    torch.testing.assert_close(block(x, embedding), expected, atol=1e-12, rtol=0)


def test_gain_multiplies_what_the_operation_adds() -> None:
    block = randomise(TransformerBlock(C, [SubLayer("a", Recorder, affine_norm=True, gain=True, norm_eps=1e-3)]))
    x = torch.randn(2, 3, C, dtype=torch.float64)
    normed = norm(x, 1e-3) * block.norms["a"].weight + block.norms["a"].bias
    torch.testing.assert_close(block(x), x + block.gains["a"] * block.operations["a"].linear(normed))


def test_skipped_tokens_are_neither_read_nor_written() -> None:
    sublayers = [SubLayer("local", lambda: SelfAttention(C, 2), skip_tokens=2), SubLayer("mlp", lambda: FeedForward(C))]
    block = randomise(TransformerBlock(C, sublayers))
    x = torch.randn(2, 7, C, dtype=torch.float64)
    other = x.clone()
    other[:, :2] += 1.0
    torch.testing.assert_close(block(x)[:, 2:], block(other)[:, 2:], atol=0, rtol=0)
    expected = x[:, :2] + block.operations["mlp"](norm(x[:, :2]))
    torch.testing.assert_close(block(x)[:, :2], expected, atol=1e-12, rtol=0)


def test_cross_attention_without_its_context_is_an_error() -> None:
    block = TransformerBlock(C, [SubLayer("cross", lambda: CrossAttention(C, 6, 2))])
    with pytest.raises(ValueError, match="needs a projected context"):
        block(torch.randn(1, 3, C))


def test_gradients_in_float64() -> None:
    sublayers = [
        SubLayer("attn", lambda: SelfAttention(C, 2), modulation="adaLN"),
        SubLayer("mlp", lambda: FeedForward(C, 2.0), affine_norm=True, gain=True),
    ]
    block = randomise(TransformerBlock(C, sublayers))
    x = torch.randn(1, 3, C, dtype=torch.float64, requires_grad=True)
    embedding = torch.randn(1, C, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, [x, embedding])
