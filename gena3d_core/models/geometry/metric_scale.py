"""How long the unit of a scene is in metres, as far as pictures tell: π³X's token that reads all others."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ...nn.attention import attention
from ...nn.blocks import SubLayer, TransformerBlock
from ...nn.layers import FeedForward
from ...nn.norms import BLOCK_EPS, LayerNorm32
from ...nn.precision import matrix_dtype
from ...nn.rotary import PlanarRotation


class PlacedCrossAttention(nn.Module):
    """Attention of tokens without a place to tokens that have one; the context (tokens, rotation) is normed here."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.attention_backend = heads, "sdpa"
        self.norm_context = LayerNorm32(width, eps=BLOCK_EPS)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, context: tuple[Tensor, PlanarRotation]) -> Tensor:
        tokens, rotation = context
        tokens = self.norm_context(tokens)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1))
            for layer, y in ((self.to_q, x), (self.to_k, tokens), (self.to_v, tokens))
        )
        return self.to_out(attention(q, rotation(k), v, backend=self.attention_backend).flatten(-2))


class MetricScale(nn.Module):
    """Tokens of a scene (B, N, C) to metres a unit (B,)."""

    def __init__(self, in_width: int, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, in_width))
        self.token_layer, self.context_layer = nn.Linear(in_width, width), nn.Linear(in_width, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width,
                [
                    SubLayer("cross_attn", partial(PlacedCrossAttention, width, heads), affine_norm=True),
                    SubLayer("mlp", partial(FeedForward, width, exact_gelu=True), affine_norm=True),
                ],
            )
            for _ in range(depth)
        )
        self.out_layer = nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, tokens: Tensor, rotation: PlanarRotation) -> Tensor:
        """rotation: of the N tokens."""
        dtype, inner = self.token.dtype, matrix_dtype(self.blocks)
        x = self.token_layer(self.token).expand(len(tokens), -1, -1).to(inner)
        context = self.context_layer(tokens.to(dtype)).to(inner)
        for block in self.blocks:
            x = block(x, contexts={"cross_attn": (context, rotation)})
        return self.head(self.out_layer(x.to(dtype))).float().exp()[:, 0, 0]
