"""Attention between views whose camera poses are known: queries, keys and values are carried along with the cameras.

Sources: Miyato et al. 2024 (GTA), Li et al. 2025 (PRoPE), without intrinsics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.attention import PADDING_BIAS, attention
from ...nn.layers import FeedForward, SelfAttention
from ...nn.norms import BLOCK_EPS, LayerNorm32, head_layer_norm
from ...nn.rotary import PlanarRotation, planar_rotation


@dataclass(frozen=True)
class CameraFrames:
    """Poses of the views as attention uses them, for tokens (B, S · patches, H, D).

    Half of a head's channels are homogeneous points, four by four, in the frame of their view's camera; the other half
    turns with the column and the row of the patch.

    T_camera_world, T_world_camera  (B, S, 4, 4)
    forward, back                   rotations of the patches of all views, one the inverse of the other
    key_bias                        (B, S · patches): 0, and `PADDING_BIAS` in views whose pose is not known
    """

    T_camera_world: Tensor
    T_world_camera: Tensor
    forward: PlanarRotation
    back: PlanarRotation
    key_bias: Tensor

    def carried(self, x: Tensor, matrix: Tensor, rotation: PlanarRotation) -> Tensor:
        """x (B, N, H, D) with its points moved by (B, S, 4, 4) and its other half turned; same dtype."""
        points, plane = x.to(torch.promote_types(x.dtype, torch.float32)).chunk(2, dim=-1)
        views = points.unflatten(1, (matrix.shape[1], -1)).unflatten(-1, (-1, 4))
        moved = torch.einsum("bsij,bsphcj->bsphci", matrix.to(views.dtype), views).flatten(-2).flatten(1, 2)
        return torch.cat([moved, rotation(plane)], dim=-1).to(x.dtype)


def camera_frames(T_world_camera: Tensor, known: Tensor, height: int, width: int, head_width: int) -> CameraFrames:
    """Frames of views (B, S, 4, 4) of height x width patches; known (B, S) bool.

    Raises `InputError` unless head_width is a multiple of 8.
    """
    if head_width % 8:
        raise InputError(f"attention along cameras needs heads whose width is a multiple of 8, got {head_width}")
    device, count = T_world_camera.device, T_world_camera.shape[1]
    rows, columns = (torch.arange(side, device=device) for side in (height, width))
    places = torch.cartesian_prod(rows, columns).flip(-1)
    forward, back = (planar_rotation(sign * places, head_width // 2).repeated(count) for sign in (-1, 1))
    bias = torch.where(known, 0.0, PADDING_BIAS).repeat_interleave(height * width, dim=1)
    return CameraFrames(torch.linalg.inv(T_world_camera), T_world_camera, forward, back, bias)


class CameraAttention(SelfAttention):
    """Self-attention across views with known poses, which it feels by their differences only."""

    def forward(self, x: Tensor, context: CameraFrames) -> Tensor:  # type: ignore[override]
        """x (B, S · patches, C) -> same shape; of views without a pose nobody takes anything."""
        q, k, v = self.project(x)
        q = context.carried(q, context.T_camera_world.mT, context.forward)
        k, v = (context.carried(y, context.T_world_camera, context.forward) for y in (k, v))
        found = attention(q, k, v, key_bias=context.key_bias, backend=self.attention_backend)
        return self.to_out(context.carried(found, context.T_camera_world, context.back).flatten(-2))


class PoseInjection(nn.Module):
    """What known poses add to tokens: attention along the cameras and a feed-forward, side by side."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: LayerNorm32(width, eps=BLOCK_EPS) for name in ("attn", "mlp")})
        self.operations = nn.ModuleDict(
            {
                "attn": CameraAttention(width, heads, qk_norm=head_layer_norm),
                "mlp": FeedForward(width, exact_gelu=True),
            }
        )
        self.gains = nn.ParameterDict({name: nn.Parameter(torch.ones(width)) for name in ("attn", "mlp")})

    def forward(self, x: Tensor, frames: CameraFrames) -> Tensor:
        """x (B, S · patches, C) -> what is to be added, same shape."""
        found = torch.zeros_like(x)
        for name, context in (("attn", frames), ("mlp", None)):
            change = self.operations[name](self.norms[name](x), context)
            found = found + change * self.gains[name].to(change.dtype)
        return found
