"""Every attention backend against the formula written out."""

import math
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from gena3d_core.errors import InputError, MissingDependencyError
from gena3d_core.nn import attention as module
from gena3d_core.nn.attention import BACKENDS, PADDING_BIAS, attention, set_attention_backend
from gena3d_core.nn.layers import CrossAttention, SelfAttention

TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}
"""Largest difference from the float64 formula for values of spread 1: rounding of the dtype, times a few."""
PACKAGES = {"xformers": "xformers", "flash": "flash_attn"}
INSTALLED = [name for name in BACKENDS if name not in PACKAGES or find_spec(PACKAGES[name])]


def inputs(
    batch: int = 2, queries: int = 7, keys: int = 11, heads: int = 3, width: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, queries, heads, width), (batch, keys, heads, width), (batch, keys, heads, width)]
    q, k, v = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q, k, v


def biases(batch: int = 2, keys: int = 11) -> dict[str, Tensor]:
    """Biases of the kinds that occur: Amodal3R's log weights, the gate's, padding."""
    generator = torch.Generator().manual_seed(1)
    ratio = torch.rand(batch, keys, generator=generator, dtype=torch.float64)
    ratio[:, ::3] = 0
    padding = torch.zeros(batch, keys, dtype=torch.float64)
    padding[0, keys // 2 :] = PADDING_BIAS
    return {
        "log weights": torch.log(ratio + 1e-6),
        "all hidden": torch.full((batch, keys), math.log(1e-6), dtype=torch.float64),
        "padding": padding,
        "padding and weights": torch.log(ratio + 1e-6) + padding,
    }


def written_out(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Loops over samples, heads and queries."""
    out = torch.empty(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            for n in range(q.shape[1]):
                logits = k[b, :, h] @ q[b, n, h] / math.sqrt(q.shape[-1])
                weights = torch.exp(
                    logits - logits.max() if bias is None else logits + bias[b] - (logits + bias[b]).max()
                )
                out[b, n, h] = weights @ v[b, :, h] / weights.sum()
    return out


@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", [None, "log weights", "all hidden", "padding", "padding and weights"])
def test_equals_the_formula(backend: str, dtype: torch.dtype, kind: str | None) -> None:
    if backend in PACKAGES:
        pytest.skip("this backend needs an accelerator")
    q, k, v = (x.to(dtype) for x in inputs())
    bias = None if kind is None else biases()[kind]
    ours = attention(q, k, v, key_bias=None if bias is None else bias.float(), backend=backend)
    assert ours.dtype == dtype
    expected = written_out(q.double(), k.double(), v.double(), None if bias is None else bias.float().double())
    torch.testing.assert_close(ours.double(), expected, atol=TOLERANCES[dtype], rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [6, 8, 32, 64, 128])
@pytest.mark.parametrize("kind", ["log weights", "padding and weights"])
def test_bias_channels_add_the_bias(dtype: torch.dtype, width: int, kind: str) -> None:
    """What fused kernels without a bias are given, whatever the head width and dtype."""
    q, k, v = (x.to(dtype) for x in inputs(width=width))
    bias = biases()[kind]
    wide_q, wide_k, wide_v = module._with_bias_channels(q, k, v, bias)
    assert wide_q.shape[-1] == wide_k.shape[-1] == wide_v.shape[-1]
    assert wide_q.shape[-1] % 8 == 0
    plain = torch.einsum("bnhd,blhd->bhnl", q.double(), k.double())
    wide = torch.einsum("bnhd,blhd->bhnl", wide_q.double(), wide_k.double())
    added = (wide - plain) / math.sqrt(width)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2e-5, torch.float16: 1e-6}[dtype]
    torch.testing.assert_close(added, bias[:, None, None, :].expand_as(added), atol=tolerance, rtol=tolerance)


def test_bias_that_learns_takes_the_channels_and_gets_its_gradient() -> None:
    q, k, v = inputs(batch=1, queries=3, keys=4, heads=2, width=4)
    bias = torch.randn(1, 4, dtype=torch.float64)
    tensors = [x.requires_grad_() for x in (q, k, v, bias)]
    assert torch.autograd.gradcheck(lambda q, k, v, b: attention(q, k, v, key_bias=b), tensors)


def test_bias_that_learns_in_half_precision() -> None:
    q, k, v = (x.to(torch.bfloat16) for x in inputs())
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (biases()["log weights"].float().requires_grad_() for _ in range(2))
        attention(q.to(dtype), k.to(dtype), v.to(dtype), key_bias=a).float().square().sum().backward()
        attention(q.float(), k.float(), v.float(), key_bias=b, backend="reference").square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, atol=0.06 if dtype == torch.bfloat16 else 1e-5, rtol=0.02)


def test_padding_counts_for_nothing() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        q, k, v = (x.to(dtype) for x in inputs())
        bias = torch.zeros(2, 11)
        bias[:, 6:] = PADDING_BIAS
        v[:, 6:] = 1e4
        torch.testing.assert_close(
            attention(q, k, v, key_bias=bias), attention(q, k[:, :6], v[:, :6]), atol=0.02, rtol=0
        )


def test_strided_inputs_and_one_head() -> None:
    q, k, v = torch.randn(2, 9, 3, 1, 8).unbind(2)
    expected = attention(q.contiguous(), k.contiguous(), v.contiguous(), backend="reference")
    torch.testing.assert_close(attention(q, k, v), expected, atol=1e-6, rtol=1e-5)


def test_shapes_that_do_not_fit() -> None:
    q, k, v = inputs()
    for bad in [(q[:1], k, v), (q, k, v[:, :5]), (q[..., :8], k, v), (q[:, :, :2], k, v), (q[0], k, v)]:
        with pytest.raises(InputError, match="does not fit"):
            attention(*bad)
    with pytest.raises(InputError, match=r"key_bias must be \(2, 11\)"):
        attention(q, k, v, key_bias=torch.zeros(2, 7))


def test_unknown_backend() -> None:
    with pytest.raises(InputError, match="unknown attention backend 'tensor cores', one of sdpa"):
        attention(*inputs(), backend="tensor cores")
    with pytest.raises(InputError, match="unknown"):
        set_attention_backend(SelfAttention(8, 2), "fast")


@pytest.mark.parametrize(
    ("backend", "package", "line"),
    [
        ("xformers", "xformers", "pip install xformers"),
        ("flash", "flash_attn", "pip install flash-attn"),
    ],
)
def test_missing_package_names_the_pip_line(
    backend: str, package: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    layer = SelfAttention(8, 2)
    with pytest.raises(MissingDependencyError, match=line):
        attention(*inputs(), backend=backend)
    with pytest.raises(MissingDependencyError, match=line):
        set_attention_backend(layer, backend)
    assert layer.attention_backend == "sdpa"


def test_backend_of_every_layer_is_set() -> None:
    layers = torch.nn.ModuleList([SelfAttention(8, 2), torch.nn.Sequential(CrossAttention(8, 6, 2))])
    x = torch.randn(2, 5, 8)
    before = layers[0](x)
    set_attention_backend(layers, "reference")
    assert layers[0].attention_backend == layers[1][0].attention_backend == "reference"
    torch.testing.assert_close(layers[0](x), before, atol=1e-6, rtol=1e-5)


class FakeKernel:
    """Stands for a fused kernel: takes (B, N, H, D) and a scale, no bias; remembers the widths that it was given."""

    def __init__(self) -> None:
        self.widths: list[int] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0, softmax_scale: float = 1.0) -> Tensor:
        self.widths.append(q.shape[-1])
        logits = torch.einsum("bnhd,blhd->bhnl", q.double(), k.double()) * min(scale, softmax_scale)
        return torch.einsum("bhnl,blhd->bnhd", logits.softmax(-1), v.double()).to(q.dtype)


@pytest.mark.parametrize("backend", ["xformers", "flash"])
def test_optional_backends_get_channels_and_the_right_scale(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels themselves need an accelerator; what they are handed does not."""
    kernel = FakeKernel()
    if backend == "xformers":
        ops = type(sys)("xformers.ops")
        ops.memory_efficient_attention = kernel
        monkeypatch.setitem(sys.modules, "xformers", type(sys)("xformers"))
        monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    else:
        package = type(sys)("flash_attn")
        package.flash_attn_func = kernel
        monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = (x.to(torch.bfloat16) for x in inputs())
    bias = biases()["log weights"].float()
    for given in (None, bias):
        expected = attention(q, k, v, key_bias=given, backend="reference")
        ours = attention(q, k, v, key_bias=given, backend=backend)
        torch.testing.assert_close(ours, expected, atol=1e-2, rtol=0)
    assert kernel.widths == [16, 24]


def test_flash_says_that_it_needs_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    package = type(sys)("flash_attn")
    package.flash_attn_func = FakeKernel()
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    with pytest.raises(InputError, match="float16 or bfloat16"):
        attention(*inputs(), backend="flash")
