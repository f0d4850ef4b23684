"""Normalisation layers; all compute in float32 (float64 stays) and return the input's dtype."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_EPS = 1e-6
"""Epsilon of layer norms inside transformer blocks; norms before output layers use torch's 1e-5."""
HEAD_EPS = 1e-5
"""Epsilon of layer norms of queries and keys."""


class LayerNorm32(nn.LayerNorm):
    """Layer norm over the last axis, computed in float32 whatever the dtype of input and parameters."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None:
            # Kernels accumulate in float32 whatever the input: only parameters of another dtype need the detour.
            return F.layer_norm(x, self.normalized_shape, None, None, self.eps)
        dtype = torch.promote_types(x.dtype, torch.float32)
        weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        return F.layer_norm(x.to(dtype), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class ChannelLayerNorm32(LayerNorm32):
    """Layer norm over the channel axis of (B, C, ...) grids."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class HeadRMSNorm(nn.Module):
    """Each head's vector scaled to length sqrt(D) and by a learned gain: x (..., H, D) -> same shape."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(heads, head_width))

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        unit = F.normalize(x.to(dtype), dim=-1)
        return (unit * (self.gamma.to(dtype) * math.sqrt(x.shape[-1]))).to(x.dtype)


def head_layer_norm(heads: int, head_width: int) -> LayerNorm32:
    """Layer norm of each head's vector with parameters that all heads share: x (..., H, D) -> same shape."""
    return LayerNorm32(head_width, eps=HEAD_EPS)
