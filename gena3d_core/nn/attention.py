"""Scaled dot-product attention: the one place where a backend is chosen.

Shapes everywhere: queries (B, N, H, D), keys and values (B, L, H, D); result (B, N, H, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, MissingDependencyError

WIDTH_MULTIPLE = 8
"""Fused kernels want head widths that are multiples of this."""
PADDING_BIAS = -1e4
"""Bias that masks a key: its weight is exactly 0 in every dtype, and it fits into float16."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None, backend: str = "sdpa") -> Tensor:
    """softmax(q kᵀ / √D + key_bias) v.

    key_bias (B, L) is added to the logits of each key, the same for every query and head (GENA3D eq. 6, Amodal3R's
    mask weights). Fused kernels keep working and no (N, L) tensor is made; -inf is not allowed (`PADDING_BIAS` masks
    a key). backend is a name of `BACKENDS`. Raises `InputError` for shapes that do not fit or an unknown backend,
    `MissingDependencyError` for a backend that is not installed.
    """
    _check_shapes(q, k, v, key_bias)
    return _backend(backend)(q, k, v, key_bias)


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> None:
    if q.ndim != 4 or k.shape != v.shape or (k.shape[0], *k.shape[2:]) != (q.shape[0], *q.shape[2:]):
        raise InputError(f"attention: q {tuple(q.shape)} does not fit k {tuple(k.shape)} and v {tuple(v.shape)}")
    if key_bias is not None and key_bias.shape != k.shape[:2]:
        raise InputError(f"attention: key_bias must be {tuple(k.shape[:2])}, got {tuple(key_bias.shape)}")


def _reference(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    """The formula as written, in float32 (float64 stays), for tests."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = torch.einsum("bnhd,blhd->bhnl", q.to(dtype), k.to(dtype)) / math.sqrt(q.shape[-1])
    if key_bias is not None:
        logits = logits + key_bias.to(dtype)[:, None, None, :]
    return torch.einsum("bhnl,blhd->bnhd", logits.softmax(dim=-1), v.to(dtype)).to(q.dtype)


def _products(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    """Plain products in the dtype of q: on a CPU, the fused kernel's backward in half precision takes longer."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    logits = (q @ k.transpose(-1, -2)).to(torch.promote_types(q.dtype, torch.float32)) / math.sqrt(q.shape[-1])
    if key_bias is not None:
        logits = logits + key_bias.to(logits.dtype)[:, None, None, :]
    return (logits.softmax(dim=-1).to(v.dtype) @ v).transpose(1, 2)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    width, mask = q.shape[-1], None
    scale = 1.0 / math.sqrt(width)
    if key_bias is not None and _takes_broadcast_bias(q, key_bias):
        mask = key_bias.to(q.dtype)[:, None, None, :]
    elif key_bias is not None:
        q, k, v = _with_bias_channels(q, k, v, key_bias)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale).transpose(1, 2)[..., :width]


def _takes_broadcast_bias(q: Tensor, key_bias: Tensor) -> bool:
    # The CPU's fused kernel reads a broadcast bias at no cost, where more channels cost a tenth to a fifth. It has no
    # gradient for it, and in half precision the bias would keep three digits only.
    learns = torch.is_grad_enabled() and key_bias.requires_grad
    return q.device.type == "cpu" and q.dtype in (torch.float32, torch.float64) and not learns


def _xformers(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise _missing("xformers") from error
    width = q.shape[-1]
    if key_bias is not None:
        q, k, v = _with_bias_channels(q, k, v, key_bias)
    return memory_efficient_attention(q, k, v, scale=1.0 / math.sqrt(width))[..., :width]


def _flash(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise _missing("flash") from error
    if q.dtype not in (torch.float16, torch.bfloat16):
        raise InputError(f"the attention backend 'flash' computes in float16 or bfloat16 only, got {q.dtype}")
    width = q.shape[-1]
    if key_bias is not None:
        q, k, v = _with_bias_channels(q, k, v, key_bias)
    return flash_attn_func(q, k, v, softmax_scale=1.0 / math.sqrt(width))[..., :width]


def _with_bias_channels(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v with more channels: those of q kᵀ / √D (D as it was) add the bias, those of v are zero."""
    width = q.shape[-1]
    more = -(-(width + 2) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE - width
    # The channel of q is a power of two near √D, exact in every dtype; the one of k makes up for the rest.
    strength = 2.0 ** round(math.log2(width) / 2)
    wanted = key_bias.to(torch.promote_types(k.dtype, torch.float32)) * (math.sqrt(width) / strength)
    # A half-precision number holds the bias to three digits only; a second channel carries what it dropped.
    coarse = wanted.to(k.dtype)
    fine = (wanted - coarse.to(wanted.dtype)).to(k.dtype)
    bias_k = torch.stack([coarse, fine], dim=-1)[:, :, None, :].expand(*k.shape[:3], 2)
    bias_q = q.new_full((1, 1, 1, 2), strength).expand(*q.shape[:3], 2)
    pad = (0, more - 2)
    return torch.cat([q, F.pad(bias_q, pad)], dim=-1), torch.cat([k, F.pad(bias_k, pad)], dim=-1), F.pad(v, (0, more))


Backend = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
"""(q, k, v, key_bias) -> result."""

BACKENDS: dict[str, Backend] = {
    "sdpa": _sdpa,
    "xformers": _xformers,
    "flash": _flash,
    "products": _products,
    "reference": _reference,
}
_PACKAGES = {"xformers": ("xformers", "xformers"), "flash": ("flash_attn", "flash-attn")}
"""Backend -> module that it needs, its name for pip."""


def _backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise InputError(f"unknown attention backend '{name}', one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def _missing(backend: str) -> MissingDependencyError:
    module, pip_name = _PACKAGES[backend]
    return MissingDependencyError(module, f"the attention backend '{backend}'", pip_name)


def set_attention_backend(module: nn.Module, backend: str) -> None:
    """Let every attention layer inside `module` use `backend`, a name of `BACKENDS` whose package is installed."""
    _backend(backend)
    if backend in _PACKAGES and find_spec(_PACKAGES[backend][0]) is None:
        raise _missing(backend)
    for layer in module.modules():
        if hasattr(layer, "attention_backend"):
            setattr(layer, "attention_backend", backend)  # noqa: B010
