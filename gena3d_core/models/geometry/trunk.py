"""What π³ and π³X have in common: image encoder and blocks that attend within views and across them in turn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...nn.precision import cast_matrix_layers, matrix_dtype
from ...nn.rotary import planar_rotation
from ..image_encoders.dinov2 import DinoV2, DinoV2Config
from ..image_encoders.patches import IMAGENET_MEAN, IMAGENET_STD
from .views import across_views, check_views, geometry_block, within_views


class GeometryTrunk(nn.Module):
    """Images to tokens that know of all views, whatever their order."""

    image_mean: Tensor
    image_std: Tensor

    def __init__(self, encoder: DinoV2Config, depth: int, heads: int, registers: int, rotation_base: float) -> None:
        """depth: blocks, even ones within a view, odd ones across all; registers: tokens added to each view."""
        super().__init__()
        C = encoder.embed_dim
        self.encoder = DinoV2(encoder)
        # Buffers, because published files hold them.
        self.register_buffer("image_mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))
        self.register_token = nn.Parameter(torch.zeros(1, 1, registers, C))
        self.blocks = nn.ModuleList(geometry_block(C, heads) for _ in range(depth))
        self._head_width, self._rotation_base = C // heads, rotation_base

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the matrix products of all transformer blocks in `dtype`; layers around them and heads stay."""
        for name, module in self.named_modules():
            if name.rpartition(".")[2] in ("blocks", "pose_blocks"):
                cast_matrix_layers(module, dtype)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, S, 3, H, W) -> (B, S, patches, C) tokens of the image encoder."""
        check_views(images, self.encoder.config.patch_size)
        normalised = (images.flatten(0, 1).to(self.image_mean.dtype) - self.image_mean) / self.image_std
        return self.encoder(normalised).patch_tokens.unflatten(0, images.shape[:2])

    def trunk(
        self, patches: Tensor, positions: Tensor, between: Callable[[int, Tensor], Tensor] | None = None
    ) -> Tensor:
        """(B, S, patches, C) -> (B, S, registers + patches, 2C): what the last two blocks give, side by side.

        positions: see `token_positions`; between: what to make of the tokens behind each block, by its number.
        """
        within = planar_rotation(positions, self._head_width, self._rotation_base)
        across = within.repeated(patches.shape[1])
        registers = self.register_token.expand(*patches.shape[:2], -1, -1)
        x = torch.cat([registers, patches.to(registers.dtype)], dim=2).to(matrix_dtype(self.blocks))
        last = []
        for i, block in enumerate(self.blocks):
            x = across_views(block, x, across) if i % 2 else within_views(block, x, within)
            if between is not None:
                x = between(i, x)
            if i >= len(self.blocks) - 2:
                last.append(x)
        return torch.cat(last, dim=-1)
