"""Norms over the occupied cells of each sample."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...errors import InputError
from .tensor import SparseTensor


class SparseGroupNorm32(nn.Module):
    """Group norm of each sample over its cells and the channels of a group, in float32 whatever the input's dtype."""

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        if channels % groups:
            raise InputError(f"{channels} channels do not split into {groups} groups")
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        feats = x.feats.float()
        mean = self._group_mean(x, feats)
        centred = feats - x.per_row(mean)
        inverse = torch.rsqrt(self._group_mean(x, centred.square()) + self.eps)
        normed = torch.addcmul(self.bias.float(), centred, x.per_row(inverse * self.weight.float()))
        return x.replace(normed.to(x.feats.dtype))

    def _group_mean(self, x: SparseTensor, values: Tensor) -> Tensor:
        """(B, C): mean of each sample's group, repeated over the group's channels."""
        # Rows of a sample are contiguous: plain sums, whose order is fixed, instead of scattered additions.
        sums = torch.stack([sample.mean(dim=0) for sample in values.split(x.geometry.sizes)])
        means = sums.unflatten(1, (self.groups, -1)).mean(dim=2)
        return means.repeat_interleave(values.shape[1] // self.groups, dim=1)
