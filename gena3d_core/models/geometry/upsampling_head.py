"""Head of π³X: convolutions that double the grid of patches three times, then one resize to the image's size.

Source: Wang et al. 2025, MoGe: Unlocking Accurate Monocular Geometry Estimation for Open-Domain Images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_CHANNELS = 32
VIEWS_PER_PASS = 4
"""Views whose feature maps, 64 channels at the image's size, are held in memory together."""


class ResidualConvolutions(nn.Module):
    """x + two 3x3 convolutions, each behind a group norm and a ReLU; twice the channels between them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 2 * channels
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels),
            nn.ReLU(),
            _convolution(channels, hidden),
            nn.GroupNorm(max(1, hidden // GROUP_CHANNELS), hidden),
            nn.ReLU(),
            _convolution(hidden, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class UpsamplingHead(nn.Module):
    """Patch tokens (B, S, h · w, C) to maps (B, S, H, W, channels), one for each of `outputs`."""

    def __init__(
        self,
        width: int,
        outputs: Sequence[int],
        patch: int,
        channels: Sequence[int] = (256, 128, 64),
        last_channels: int = 32,
    ) -> None:
        """outputs: channels of each map; channels: of the feature maps behind each doubling."""
        super().__init__()
        self.patch = patch
        # Two channels more everywhere: where on the view's plane a pixel lies.
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Sequential(nn.ConvTranspose2d(before + 2, after, 2, stride=2), _convolution(after, after)),
                ResidualConvolutions(after),
                ResidualConvolutions(after),
            )
            for before, after in zip((width, *channels[:-1]), channels, strict=True)
        )
        self.outputs = nn.ModuleList(
            nn.Sequential(_convolution(channels[-1] + 2, last_channels), nn.ReLU(), nn.Conv2d(last_channels, count, 1))
            for count in outputs
        )

    def forward(self, tokens: Tensor, height: int, width: int) -> list[Tensor]:
        """height, width: patches of a view."""
        dtype = next(self.outputs.parameters()).dtype
        grids = tokens.to(dtype).flatten(0, 1).transpose(-1, -2).unflatten(-1, (height, width))
        parts = [self._maps(part) for part in grids.split(VIEWS_PER_PASS)]
        return [torch.cat(maps).unflatten(0, tokens.shape[:2]).movedim(2, -1) for maps in zip(*parts, strict=True)]

    def _maps(self, x: Tensor) -> list[Tensor]:
        size = (x.shape[-2] * self.patch, x.shape[-1] * self.patch)
        for stage in self.stages:
            x = stage(_with_plane(x, size))
        x = _with_plane(F.interpolate(x, size, mode="bilinear", align_corners=False), size)
        return [output(x) for output in self.outputs]


def _convolution(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, padding_mode="replicate")


def _with_plane(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x (P, C, h, w), and as channels columns and rows from the middle of the image (H, W), in half diagonals."""
    diagonal = math.hypot(*size)
    rows, columns = (
        (2 * torch.arange(count, dtype=x.dtype, device=x.device) + 1 - count) * (side / (count * diagonal))
        for count, side in zip(x.shape[-2:], size, strict=True)
    )
    plane = torch.stack([columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))])
    return torch.cat([x, plane.expand(len(x), -1, -1, -1)], dim=1)
