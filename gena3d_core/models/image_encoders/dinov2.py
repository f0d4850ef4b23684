"""DINOv2 with registers: the image encoder of TRELLIS, Amodal3R, SceneGen and π³.

Sources: Oquab et al. 2023 (DINOv2), Darcet et al. 2023 (registers).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from ...nn.blocks import SubLayer, TransformerBlock
from ...nn.layers import FeedForward, SelfAttention
from ...nn.norms import BLOCK_EPS, LayerNorm32
from ...nn.precision import cast_matrix_layers, matrix_dtype
from .patches import check_images, normalised_channels, resized_positions


class SwiGLU(nn.Module):
    """Gated feed-forward (Shazeer 2020): silu of one half of the hidden channels times the other."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        # Two thirds of the hidden width, in eights: as many parameters as the plain feed-forward has.
        hidden = (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


FEED_FORWARDS: dict[str, Callable[[int, float], nn.Module]] = {
    "mlp": partial(FeedForward, exact_gelu=True),
    "swiglu": SwiGLU,
    "swiglufused": SwiGLU,
}


@dataclass(frozen=True)
class DinoV2Config:
    """Sizes in the words of the published class; the defaults are ViT-L/14 with four registers at 518 pixels.

    init_values             start of the LayerScale gains; None or 0: no gains
    interpolate_antialias, interpolate_offset   how positions are resized for other image sizes
    ffn_layer               'mlp', or 'swiglu' (the giant model; 'swiglufused' computes the same)
    mask_token              whether there is the token that stood for hidden patches in training (not read here)
    image_channels          channels of the images: 3, colour, but for encoders of other maps
    """

    img_size: int = 518
    patch_size: int = 14
    embed_dim: int = 1024
    depth: int = 24
    num_heads: int = 16
    mlp_ratio: float = 4.0
    num_register_tokens: int = 4
    init_values: float | None = 1.0
    interpolate_antialias: bool = True
    interpolate_offset: float = 0.0
    ffn_layer: str = "mlp"
    mask_token: bool = True
    image_channels: int = 3

    def __post_init__(self) -> None:
        if self.img_size % self.patch_size:
            raise InputError(f"img_size {self.img_size} is not a multiple of patch_size {self.patch_size}")
        if self.embed_dim % self.num_heads:
            raise InputError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        if self.ffn_layer not in FEED_FORWARDS:
            raise InputError(f"ffn_layer must be one of {', '.join(FEED_FORWARDS)}, got '{self.ffn_layer}'")


@dataclass(frozen=True)
class DinoV2Features:
    """Tokens of P images: class token, `registers` registers, patches row by row.

    prenorm  (P, 1 + registers + patches, C) stream before the final norm
    norm     the same after it
    """

    prenorm: Tensor
    norm: Tensor
    registers: int

    @property
    def condition_tokens(self) -> Tensor:
        """(P, 1 + registers + patches, C) float32: the stream normed without parameters, which generators attend to."""
        return F.layer_norm(self.prenorm.float(), self.prenorm.shape[-1:])

    @property
    def class_token(self) -> Tensor:
        """(P, C), after the final norm."""
        return self.norm[:, 0]

    @property
    def register_tokens(self) -> Tensor:
        """(P, registers, C), after the final norm."""
        return self.norm[:, 1 : 1 + self.registers]

    @property
    def patch_tokens(self) -> Tensor:
        """(P, patches, C), after the final norm."""
        return self.norm[:, 1 + self.registers :]


class DinoV2(nn.Module):
    """Vision transformer on images (P, 3, H, W) that are already normalised (see `encode` for those in [0, 1])."""

    in_channels = 3

    def __init__(self, config: DinoV2Config | None = None) -> None:
        super().__init__()
        self.config = config = config or DinoV2Config()
        C, side = config.embed_dim, config.img_size // config.patch_size
        self.patch_embed = nn.Conv2d(config.image_channels, C, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, C))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side**2, C))
        count = config.num_register_tokens
        self.register_tokens = nn.Parameter(torch.zeros(1, count, C)) if count else None
        self.mask_token = nn.Parameter(torch.zeros(1, C)) if config.mask_token else None
        self.blocks = nn.ModuleList(dinov2_block(config) for _ in range(config.depth))
        self.norm = LayerNorm32(C, eps=BLOCK_EPS)

    @property
    def image_size(self) -> int:
        """Side of the images that the position table is for."""
        return self.config.img_size

    @property
    def width(self) -> int:
        """Channels of the tokens."""
        return self.config.embed_dim

    @property
    def special_tokens(self) -> int:
        """Class token and registers."""
        return 1 + self.config.num_register_tokens

    def initialise(self) -> None:
        """Fresh parameters, for tests and for sizes that nobody published."""
        for name, parameter in self.named_parameters():
            if ".gains." in name:
                nn.init.constant_(parameter, self.config.init_values or 1.0)
            elif parameter.ndim > 1:
                nn.init.trunc_normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        cast_matrix_layers(self.blocks, dtype)

    def positions(self, height: int, width: int) -> Tensor:
        """(1, 1 + height · width, C): position of the class token, then of a grid of height x width patches."""
        patches = resized_positions(
            self.pos_embed[:, 1:],
            height,
            width,
            antialias=self.config.interpolate_antialias,
            offset=self.config.interpolate_offset,
        )
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)

    def forward(self, images: Tensor) -> DinoV2Features:
        """images (P, 3, H, W), sides multiples of the patch size, normalised by ImageNet's statistics."""
        channels = self.config.image_channels
        check_images(images, channels, self.config.patch_size)
        patches = self.patch_embed(images[:, :channels].to(self.patch_embed.weight.dtype))
        height, width = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.positions(height, width)
        if self.register_tokens is not None:
            # Registers come in after the positions are added: they have none.
            registers = self.register_tokens.expand(len(tokens), -1, -1)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        tokens = tokens.to(matrix_dtype(self.blocks))
        for block in self.blocks:
            tokens = block(tokens)
        tokens = tokens.to(self.norm.weight.dtype)
        return DinoV2Features(tokens, self.norm(tokens), self.config.num_register_tokens)

    def encode(self, images: Tensor) -> Tensor:
        """Crops (P, 3 or more, S, S), colour in [0, 1] -> (P, L, C) condition tokens (see `ImageEncoder.encode`)."""
        return self(normalised_channels(images, self.in_channels, self.config.patch_size)).condition_tokens


def dinov2_block(config: DinoV2Config) -> TransformerBlock:
    """Self-attention and a feed-forward (with exact GELU), both behind LayerScale gains."""
    C, gain = config.embed_dim, bool(config.init_values)
    return TransformerBlock(
        C,
        [
            SubLayer("attn", partial(SelfAttention, C, config.num_heads), affine_norm=True, gain=gain),
            SubLayer("mlp", partial(FEED_FORWARDS[config.ffn_layer], C, config.mlp_ratio), affine_norm=True, gain=gain),
        ],
    )
