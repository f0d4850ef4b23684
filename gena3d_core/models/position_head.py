"""SceneGen's position head: pose of each asset relative to the query asset, refined in a few iterations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.blocks import SubLayer, TransformerBlock
from ..nn.initialisation import xavier
from ..nn.layers import FeedForward, SelfAttention
from ..nn.norms import BLOCK_EPS, HeadRMSNorm, LayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from ..nn.rotary import PlanarRotation
from .flow_blocks import ADALN

POSE_WIDTH = 8
"""Translation (3), quaternion with w first (4), scale (1)."""
IDENTITY_POSE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
BIAS_STD = 0.01


class SingleTokenAttention(SelfAttention):
    """Self-attention of a sequence of one token: its only weight is 1, so that the value is the result.

    The parameters of queries and keys are there because published checkpoints hold them; nothing depends on them.
    """

    def forward(self, x: Tensor, context: Tensor | PlanarRotation | None = None) -> Tensor:
        """x (B, 1, C) -> same shape."""
        weight, bias = (parameter.chunk(3)[2] for parameter in (self.to_qkv.weight, self.to_qkv.bias))
        return self.to_out(F.linear(x, weight, bias))


@dataclass(frozen=True)
class PositionHeadConfig:
    """Sizes, in the words of the published configs."""

    model_channels: int
    num_heads: int
    trunk_depth: int = 4
    mlp_ratio: float = 4.0


class PositionHead(nn.Module):
    """Position tokens -> poses. Each asset is looked at alone; the assets have met in the blocks before."""

    trunk: Any  # a ModuleList of TransformerBlock, whose items mypy cannot know

    def __init__(self, config: PositionHeadConfig) -> None:
        super().__init__()
        width, heads = config.model_channels, config.num_heads
        sublayers = [
            SubLayer("attn", partial(SingleTokenAttention, width, heads, qk_norm=HeadRMSNorm), modulation=ADALN),
            SubLayer("mlp", partial(FeedForward, width, config.mlp_ratio), modulation=ADALN),
        ]
        self.empty_pose_tokens = nn.Parameter(torch.tensor([IDENTITY_POSE]))
        self.embed_pose = nn.Linear(POSE_WIDTH, width)
        self.trunk = nn.ModuleList(TransformerBlock(width, sublayers) for _ in range(config.trunk_depth))
        self.norm = LayerNorm32(width, eps=BLOCK_EPS, elementwise_affine=False)
        self.pose_branch = nn.Sequential(nn.Linear(width, width // 2), nn.GELU(), nn.Linear(width // 2, POSE_WIDTH))

    def initialise(self) -> None:
        """Fresh parameters for training."""
        xavier(self)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.bias, std=BIAS_STD)
        with torch.no_grad():
            self.empty_pose_tokens.copy_(self.empty_pose_tokens.new_tensor([IDENTITY_POSE]))

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the trunk's matrix products in `dtype`; the layers around it stay in float32."""
        cast_matrix_layers(self.trunk, dtype)

    def forward(self, tokens: Tensor, *, iterations: int = 4, query: Tensor | None = None) -> Tensor:
        """tokens (B, C) -> poses (B, 8) float32, rows [t (3), quat_wxyz (4), s (1)] in the frame of the query asset.

        Lengths are in units of the query's size; the quaternion is not of length one, the scale is not negative.
        query (B,) bool: rows of query assets, whose pose is the identity by definition; None: every row as the head
        sees it (training).
        """
        if iterations < 1:
            raise InputError(f"the position head needs at least one iteration, got {iterations}")
        tokens = self.norm(tokens.to(self.embed_pose.weight))[:, None]
        pose = self._change(tokens, self.empty_pose_tokens.expand(len(tokens), -1))
        for _ in range(iterations - 1):
            pose = pose + self._change(tokens, pose)
        pose = torch.cat([pose[:, :7], F.relu(pose[:, 7:])], dim=1)
        return pose if query is None else torch.where(query[:, None], pose.new_tensor(IDENTITY_POSE), pose)

    def _change(self, tokens: Tensor, pose: Tensor) -> Tensor:
        """What to add to `pose` (B, 8); tokens (B, 1, C)."""
        dtype = matrix_dtype(self.trunk)
        h, embedding = tokens.to(dtype), self.embed_pose(pose).to(dtype)
        for block in self.trunk:
            h = block(h, embedding)
        return self.pose_branch(self.norm(h.to(tokens.dtype)))[:, 0]
