"""Embeddings of flow time and of grid positions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid_frequencies(count: int, device: torch.device | None = None) -> Tensor:
    """(count,) float32 frequencies 10000^(-n / count)."""
    return torch.exp(-math.log(10000.0) * torch.arange(count, dtype=torch.float32, device=device) / count)


class TimestepEmbedder(nn.Module):
    """Flow time to a vector: 256 sinusoids (cosines first), then a two-layer perceptron.

    t (B,), as the samplers give it (1000 times the flow time) -> (B, width).
    """

    SINUSOIDS = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.SINUSOIDS, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        angles = t.float()[:, None] * sinusoid_frequencies(self.SINUSOIDS // 2, t.device)
        return self.mlp(torch.cat([angles.cos(), angles.sin()], dim=-1).to(next(self.mlp.parameters()).dtype))


def absolute_position_embedding(coords: Tensor, width: int) -> Tensor:
    """Sinusoids of integer grid coordinates.

    coords (N, 3) -> (N, width) float32: for each axis in turn floor(width/3)//2 sines then as many cosines, then zeros.
    """
    per_axis = width // 3 // 2
    angles = coords.float()[:, :, None] * sinusoid_frequencies(per_axis, coords.device)
    embedding = torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(1)
    return nn.functional.pad(embedding, (0, width - embedding.shape[1]))
