"""Decoders of the structured latents: features of a fine grid for mesh extraction, 3-D Gaussians, radiance fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.initialisation import initialise_transformer, zero
from ..nn.precision import cast_matrix_layers
from ..nn.sparse import SparseGroupNorm32, SparseTensor, SubmanifoldConv3d, subdivide
from ..nn.sparse.copies import convolve_copies, subdivided_copies
from .gaussians import GaussianActivation, Gaussians
from .radiance_field import Strivec
from .structured_latent_vae import StructuredLatentVAEConfig, VoxelTransformer

GROUPS = 32
"""Channel groups of the group norms."""

GEOMETRY_FEATURES, COLOR_FEATURES = 53, 48
"""Of a fine voxel: 8 signed distances, 8 x 3 deformations, 21 weights; 8 x (3 colour + 3 normal)."""


class SubdivisionBlock(nn.Module):
    """Residual block that splits every voxel into eight."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        if channels % GROUPS or out_channels % GROUPS:
            raise InputError(f"mesh decoder: widths must be multiples of {GROUPS}, got {channels} and {out_channels}")
        self.norm1 = SparseGroupNorm32(GROUPS, channels)
        self.conv1 = SubmanifoldConv3d(channels, out_channels, 3)
        self.norm2 = SparseGroupNorm32(GROUPS, out_channels)
        self.conv2 = SubmanifoldConv3d(out_channels, out_channels, 3)
        self.skip_connection = SubmanifoldConv3d(channels, out_channels, 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """x (N, channels) -> (8 N, out_channels) at twice the resolution."""
        h = convolve_copies(self.conv1, _silu(self.norm1(x)), subdivided_copies(x))
        h = self.conv2(_silu(self.norm2(h)))
        # One voxel at a time: the same before and after the split, and eight times cheaper before it.
        return h.replace(h.feats + subdivide(self.skip_connection(x)).feats)


def _silu(x: SparseTensor) -> SparseTensor:
    return x.replace(F.silu(x.feats))


class StructuredLatentMeshDecoder(nn.Module):
    """Latents -> what mesh extraction needs at every voxel of a grid four times finer (`meshing.feature_mesh`)."""

    SCALE = 4

    def __init__(self, config: StructuredLatentVAEConfig, *, use_color: bool = False) -> None:
        super().__init__()
        self.config, self.use_color = config, use_color
        C = config.model_channels
        self.network = VoxelTransformer(config, config.latent_channels)
        self.upsample = nn.ModuleList([SubdivisionBlock(C, C // 4), SubdivisionBlock(C // 4, C // 8)])
        self.out_layer = nn.Linear(C // 8, GEOMETRY_FEATURES + (COLOR_FEATURES if use_color else 0))

    @property
    def fine_resolution(self) -> int:
        """Cells along a side of the grid of the result."""
        return self.SCALE * self.config.resolution

    def initialise(self) -> None:
        """Fresh parameters for training: the subdivision blocks start as their skip connections."""
        initialise_transformer(self)
        zero(self.out_layer, *(block.conv2 for block in self.upsample))  # type: ignore[arg-type]

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the matrix products of all blocks in `dtype`; the layers around them stay in float32."""
        self.network.set_precision(dtype)
        cast_matrix_layers(self.upsample, dtype)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Latents x (N, latent_channels) -> (64 N, 53 or with colour 101), float32."""
        h = self.network(x)
        for block in self.upsample:
            h = block(h)
        return h.replace(self.out_layer(h.feats.to(self.out_layer.weight)))


@dataclass(frozen=True)
class GaussianDecoderConfig:
    """How the raw numbers of a voxel become `num_gaussians` Gaussians.

    voxel_size       reach of the centres around that of their voxel, in voxels
    lr               factor of each raw attribute, by the names xyz, features_dc, scaling, rotation, opacity
    perturb_offset   whether each Gaussian of a voxel starts at its own place
    """

    num_gaussians: int = 32
    voxel_size: float = 1.5
    lr: dict[str, float] = field(default_factory=dict)
    perturb_offset: bool = True
    activation: GaussianActivation = field(default_factory=GaussianActivation)


class StructuredLatentGaussianDecoder(nn.Module):
    """Latents -> `Gaussians` of each sample."""

    offset_perturbation: Tensor

    WIDTHS = {"xyz": 3, "features_dc": 3, "scaling": 3, "rotation": 4, "opacity": 1}  # noqa: RUF012
    """Numbers of a Gaussian, in the order of the output layer."""

    def __init__(self, config: StructuredLatentVAEConfig, gaussians: GaussianDecoderConfig) -> None:
        super().__init__()
        self.config, self.gaussians = config, gaussians
        channels = sum(self.WIDTHS.values()) * gaussians.num_gaussians
        self.network = VoxelTransformer(config, config.latent_channels, channels)
        spread = (2 * hammersley(gaussians.num_gaussians) - 1) / gaussians.voxel_size
        self.register_buffer("offset_perturbation", torch.atanh(spread))

    def initialise(self) -> None:
        """As `VoxelTransformer.initialise`."""
        self.network.initialise()

    def set_precision(self, dtype: torch.dtype) -> None:
        """As `VoxelTransformer.set_precision`."""
        self.network.set_precision(dtype)

    def forward(self, x: SparseTensor) -> list[Gaussians]:
        """Latents x (N, latent_channels) -> Gaussians of each sample, `num_gaussians` a voxel, voxels in row order."""
        return self.gaussians_of(self.network(x))

    def gaussians_of(self, features: SparseTensor) -> list[Gaussians]:
        """Raw numbers (N, channels) of the network -> Gaussians of each sample."""
        count, config = self.gaussians.num_gaussians, self.gaussians
        parts = features.feats.split([width * count for width in self.WIDTHS.values()], dim=-1)
        raw = {
            name: part.unflatten(-1, (count, -1)) * config.lr.get(name, 1.0)
            for name, part in zip(self.WIDTHS, parts, strict=True)
        }
        offset = raw["xyz"] + self.offset_perturbation if config.perturb_offset else raw["xyz"]
        reach = 0.5 * config.voxel_size / self.config.resolution
        raw["xyz"] = unit_centres(features.coords, self.config.resolution)[:, None] + torch.tanh(offset) * reach
        samples = zip(*(values.split(features.geometry.sizes) for values in raw.values()), strict=True)
        return [
            Gaussians(
                xyz.flatten(0, 1),
                features_dc.flatten(0, 1)[:, None],
                scaling.flatten(0, 1),
                rotation.flatten(0, 1),
                opacity.flatten(0, 1),
                config.activation,
            )
            for xyz, features_dc, scaling, rotation, opacity in samples
        ]


class StructuredLatentRadianceFieldDecoder(nn.Module):
    """Latents -> `Strivec` of each sample; rank and dim as there."""

    def __init__(self, config: StructuredLatentVAEConfig, *, rank: int, dim: int) -> None:
        super().__init__()
        self.config, self.rank, self.dim = config, rank, dim
        self.network = VoxelTransformer(config, config.latent_channels, rank * (3 * dim + 1 + 3))

    def initialise(self) -> None:
        """As `VoxelTransformer.initialise`."""
        self.network.initialise()

    def set_precision(self, dtype: torch.dtype) -> None:
        """As `VoxelTransformer.set_precision`."""
        self.network.set_precision(dtype)

    def forward(self, x: SparseTensor) -> list[Strivec]:
        """Latents x (N, latent_channels) -> radiance field of each sample, voxels in row order."""
        return self.radiance_fields_of(self.network(x))

    def radiance_fields_of(self, features: SparseTensor) -> list[Strivec]:
        """Raw numbers (N, channels) of the network -> radiance field of each sample."""
        rank, dim = self.rank, self.dim
        trivec, density, color = features.feats.split([rank * 3 * dim, rank, rank * 3], dim=-1)
        position = unit_centres(features.coords, self.config.resolution)
        depth = torch.full_like(position[:, :1], int(math.log2(self.config.resolution)), dtype=torch.uint8)
        parts = (position, depth, trivec.unflatten(-1, (rank, 3, dim)) + 1, density, color.unflatten(-1, (rank, 1, 3)))
        return [Strivec(*own) for own in zip(*(part.split(features.geometry.sizes) for part in parts), strict=True)]


def unit_centres(coords: Tensor, resolution: int) -> Tensor:
    """(N, 4) rows (batch, i, j, k) -> (N, 3) centres of the voxels in the unit cube."""
    return (coords[:, 1:].float() + 0.5) / resolution


def hammersley(count: int) -> Tensor:
    """(count, 3) evenly spread points in [0, 1)³: i / count, then the radical inverses of i in bases 2 and 3."""
    index = torch.arange(count)
    return torch.stack([index / count, radical_inverse(index, 2), radical_inverse(index, 3)], dim=-1)


def radical_inverse(index: Tensor, base: int) -> Tensor:
    """Digits of (M,) integers in `base`, mirrored at the point: float32 in [0, 1)."""
    found = torch.zeros(index.shape, dtype=torch.float64, device=index.device)
    digits = max(1, math.ceil(math.log(max(len(index), 2), base)) + 1)
    for place in range(digits):
        found += (index // base**place % base) * float(base) ** -(place + 1)
    return found.float()
