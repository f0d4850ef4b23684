"""A small trainable encoder for the edge checkpoint: convolutions, then a few transformer blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.blocks import SubLayer, TransformerBlock
from ...nn.initialisation import xavier
from ...nn.layers import FeedForward, SelfAttention
from ...nn.norms import ChannelLayerNorm32, LayerNorm32
from ...nn.precision import cast_matrix_layers, matrix_dtype
from .patches import normalised_channels, resized_positions


@dataclass(frozen=True)
class SmallEncoderConfig:
    """Sizes; the defaults give 49 tokens of 192 channels from 112 pixels, with 2.1 million parameters.

    in_channels  3: colour; 4: and the visible mask; 5: and the occluded mask
    stem         channels of the strided convolutions before the last one, which has `width`; each halves the sides
    """

    image_size: int = 112
    in_channels: int = 4
    stem: tuple[int, ...] = (32, 64, 128)
    width: int = 192
    depth: int = 4
    heads: int = 6
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if not 3 <= self.in_channels <= 5:
            raise InputError(f"in_channels must be 3, 4 or 5, got {self.in_channels}")
        if self.image_size % self.stride or self.image_size <= 0:
            raise InputError(f"image_size {self.image_size} is not a multiple of the stem's stride {self.stride}")
        if self.width % self.heads:
            raise InputError(f"width {self.width} is not a multiple of the number of heads {self.heads}")

    @property
    def stride(self) -> int:
        """Pixels along a side of a token."""
        return 2 ** (len(self.stem) + 1)


class SmallEncoder(nn.Module):
    """Crops (P, in_channels or more, S, S) to tokens (P, (S / stride)², width), row by row."""

    special_tokens = 0

    def __init__(self, config: SmallEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallEncoderConfig()
        C, side = config.width, config.image_size // config.stride
        layers: list[nn.Module] = []
        channels = config.in_channels
        for wider in config.stem:
            # Normed per pixel: the result for one crop must not depend on the others of its batch.
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), ChannelLayerNorm32(wider), nn.GELU()]
            channels = wider
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, C, 3, stride=2, padding=1))
        self.pos_embed = nn.Parameter(torch.zeros(1, side**2, C))
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.depth))
        self.norm = LayerNorm32(C)

    @property
    def image_size(self) -> int:
        """Side of the crops that the position table is for."""
        return self.config.image_size

    @property
    def in_channels(self) -> int:
        """Leading channels that are read."""
        return self.config.in_channels

    @property
    def width(self) -> int:
        """Channels of the tokens."""
        return self.config.width

    def initialise(self) -> None:
        """Fresh parameters for training."""
        xavier(self)
        for layer in self.stem:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        cast_matrix_layers(self.blocks, dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of crops as `ImageEncoder.encode` describes them; other sizes get resized positions."""
        channels = normalised_channels(images, self.in_channels, self.config.stride)
        grid = self.stem(channels.to(self.pos_embed.dtype))
        positions = resized_positions(self.pos_embed, *grid.shape[-2:])
        tokens = (grid.flatten(2).transpose(1, 2) + positions).to(matrix_dtype(self.blocks))
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens.to(self.norm.weight.dtype))

    def encode(self, images: Tensor) -> Tensor:
        """The same as calling the module (see `ImageEncoder.encode`)."""
        return self(images)


def _block(config: SmallEncoderConfig) -> TransformerBlock:
    C = config.width
    return TransformerBlock(
        C,
        [
            SubLayer("attn", partial(SelfAttention, C, config.heads), affine_norm=True),
            SubLayer("mlp", partial(FeedForward, C, config.mlp_ratio), affine_norm=True),
        ],
    )
