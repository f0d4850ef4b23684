"""The aggregator of VGGT, whose tokens tell SceneGen where things are.

Source: Wang et al. 2025, VGGT: Visual Geometry Grounded Transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.precision import cast_matrix_layers, matrix_dtype
from ...nn.rotary import planar_rotation
from ..image_encoders.dinov2 import DinoV2, DinoV2Config
from ..image_encoders.patches import normalised_channels
from .views import across_views, check_views, geometry_block, token_positions, within_views

NORM_EPS = 1e-5
"""Epsilon of the layer norms in the aggregator's blocks; those of its image encoder keep 1e-6."""


@dataclass(frozen=True)
class VggtAggregatorConfig:
    """Sizes; the defaults are the published model with 909 million parameters.

    encoder    image encoder of the same width, None: a single patch convolution
    depth      pairs of a block within views and one across views
    registers  tokens added to each view beside the camera token
    rotation_base   see `nn.rotary.planar_rotation`
    """

    width: int = 1024
    patch_size: int = 14
    depth: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    registers: int = 4
    rotation_base: float = 100.0
    encoder: DinoV2Config | None = field(default_factory=DinoV2Config)

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise InputError(f"depth must be at least 1, got {self.depth}")
        if self.width % (4 * self.heads):
            raise InputError(f"{self.heads} heads of a width of {self.width} are not multiples of 4 channels wide")
        given = self.encoder
        if given is not None and (given.embed_dim, given.patch_size) != (self.width, self.patch_size):
            raise InputError(
                f"the encoder's width {given.embed_dim} and patch {given.patch_size} are not the aggregator's "
                f"{self.width} and {self.patch_size}"
            )


class PatchConvolution(nn.Module):
    """Images (P, 3, H, W) to one token a patch (P, patches, C), row by row."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        return self.patch_embed(images).flatten(2).transpose(1, 2)


class VggtAggregator(nn.Module):
    """Views (B, S, 3, H, W), colour in [0, 1] and sides multiples of the patch size, to tokens of scene geometry."""

    def __init__(self, config: VggtAggregatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or VggtAggregatorConfig()
        C = config.width
        self.encoder: DinoV2 | PatchConvolution = (
            PatchConvolution(C, config.patch_size) if config.encoder is None else DinoV2(config.encoder)
        )
        # Entry 0 is for the first view, whose camera is the world's frame, entry 1 for all others.
        self.camera_token = nn.Parameter(torch.zeros(1, 2, 1, C))
        self.register_token = nn.Parameter(torch.zeros(1, 2, config.registers, C))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(
                geometry_block(C, config.heads, config.mlp_ratio, norm_eps=NORM_EPS) for _ in range(config.depth)
            )
            for _ in range(2)
        )

    @property
    def special_tokens(self) -> int:
        """Leading tokens of each view that stand for no patch."""
        return 1 + self.config.registers

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        if isinstance(self.encoder, DinoV2):
            self.encoder.set_precision(dtype)
        for blocks in (self.frame_blocks, self.global_blocks):
            cast_matrix_layers(blocks, dtype)

    def forward(self, images: Tensor, layers: Sequence[int] = (-1,)) -> list[Tensor]:
        """(B, S, camera + registers + patches, 2C) for each of `layers`: what that pair's block within views gave
        beside what its block across views gave.

        layers: numbers of pairs, negative ones from the end. Raises `InputError` for images that are not as the class
        says, or for a pair that there is not.
        """
        config = self.config
        if any(not -config.depth <= layer < config.depth for layer in layers):
            raise InputError(f"layers must be in [{-config.depth}, {config.depth}), got {tuple(layers)}")
        wanted = [layer % config.depth for layer in layers]
        x = self._tokens(images)
        height, width = (side // config.patch_size for side in images.shape[-2:])
        positions = token_positions(self.special_tokens, height, width, images.device)
        within = planar_rotation(positions, config.width // config.heads, config.rotation_base)
        across = within.repeated(images.shape[1])
        found: dict[int, Tensor] = {}
        for i, (frame_block, global_block) in enumerate(zip(self.frame_blocks, self.global_blocks, strict=True)):
            framed = within_views(frame_block, x, within)
            x = across_views(global_block, framed, across)
            if i in wanted:
                found[i] = torch.cat([framed, x], dim=-1).to(self.camera_token.dtype)
        return [found[layer] for layer in wanted]

    def _tokens(self, images: Tensor) -> Tensor:
        """Stream that the first block sees."""
        check_views(images, self.config.patch_size)
        scenes, views = images.shape[:2]
        normalised = normalised_channels(images.flatten(0, 1), 3, self.config.patch_size)
        encoded = self.encoder(normalised.to(self.camera_token.dtype))
        patches = encoded if isinstance(encoded, Tensor) else encoded.patch_tokens
        special = torch.cat([self.camera_token, self.register_token], dim=2)
        rows = torch.ones(views, dtype=torch.long, device=special.device)
        rows[0] = 0
        special = special[:, rows].expand(scenes, -1, -1, -1)
        return torch.cat([special, patches.unflatten(0, (scenes, views))], dim=2).to(matrix_dtype(self.frame_blocks))


def condition_tokens(features: Tensor) -> Tensor:
    """What SceneGen attends to: (..., N, 2C) -> (..., 2N, C), the halves of the channels as tokens of their own."""
    return torch.cat(features.chunk(2, dim=-1), dim=-2)
