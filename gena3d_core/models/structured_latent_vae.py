"""Structured-latent VAE: the windowed transformer that its encoder and decoders share, and the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.blocks import SubLayer, TransformerBlock
from ..nn.embeddings import absolute_position_embedding
from ..nn.initialisation import initialise_transformer, zero
from ..nn.layers import FeedForward
from ..nn.norms import HeadRMSNorm, LayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from ..nn.sparse import SparseTensor, WindowAttention, Windows, sample_windows, shifted_windows

ATTENTION_MODES = ("swin", "full")
"""swin: cubic windows, shifted by half a window in every second block (Liu et al. 2021); full: a sample is a window."""


@dataclass(frozen=True)
class StructuredLatentVAEConfig:
    """Sizes, in the words of the published configs.

    in_channels      width of the encoder's input features; the decoders read `latent_channels`
    attn_mode        one of `ATTENTION_MODES`
    window_size      side of a window in voxels, for 'swin'
    """

    resolution: int
    model_channels: int
    latent_channels: int
    num_blocks: int
    in_channels: int | None = None
    num_heads: int | None = None
    num_head_channels: int = 64
    mlp_ratio: float = 4.0
    attn_mode: str = "swin"
    window_size: int | None = 8
    qk_rms_norm: bool = False

    def __post_init__(self) -> None:
        if self.attn_mode not in ATTENTION_MODES:
            raise InputError(f"attn_mode must be one of {', '.join(ATTENTION_MODES)}, got '{self.attn_mode}'")
        if self.attn_mode == "swin" and (self.window_size is None or self.window_size < 1):
            raise InputError(f"window_size must be at least 1 voxel, got {self.window_size}")
        if self.model_channels % self.heads:
            raise InputError(f"model_channels {self.model_channels} is not a multiple of {self.heads} heads")

    @property
    def heads(self) -> int:
        """Number of attention heads."""
        return self.num_heads or self.model_channels // self.num_head_channels


class VoxelTransformer(nn.Module):
    """Input layer, positions, transformer blocks, and (with out_channels) norm and output layer, a row a voxel.

    The encoder and all decoders are this network; the mesh decoder goes on where the blocks end.
    """

    blocks: Any  # a ModuleList of TransformerBlock, whose items mypy cannot know

    def __init__(self, config: StructuredLatentVAEConfig, in_channels: int, out_channels: int | None = None) -> None:
        super().__init__()
        self.config = config
        C, H = config.model_channels, config.heads
        qk_norm = HeadRMSNorm if config.qk_rms_norm else None
        sublayers = [
            SubLayer("attn", partial(WindowAttention, C, H, qk_norm=qk_norm)),
            SubLayer("mlp", partial(FeedForward, C, config.mlp_ratio)),
        ]
        self.input_layer = nn.Linear(in_channels, C)
        self.blocks = nn.ModuleList(TransformerBlock(C, sublayers) for _ in range(config.num_blocks))
        self.out_norm = LayerNorm32(C, eps=1e-5, elementwise_affine=False)
        self.out_layer = None if out_channels is None else nn.Linear(C, out_channels)

    def initialise(self) -> None:
        """Fresh parameters for training; the output starts at zero."""
        initialise_transformer(self)
        if self.out_layer is not None:
            zero(self.out_layer)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        cast_matrix_layers(self.blocks, dtype)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """x (N, in_channels) -> (N, out_channels) float32, or what the blocks gave (N, C) in their precision."""
        if x.feats.shape[1] != self.input_layer.in_features:
            raise InputError(f"features must have {self.input_layer.in_features} channels, got {x.feats.shape[1]}")
        h = self.input_layer(x.feats.to(self.input_layer.weight))
        h = h + absolute_position_embedding(x.coords[:, 1:], self.config.model_channels)
        # Only attention needs to know where a window ends; the rest runs on the rows of all samples without padding.
        h = h.to(matrix_dtype(self.blocks))[None]
        for index, block in enumerate(self.blocks):
            h = block(h, contexts={"attn": self._windows(x, index)})
        h = h[0]
        return x.replace(h if self.out_layer is None else self.out_layer(self.out_norm(h.to(self.out_layer.weight))))

    def _windows(self, x: SparseTensor, block: int) -> Windows:
        side = self.config.window_size
        if self.config.attn_mode == "full" or side is None:
            return sample_windows(x.geometry)
        return shifted_windows(x.geometry, side, side // 2 * (block % 2))


class Posterior(NamedTuple):
    """Normal distribution of the latents of each voxel; mean and log variance (N, C_latent)."""

    mean: SparseTensor
    logvar: SparseTensor

    def sample(self, noise: Tensor) -> SparseTensor:
        """mean + standard deviation · noise (N, C_latent)."""
        return self.mean.replace(self.mean.feats + torch.exp(0.5 * self.logvar.feats) * noise)


class StructuredLatentEncoder(nn.Module):
    """Features of the occupied voxels (multi-view image features) -> latents; the published ones are means."""

    def __init__(self, config: StructuredLatentVAEConfig) -> None:
        super().__init__()
        if config.in_channels is None:
            raise InputError("the encoder needs in_channels, the width of its input features")
        self.config = config
        self.network = VoxelTransformer(config, config.in_channels, 2 * config.latent_channels)

    def initialise(self) -> None:
        """As `VoxelTransformer.initialise`."""
        self.network.initialise()

    def set_precision(self, dtype: torch.dtype) -> None:
        """As `VoxelTransformer.set_precision`."""
        self.network.set_precision(dtype)

    def forward(self, x: SparseTensor) -> Posterior:
        """x (N, in_channels) -> posterior of the latents at the same voxels, float32."""
        found = self.network(x)
        mean, logvar = found.feats.chunk(2, dim=-1)
        return Posterior(found.replace(mean), found.replace(logvar))
