"""Sparse-structure flow model: velocity of the latent of an occupancy grid (stage 1 of TRELLIS, Amodal3R, GENA3D)."""

from __future__ import annotations

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
from .conditioning import Contexts, FlowCondition, project_condition
from .flow_blocks import FlowConfig, flow_block


@dataclass(frozen=True)
class SparseStructureFlowConfig(FlowConfig):
    """Sizes, in the words of the published configs, then what Amodal3R and GENA3D add (see `FlowBlockConfig`).

    geometry_positions  whether the tokens of the partial cloud carry their place in the grid (eq. 5 has none)
    """

    share_mod: bool = False
    occlusion_attention: bool = False
    fusion_norm: bool = False
    stereo_attention: bool = False
    gating: bool = True
    geometry_positions: bool = False
    aligned_stereo: bool = False


class SparseStructureFlow(nn.Module):
    """Velocity of x (B, C_in, R, R, R) at t (B,), as the sampler gives it (1000 times the flow time)."""

    pos_emb: Tensor
    blocks: Any  # a ModuleList of TransformerBlock, whose items mypy cannot know

    def __init__(self, config: SparseStructureFlowConfig) -> None:
        super().__init__()
        if config.resolution % config.patch_size:
            raise InputError(f"resolution {config.resolution} is not a multiple of patch_size {config.patch_size}")
        self.config = config
        C, cells = config.model_channels, config.patch_size**3
        axis = torch.arange(config.resolution // config.patch_size)
        self.register_buffer("pos_emb", absolute_position_embedding(torch.cartesian_prod(axis, axis, axis), C))
        self.t_embedder = TimestepEmbedder(C)
        self.input_layer = nn.Linear(config.in_channels * cells, C)
        self.adaLN_modulation = modulation_projection(C, 2) if config.share_mod else None
        self.blocks = nn.ModuleList(flow_block(config.block) for _ in range(config.num_blocks))
        self.out_norm = LayerNorm32(C, eps=1e-5, elementwise_affine=False)
        self.out_layer = nn.Linear(C, config.out_channels * cells)

    def initialise(self) -> None:
        """Fresh parameters for training; the stereo attention starts as nothing."""
        initialise_transformer(self)
        zero(self.out_layer, *(layer for layer in (self.adaLN_modulation,) if layer is not None))
        if self.config.stereo_attention:
            zero(*(block.operations["stereo_attn"].to_out for block in self.blocks))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        cast_matrix_layers(self.blocks, dtype)

    def contexts(self, condition: FlowCondition) -> Contexts:
        """Keys and values of the condition for every block: they do not change along the sampling path."""
        tokens = self._geometry_tokens(condition)
        return [project_condition(block, condition, tokens) for block in self.blocks]

    def _geometry_tokens(self, condition: FlowCondition) -> Tensor | None:
        """(B, G, C) tokens of the partial clouds (GENA3D eq. 5), all zero for objects without one; None without any."""
        geometry, present = condition.geometry, condition.has_geometry
        wanted = self.config.stereo_attention or self.config.aligned_stereo
        if not wanted or geometry is None or (present is not None and not bool(present.any())):
            return None
        R = self.config.resolution
        shape = (condition.batch, self.config.in_channels, R, R, R)
        if geometry.shape != shape or (present is not None and present.shape != shape[:1]):
            raise InputError(f"geometry must be {shape}, got {tuple(geometry.shape)}; has_geometry ({shape[0]},) bool")
        tokens = self.input_layer(patchify(geometry.to(self.input_layer.weight), self.config.patch_size))
        if self.config.geometry_positions:
            tokens = tokens + self.pos_emb
        return tokens if present is None else tokens.masked_fill(~present[:, None, None], 0.0)

    def forward(self, x: Tensor, t: Tensor, contexts: Contexts) -> Tensor:
        """Velocity like x (B, C_out, R, R, R), float32; contexts as `contexts` made them."""
        R = self.config.resolution
        if x.shape[1:] != (self.config.in_channels, R, R, R):
            raise InputError(f"x must be (B, {self.config.in_channels}, {R}, {R}, {R}), got {tuple(x.shape)}")
        if t.shape != x.shape[:1]:
            raise InputError(f"t must be ({len(x)},), one flow time per row of x, got {tuple(t.shape)}")
        dtype = matrix_dtype(self.blocks)
        h = self.input_layer(patchify(x.to(self.input_layer.weight), self.config.patch_size)) + self.pos_emb
        embedding = self.t_embedder(t)
        if self.adaLN_modulation is not None:
            embedding = self.adaLN_modulation(embedding)
        h, embedding = h.to(dtype), embedding.to(dtype)
        for block, context in zip(self.blocks, contexts, strict=True):
            h = block(h, embedding, context)
        return unpatchify(self.out_layer(self.out_norm(h.to(self.out_layer.weight))), self.config.patch_size)


def patchify(x: Tensor, patch: int) -> Tensor:
    """Grid (B, C, R, R, R) -> tokens (B, (R/p)³, C·p³) in raster order, channels slowest inside a token."""
    B, C, R, _, _ = x.shape
    n = R // patch
    x = x.reshape(B, C, n, patch, n, patch, n, patch)
    return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(B, n**3, C * patch**3)


def unpatchify(tokens: Tensor, patch: int) -> Tensor:
    """Inverse of `patchify`."""
    B, count, width = tokens.shape
    n, C = round(count ** (1 / 3)), width // patch**3
    x = tokens.reshape(B, n, n, n, C, patch, patch, patch)
    return x.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(B, C, n * patch, n * patch, n * patch)
