"""Attention inside windows of a sparse tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ..attention import attention
from ..layers import SelfAttention
from .windows import Windows


class WindowAttention(SelfAttention):
    """Self-attention inside the windows of its context; the stream is the flat one, (1, N, C), of a sparse tensor.

    Use as the operation of a residual sub-layer; contexts are made by `shifted_windows`, `serialised_windows` and
    `sample_windows` from the tensor's geometry.
    """

    def forward(self, x: Tensor, context: Windows) -> Tensor:  # type: ignore[override]
        if x.shape[:2] != (1, len(context.index)):
            raise InputError(f"windows of {len(context.index)} rows need a stream (1, N, C), got {tuple(x.shape)}")
        q, k, v = (part[0] for part in self.project(x))
        found = []
        for bucket in context.buckets:
            parts = (part.index_select(0, bucket.rows.flatten()).unflatten(0, bucket.rows.shape) for part in (q, k, v))
            out = attention(*parts, key_bias=bucket.key_bias, backend=self.attention_backend)
            found.append(out.flatten(-2).flatten(0, 1))
        return self.to_out(torch.cat(found).index_select(0, context.place))[None]
