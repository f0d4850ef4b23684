"""Heads of π³: from the tokens of a view to its points, their confidence and the pose of its camera."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...nn.precision import matrix_dtype
from ...nn.rotary import PlanarRotation
from .views import geometry_block, within_views


class TokenDecoder(nn.Module):
    """A linear layer, blocks that attend within each view, a linear layer: (B, S, N, C_in) -> (B, S, N, C_out)."""

    def __init__(self, in_width: int, width: int, out_width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.input_layer = nn.Linear(in_width, width)
        self.blocks = nn.ModuleList(geometry_block(width, heads, head_norms=False, gains=False) for _ in range(depth))
        self.out_layer = nn.Linear(width, out_width)

    def forward(self, x: Tensor, rotation: PlanarRotation) -> Tensor:
        x = self.input_layer(x.to(self.input_layer.weight.dtype))
        x = x.to(matrix_dtype(self.blocks))
        for block in self.blocks:
            x = within_views(block, x, rotation)
        return self.out_layer(x.to(self.out_layer.weight.dtype))


class PixelHead(nn.Module):
    """Every token gives the values of its patch's pixels: (B, S, height · width, C) -> (B, S, H, W, channels)."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Linear(width, channels * patch**2)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        grid = self.proj(x).transpose(-1, -2).unflatten(-1, (height, width))
        return F.pixel_shuffle(grid, self.patch).movedim(-3, -1)


class ResidualUnit(nn.Module):
    """x + three linear layers, each with a ReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(width, width), nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class CameraHead(nn.Module):
    """Patch tokens (B, S, N, C) to the pose of each view's camera (B, S, 4, 4), camera to world."""

    UNITS = 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.units = nn.Sequential(*(ResidualUnit(width) for _ in range(self.UNITS)))
        self.perceptron = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.translation = nn.Linear(width, 3)
        self.rotation = nn.Linear(width, 9)

    def forward(self, x: Tensor) -> Tensor:
        view = self.perceptron(self.units(x).mean(dim=-2))
        rotation = nearest_rotation(self.rotation(view).unflatten(-1, (3, 3)))
        top = torch.cat([rotation, self.translation(view).to(rotation.dtype)[..., None]], dim=-1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
        return torch.cat([top, bottom], dim=-2)


def nearest_rotation(matrix: Tensor) -> Tensor:
    """The rotation nearest (Frobenius) to (..., 3, 3) with rows scaled to length one; float32, float64 stays."""
    rows = F.normalize(matrix.to(torch.promote_types(matrix.dtype, torch.float32)), dim=-1)
    u, _, vh = torch.linalg.svd(rows)
    # Without this, matrices nearer to a reflection would become one; the last direction costs least to flip.
    signs = torch.ones_like(rows[..., 0])
    signs[..., 2] = torch.linalg.det(u @ vh)
    return (u * signs[..., None, :]) @ vh
