"""Structured-latent flow model: velocity of the latents of the occupied voxels (stage 2 of TRELLIS and Amodal3R)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.blocks import modulation_projection
from ..nn.embeddings import TimestepEmbedder, absolute_position_embedding
from ..nn.initialisation import initialise_transformer, zero
from ..nn.norms import LayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from ..nn.sparse import SparseResBlock3d, SparseTensor, from_padded, to_padded
from .conditioning import Contexts, FlowCondition, project_condition
from .flow_blocks import FlowConfig, flow_block


@dataclass(frozen=True)
class StructuredLatentFlowConfig(FlowConfig):
    """Sizes, in the words of the published configs, then what Amodal3R and GENA3D add (see `FlowBlockConfig`).

    io_block_channels    widths of the convolutional levels around the transformer, finest first; each level halves
                         the grid, so patch_size must be 2^levels; empty: the transformer runs on every voxel
    num_io_res_blocks    residual blocks a level and side, the one that changes the grid included
    use_skip_connection  whether the output blocks see what the input blocks gave
    """

    patch_size: int = 2
    num_io_res_blocks: int = 2
    io_block_channels: tuple[int, ...] = ()
    use_skip_connection: bool = True
    share_mod: bool = False
    occlusion_attention: bool = False
    fusion_norm: bool = False

    def __post_init__(self) -> None:
        if self.patch_size != 2 ** len(self.io_block_channels):
            raise InputError(
                f"patch_size {self.patch_size} needs {math.log2(self.patch_size):g} io_block_channels, "
                f"got {list(self.io_block_channels)}"
            )
        if self.io_block_channels and self.num_io_res_blocks < 1:
            raise InputError(f"num_io_res_blocks must be at least 1, got {self.num_io_res_blocks}")


class StructuredLatentFlow(nn.Module):
    """Velocity of sparse latents x at t (B,), as the sampler gives it (1000 times the flow time).

    Convolutional blocks take the voxels to a grid `patch_size` times coarser and back; between them a transformer
    sees each sample's coarse voxels, all of them and no others, whatever else is in the batch.
    """

    blocks: Any  # ModuleLists, whose items mypy cannot know
    input_blocks: Any
    out_blocks: Any

    def __init__(self, config: StructuredLatentFlowConfig) -> None:
        super().__init__()
        self.config = config
        C, levels = config.model_channels, config.io_block_channels
        fine = levels[0] if levels else C
        self.t_embedder = TimestepEmbedder(C)
        self.input_layer = nn.Linear(config.in_channels, fine)
        self.input_blocks, self.out_blocks = nn.ModuleList(), nn.ModuleList()
        plain = config.num_io_res_blocks - 1
        ladder = list(zip(levels, (*levels[1:], C), strict=False))
        for width, coarser in ladder:
            self.input_blocks.extend(SparseResBlock3d(width, C) for _ in range(plain))
            self.input_blocks.append(SparseResBlock3d(width, C, coarser, resample="down"))
        skips = 2 if config.use_skip_connection else 1
        for width, coarser in reversed(ladder):
            self.out_blocks.append(SparseResBlock3d(skips * coarser, C, width, resample="up"))
            self.out_blocks.extend(SparseResBlock3d(skips * width, C, width) for _ in range(plain))
        self.adaLN_modulation = modulation_projection(C, 2) if config.share_mod else None
        self.blocks = nn.ModuleList(flow_block(config.block) for _ in range(config.num_blocks))
        self.out_norm = LayerNorm32(fine, eps=1e-5, elementwise_affine=False)
        self.out_layer = nn.Linear(fine, config.out_channels)

    def initialise(self) -> None:
        """Fresh parameters for training: every residual branch of a convolution and the velocity start at zero."""
        initialise_transformer(self)
        zero(self.out_layer, *(layer for layer in (self.adaLN_modulation,) if layer is not None))
        zero(*(block.conv2 for block in (*self.input_blocks, *self.out_blocks)))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the matrix products of all blocks in `dtype`; the layers around them stay in float32."""
        for blocks in (self.blocks, self.input_blocks, self.out_blocks):
            cast_matrix_layers(blocks, dtype)

    def contexts(self, condition: FlowCondition) -> Contexts:
        """Keys and values of the condition for every block: they do not change along the sampling path."""
        return [project_condition(block, condition, None) for block in self.blocks]

    def forward(self, x: SparseTensor, t: Tensor, contexts: Contexts) -> SparseTensor:
        """Velocity at the voxels of x, float32; contexts as `contexts` made them, for the samples of x."""
        if x.feats.shape[1] != self.config.in_channels:
            raise InputError(f"x must have {self.config.in_channels} channels, got {x.feats.shape[1]}")
        if t.shape != (x.batch,):
            raise InputError(f"t must be ({x.batch},), a time for each sample of x, got {tuple(t.shape)}")
        dtype = matrix_dtype(self.blocks)
        embedding = self.t_embedder(t)
        modulation = embedding if self.adaLN_modulation is None else self.adaLN_modulation(embedding)
        embedding, modulation = embedding.to(dtype), modulation.to(dtype)
        h = x.replace(self.input_layer(x.feats.to(self.input_layer.weight)).to(dtype))
        h, grids, skips = self._down(h, embedding)
        h = self._transform(h, modulation, contexts)
        h = self._up(h, grids, skips, embedding)
        # The published network norms in the blocks' precision, unlike stage 1.
        return h.replace(self.out_layer(self.out_norm(h.feats).to(self.out_layer.weight)))

    def _down(self, h: SparseTensor, embedding: Tensor) -> tuple[SparseTensor, list[SparseTensor], list[SparseTensor]]:
        """h at the coarsest voxels; h as it entered each level's downsampling; what every input block gave."""
        grids, skips = [], []
        for block in self.input_blocks:
            if block.resample == "down":
                grids.append(h)
            h = block(h, embedding)
            skips.append(h)
        return h, grids, skips

    def _transform(self, h: SparseTensor, modulation: Tensor, contexts: Contexts) -> SparseTensor:
        """The transformer: rows of a sample attend to that sample's rows and condition."""
        positions = absolute_position_embedding(h.coords[:, 1:], self.config.model_channels)
        stream, padding_bias = to_padded(h.replace(h.feats + positions.to(h.feats.dtype)))
        for block, context in zip(self.blocks, contexts, strict=True):
            stream = block(stream, modulation, {**context, "self_attn": padding_bias})
        return from_padded(stream, h)

    def _up(
        self, h: SparseTensor, grids: list[SparseTensor], skips: list[SparseTensor], embedding: Tensor
    ) -> SparseTensor:
        """h at the voxels of the input; grids and skips are consumed in reverse."""
        for block in self.out_blocks:
            if self.config.use_skip_connection:
                h = h.replace(torch.cat([h.feats, skips.pop().feats], dim=-1))
            h = block(h, embedding, grids.pop() if block.resample == "up" else None)
        return h
