"""What the geometry networks share: streams of several views, and attention within a view and across all views.

A stream is (B, S, N, C): scenes, views, tokens of a view (special ones first, then patches row by row), channels.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.blocks import SubLayer, TransformerBlock
from ...nn.layers import FeedForward, SelfAttention
from ...nn.norms import BLOCK_EPS, head_layer_norm
from ...nn.rotary import PlanarRotation
from ..image_encoders.patches import check_images


def geometry_block(
    width: int,
    heads: int,
    mlp_ratio: float = 4.0,
    *,
    head_norms: bool = True,
    gains: bool = True,
    norm_eps: float = BLOCK_EPS,
) -> TransformerBlock:
    """Self-attention, told positions by a rotation, and a feed-forward with exact GELU.

    head_norms: layer norms of queries and keys; gains: LayerScale.
    """
    attention = partial(SelfAttention, width, heads, qk_norm=head_layer_norm if head_norms else None)
    feed_forward = partial(FeedForward, width, mlp_ratio, exact_gelu=True)
    return TransformerBlock(
        width,
        [
            SubLayer("attn", attention, affine_norm=True, gain=gains, norm_eps=norm_eps),
            SubLayer("mlp", feed_forward, affine_norm=True, gain=gains, norm_eps=norm_eps),
        ],
    )


def token_positions(special: int, height: int, width: int, device: torch.device | None = None) -> Tensor:
    """(special + height · width, 2) rows and columns: (0, 0) for special tokens, patches count from (1, 1)."""
    rows, columns = (torch.arange(1, side + 1, device=device) for side in (height, width))
    patches = torch.cartesian_prod(rows, columns)
    return torch.cat([patches.new_zeros(special, 2), patches])


def within_views(block: nn.Module, x: Tensor, rotation: PlanarRotation) -> Tensor:
    """Each view's tokens attend to those of the same view: x (B, S, N, C) -> same shape."""
    return block(x.flatten(0, 1), contexts={"attn": rotation}).view(x.shape)


def across_views(block: nn.Module, x: Tensor, rotation: PlanarRotation) -> Tensor:
    """All tokens of a scene attend to each other: x (B, S, N, C) -> same shape; the rotation is for S · N tokens."""
    return block(x.flatten(1, 2), contexts={"attn": rotation}).view(x.shape)


def check_views(images: Tensor, patch: int) -> None:
    """Raise `InputError` unless images are (B, S, 3, H, W), at least one, with sides that are multiples of `patch`."""
    if images.ndim != 5 or images.shape[2] != 3 or not images.shape[0] or not images.shape[1]:
        raise InputError(f"views must be (B, S, 3, H, W) with B and S at least 1, got {tuple(images.shape)}")
    check_images(images.flatten(0, 1), 3, patch)
