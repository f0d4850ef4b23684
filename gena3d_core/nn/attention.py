"""Scaled dot-product attention: the one place where a backend is chosen.

Shapes everywhere: queries (B, N, H, D), keys and values (B, L, H, D); result (B, N, H, D).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, MissingDependencyError

BIAS_CHANNELS = 8
"""Channels appended to carry a key bias: fused kernels want head widths that are multiples of 8."""


def attention(q: Tensor, k: Tensor, v: Tensor, *, key_bias: Tensor | None = None, backend: str = "sdpa") -> Tensor:
    """softmax(q kᵀ / √D + key_bias) v.

    key_bias (B, L) is added to the logits of each key, the same for every query and head (GENA3D eq. 6, Amodal3R's
    mask weights). It travels inside extra channels of q and k, so that fused kernels keep working and no
    (N, L) tensor is made; -inf is not allowed (use a large negative number, such as -1e4, to mask a key).
    backend is a name of `BACKENDS`. Raises `InputError` for shapes that do not fit or an unknown backend.
    """
    _check_shapes(q, k, v, key_bias)
    try:
        function = BACKENDS[backend]
    except KeyError:
        raise InputError(f"unknown attention backend '{backend}', one of {', '.join(BACKENDS)}") from None
    if backend == "reference":
        return _reference(q, k, v, key_bias)
    scale = 1.0 / math.sqrt(q.shape[-1])
    if key_bias is None:
        return function(q, k, v, scale)
    q, k = _append_key_bias(q, k, key_bias, scale)
    return function(q, k, F.pad(v, (0, BIAS_CHANNELS)), scale)[..., : v.shape[-1]]


def _check_shapes(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> None:
    batch, _, heads, width = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[2:] != (heads, width):
        raise InputError(f"attention: q {tuple(q.shape)} does not fit k {tuple(k.shape)} and v {tuple(v.shape)}")
    if key_bias is not None and key_bias.shape != k.shape[:2]:
        raise InputError(f"attention: key_bias must be {tuple(k.shape[:2])}, got {tuple(key_bias.shape)}")


def _append_key_bias(q: Tensor, k: Tensor, key_bias: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """q and k with `BIAS_CHANNELS` more channels whose product, times `scale`, is the bias."""
    # A half-precision number holds the bias to three digits only; a second channel carries what it dropped.
    wanted = key_bias.float()
    coarse = wanted.to(k.dtype)
    fine = (wanted - coarse.float()).to(k.dtype)
    bias_k = torch.stack([coarse, fine], dim=-1)[:, :, None, :].expand(*k.shape[:3], 2)
    ones = q.new_full((*q.shape[:3], 2), 1.0 / scale)
    pad = (0, BIAS_CHANNELS - 2)
    return torch.cat([q, F.pad(ones, pad)], dim=-1), torch.cat([k, F.pad(bias_k, pad)], dim=-1)


def _reference(q: Tensor, k: Tensor, v: Tensor, key_bias: Tensor | None) -> Tensor:
    """The formula as written, in float32 (float64 stays), for tests."""
    dtype = torch.promote_types(q.dtype, torch.float32)
    logits = torch.einsum("bnhd,blhd->bhnl", q.to(dtype), k.to(dtype)) / math.sqrt(q.shape[-1])
    if key_bias is not None:
        logits = logits + key_bias.to(dtype)[:, None, None, :]
    return torch.einsum("bhnl,blhd->bnhd", logits.softmax(dim=-1), v.to(dtype)).to(q.dtype)


def _sdpa(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), scale=scale)
    return out.transpose(1, 2)


def _xformers(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    try:
        from xformers.ops import memory_efficient_attention
    except ImportError as error:
        raise MissingDependencyError("xformers", "the attention backend 'xformers'") from error
    return memory_efficient_attention(q, k, v, scale=scale)


def _flash(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise MissingDependencyError("flash_attn", "the attention backend 'flash'", "flash-attn") from error
    return flash_attn_func(q, k, v, softmax_scale=scale)


BACKENDS: dict[str, Callable[..., Tensor]] = {
    "sdpa": _sdpa,
    "xformers": _xformers,
    "flash": _flash,
    "reference": _reference,
}


def set_attention_backend(module: nn.Module, backend: str) -> None:
    """Let every attention layer inside `module` use `backend`, a name of `BACKENDS`."""
    if backend not in BACKENDS:
        raise InputError(f"unknown attention backend '{backend}', one of {', '.join(BACKENDS)}")
    for layer in module.modules():
        if hasattr(layer, "attention_backend"):
            setattr(layer, "attention_backend", backend)  # noqa: B010
