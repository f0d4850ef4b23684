"""The residual convolution block of the structured-latent flow."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...errors import InputError
from ..norms import BLOCK_EPS, LayerNorm32
from .convolution import SubmanifoldConv3d
from .copies import convolve_copies, upsampled_copies
from .resampling import downsample, upsample
from .tensor import SparseTensor

Resample = Literal["down", "up"]


class SparseResBlock3d(nn.Module):
    """Two 3-cube convolutions, the second one's norm modulated by an embedding, around a skip connection.

    resample  "down" packs the input by two first, "up" returns it to the finer cells that the call names
    """

    def __init__(
        self, channels: int, emb_channels: int, out_channels: int | None = None, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        out_channels = out_channels or channels
        self.resample = resample
        self.norm1 = LayerNorm32(channels, eps=BLOCK_EPS)
        self.norm2 = LayerNorm32(out_channels, eps=BLOCK_EPS, elementwise_affine=False)
        self.conv1 = SubmanifoldConv3d(channels, out_channels)
        self.conv2 = SubmanifoldConv3d(out_channels, out_channels)
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(emb_channels, 2 * out_channels))
        self.skip_connection = nn.Linear(channels, out_channels) if channels != out_channels else nn.Identity()

    def forward(self, x: SparseTensor, embedding: Tensor, like: SparseTensor | None = None) -> SparseTensor:
        """embedding (B, C_emb) of the samples; `like` has the cells to return to, for "up" only."""
        if (self.resample == "up") != (like is not None):
            raise InputError("a residual block needs `like`, the finer cells, exactly if it upsamples")
        if self.resample == "down":
            x = downsample(x)
        # Scale first: the transformer blocks' modulation has the opposite order.
        scale, shift = self.emb_layers(embedding).chunk(2, dim=-1)
        h = x.replace(nn.functional.silu(self.norm1(x.feats)))
        skip = x.replace(self.skip_connection(x.feats))
        if like is None:
            h = self.conv1(h)
        else:
            # What concerns one cell at a time is done before its copies are made, where there are fewer of them.
            skip = upsample(skip, like)
            h = convolve_copies(self.conv1, h, upsampled_copies(like))
        modulated = torch.addcmul(h.per_row(shift), self.norm2(h.feats), h.per_row(1 + scale))
        h = self.conv2(h.replace(nn.functional.silu(modulated)))
        return h.replace(h.feats + skip.feats)
