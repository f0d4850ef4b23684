"""A feed-forward 3D U-Net from the voxels of a partial cloud to occupancy: the baseline that the flow has to beat.

It sees no images and draws no samples: what it gives is the mean over all shapes that fit the cloud.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.initialisation import zero
from ..nn.norms import ChannelLayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from .sparse_structure_vae import LAYOUT, Downsample, ResidualBlock, deal_to_children, gather_cubes


@dataclass(frozen=True)
class CompletionUNetConfig:
    """Sizes; channels from the finest level to the coarsest.

    patch_size  side of the cubes of voxels that become channels before the first convolution, and voxels again behind
                the last one (as in the sparse-structure VAE)
    """

    resolution: int
    channels: Sequence[int]
    num_res_blocks: int = 1
    num_res_blocks_middle: int = 1
    patch_size: int = 4

    @property
    def scale(self) -> int:
        """Voxels along a side of a cell of the coarsest level."""
        return self.patch_size * 2 ** (len(self.channels) - 1)


class Rise(nn.Module):
    """Twice the resolution, each voxel's children from that voxel alone, joined with the finer level's features."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, 8 * out_width, 1)
        self.join = nn.Conv3d(2 * out_width, out_width, 1)

    def forward(self, x: Tensor, finer: Tensor) -> Tensor:
        return self.join(torch.cat([deal_to_children(self.conv(x)), finer], dim=1))


class CompletionUNet(nn.Module):
    """Partial cloud (B, 1, R, R, R) of zeros and ones -> occupancy logits (B, 1, R, R, R) float32."""

    blocks: Any  # a ModuleDict of lists of layers, whose items mypy cannot know

    def __init__(self, config: CompletionUNetConfig) -> None:
        """Raises `InputError` for a resolution that the levels do not divide, and for widths below 1."""
        super().__init__()
        widths, cells = tuple(config.channels), config.patch_size**3
        if not widths or min(widths) < 1:
            raise InputError(f"channels must list the width of every level, got {list(widths)}")
        if config.resolution % config.scale:
            raise InputError(f"resolution {config.resolution} is not a multiple of {config.scale}: fewer channels")
        self.config = config
        self.input_layer = nn.Conv3d(cells, widths[0], 3, padding=1)
        self.blocks = nn.ModuleDict(
            {
                "down": nn.ModuleList(_level(width, config.num_res_blocks) for width in widths),
                "sink": nn.ModuleList(Downsample(width, coarser) for width, coarser in pairwise(widths)),
                "middle": _level(widths[-1], config.num_res_blocks_middle),
                "rise": nn.ModuleList(Rise(coarser, width) for width, coarser in pairwise(widths)),
                "up": nn.ModuleList(_level(width, config.num_res_blocks) for width in widths[:-1]),
            }
        )
        self.out_norm = ChannelLayerNorm32(widths[0])
        self.out_layer = nn.Conv3d(widths[0], cells, 3, padding=1)
        self.to(memory_format=LAYOUT)  # type: ignore[call-overload]  # an overload that the stubs leave out

    def initialise(self) -> None:
        """Fresh parameters for training: torch's defaults, and residual blocks that start as nothing."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d | nn.LayerNorm):
                layer.reset_parameters()
        zero(*(layer.conv2 for layer in self.modules() if isinstance(layer, ResidualBlock)))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' convolutions in `dtype`; the first and the last one stay in float32."""
        cast_matrix_layers(self.blocks, dtype)

    def forward(self, cloud: Tensor) -> Tensor:
        R, p = self.config.resolution, self.config.patch_size
        if cloud.shape[1:] != (1, R, R, R):
            raise InputError(f"the cloud must be (B, 1, {R}, {R}, {R}), got {tuple(cloud.shape)}")
        h = self.input_layer(gather_cubes(cloud.to(self.input_layer.weight), p))
        h = self._trunk(h.to(matrix_dtype(self.blocks), memory_format=LAYOUT))
        h = F.silu(self.out_norm(h.to(self.out_layer.weight)))
        return deal_to_children(self.out_layer(h).float(), p).contiguous()

    def _trunk(self, h: Tensor) -> Tensor:
        """(B, C, R / p, R / p, R / p) -> same shape: down to the coarsest level and up again."""
        finer = []
        for level, block in enumerate(self.blocks["down"]):
            h = block(h)
            if level + 1 < len(self.config.channels):
                finer.append(h)
                h = self.blocks["sink"][level](h)
        h = self.blocks["middle"](h)
        for level in reversed(range(len(finer))):
            h = self.blocks["up"][level](self.blocks["rise"][level](h, finer[level]))
        return h


def _level(width: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width) for _ in range(count)))
