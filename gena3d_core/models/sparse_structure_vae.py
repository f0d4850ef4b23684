"""Sparse-structure VAE: occupancy grids to latent grids a quarter as fine, and back (stage 1 of TRELLIS).

Latents are used as they are, without normalisation; what is stored and what conditions a flow is the posterior's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.initialisation import zero
from ..nn.norms import ChannelLayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype

NormType = Literal["layer", "group"]
GROUPS = 32
LAYOUT = torch.channels_last_3d
"""Channel norms read a voxel's channels side by side, and convolutions take the layout as it is."""


class Posterior(NamedTuple):
    """Diagonal Gaussian of the latent; mean and logvar (B, C_latent, r, r, r)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + e^(logvar / 2) · noise."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise


@dataclass(frozen=True)
class SparseStructureEncoderConfig:
    """Sizes in the words of the published configs; channels from the finest level to the coarsest.

    norm_type   norm before the last convolution only; residual blocks have channel layer norms in both cases
    patch_size  side of the cubes of voxels that become channels before the first convolution (and voxels again behind
                the decoder's last one): full-resolution convolutions are what costs time on a CPU; published: 1
    """

    in_channels: int
    latent_channels: int
    num_res_blocks: int
    channels: Sequence[int]
    num_res_blocks_middle: int = 2
    norm_type: NormType = "layer"
    patch_size: int = 1

    @property
    def scale(self) -> int:
        """Voxels along a side of a cell of the latent grid."""
        return self.patch_size * 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class SparseStructureDecoderConfig:
    """As for the encoder, with channels from the coarsest level to the finest."""

    out_channels: int
    latent_channels: int
    num_res_blocks: int
    channels: Sequence[int]
    num_res_blocks_middle: int = 2
    norm_type: NormType = "layer"
    patch_size: int = 1

    @property
    def scale(self) -> int:
        """Voxels along a side of a cell of the latent grid."""
        return self.patch_size * 2 ** (len(self.channels) - 1)


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), of one width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelLayerNorm32(width), ChannelLayerNorm32(width)
        self.conv1 = nn.Conv3d(width, width, 3, padding=1)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Downsample(nn.Module):
    """Half the resolution by a strided convolution."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, out_width, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the resolution: eight times the channels, dealt to the eight children of each voxel."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(width, 8 * out_width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return deal_to_children(self.conv(x))


class ChannelGroupNorm32(nn.GroupNorm):
    """Group norm computed in float32 whatever the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float()).to(x.dtype)


class _Network(nn.Module):
    """What encoder and decoder share: a first convolution, levels of residual blocks, middle blocks, a last norm."""

    def __init__(
        self,
        in_channels: int,
        first: int,
        levels: Sequence[nn.Module],
        middle: tuple[int, int],
        last: tuple[int, int],
        norm_type: NormType,
    ) -> None:
        """middle (width, count), last (width, channels out)."""
        super().__init__()
        if norm_type == "group" and last[0] % GROUPS:
            raise InputError(f"norm_type 'group' needs {last[0]} channels to be a multiple of {GROUPS}")
        self.in_channels = in_channels
        self.input_layer = nn.Conv3d(in_channels, first, 3, padding=1)
        self.blocks = nn.Sequential(*levels)
        self.middle_block = nn.Sequential(*(ResidualBlock(middle[0]) for _ in range(middle[1])))
        norm = ChannelGroupNorm32(GROUPS, last[0]) if norm_type == "group" else ChannelLayerNorm32(last[0])
        self.out_layer = nn.Sequential(norm, nn.SiLU(), nn.Conv3d(*last, 3, padding=1))
        self.to(memory_format=LAYOUT)  # type: ignore[call-overload]  # an overload that the stubs leave out

    def initialise(self) -> None:
        """Fresh parameters for training: torch's defaults, and residual blocks that start as nothing."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d | nn.LayerNorm | nn.GroupNorm):
                layer.reset_parameters()
        zero(*(layer.conv2 for layer in self.modules() if isinstance(layer, ResidualBlock)))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' convolutions in `dtype`; the first and the last one stay in float32."""
        cast_matrix_layers(self.blocks, dtype)
        cast_matrix_layers(self.middle_block, dtype)

    def _run(self, x: Tensor, trunk: Sequence[nn.Module]) -> Tensor:
        h = self.input_layer(x.to(self.input_layer.weight)).to(matrix_dtype(self.blocks), memory_format=LAYOUT)
        for part in trunk:
            h = part(h)
        return self.out_layer(h.float())


class SparseStructureEncoder(_Network):
    """Occupancy (B, C_in, R, R, R) of zeros and ones -> posterior of the latent, R / scale wide."""

    def __init__(self, config: SparseStructureEncoderConfig) -> None:
        widths = _checked(config.channels)
        super().__init__(
            config.in_channels * config.patch_size**3,
            widths[0],
            _levels(widths, config.num_res_blocks, Downsample),
            (widths[-1], config.num_res_blocks_middle),
            (widths[-1], 2 * config.latent_channels),
            config.norm_type,
        )
        self.config = config

    def forward(self, x: Tensor) -> Posterior:
        wanted, step = self.config.in_channels, self.config.scale
        if x.ndim != 5 or x.shape[1] != wanted or any(side % step for side in x.shape[2:]):
            raise InputError(
                f"occupancy must be (B, {wanted}, R, R, R) with R a multiple of {step}, got {tuple(x.shape)}"
            )
        x = gather_cubes(x, self.config.patch_size)
        return Posterior(*self._run(x, (self.blocks, self.middle_block)).contiguous().chunk(2, dim=1))


class SparseStructureDecoder(_Network):
    """Latent (B, C_latent, r, r, r) -> occupancy logits (B, C_out, R, R, R), R = r · scale."""

    def __init__(self, config: SparseStructureDecoderConfig) -> None:
        widths = _checked(config.channels)
        super().__init__(
            config.latent_channels,
            widths[0],
            _levels(widths, config.num_res_blocks, Upsample),
            (widths[0], config.num_res_blocks_middle),
            (widths[-1], config.out_channels * config.patch_size**3),
            config.norm_type,
        )
        self.config = config

    def forward(self, z: Tensor) -> Tensor:
        if z.ndim != 5 or z.shape[1] != self.in_channels:
            raise InputError(f"the latent must be (B, {self.in_channels}, r, r, r), got {tuple(z.shape)}")
        return deal_to_children(self._run(z, (self.middle_block, self.blocks)), self.config.patch_size).contiguous()


def occupied_voxels(logits: Tensor) -> Tensor:
    """Logits (B, 1, R, R, R) -> (N, 4) int32 rows (batch, i, j, k) of those above 0, in row-major order."""
    return torch.nonzero(logits.squeeze(1) > 0).to(torch.int32).contiguous()


def deal_to_children(x: Tensor, p: int = 2) -> Tensor:
    """(B, C p³, D, H, W) -> (B, C, p D, p H, p W): channel ((c · p + a) · p + b) · p + d goes to offset (a, b, d)."""
    if p == 1:
        return x
    B, C, D, H, W = x.shape
    x = x.movedim(1, -1).reshape(B, D, H, W, C // p**3, p, p, p)
    return x.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(B, p * D, p * H, p * W, C // p**3).movedim(-1, 1)


def gather_cubes(x: Tensor, p: int) -> Tensor:
    """Inverse of `deal_to_children`."""
    if p == 1:
        return x
    B, C, D, H, W = x.shape
    x = x.reshape(B, C, D // p, p, H // p, p, W // p, p)
    return x.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(B, C * p**3, D // p, H // p, W // p)


def _levels(widths: Sequence[int], count: int, change: type[Downsample] | type[Upsample]) -> list[nn.Module]:
    """`count` residual blocks per level and a change of resolution between levels, as one flat list."""
    parts: list[nn.Module] = []
    for level, width in enumerate(widths):
        parts += [ResidualBlock(width) for _ in range(count)]
        if level + 1 < len(widths):
            parts.append(change(width, widths[level + 1]))
    return parts


def _checked(widths: Sequence[int]) -> tuple[int, ...]:
    if not widths or min(widths) < 1:
        raise InputError(f"channels must list the width of every level, got {list(widths)}")
    return tuple(widths)
