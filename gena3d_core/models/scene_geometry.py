"""Where things are in a scene: tokens of its geometry from all of its views (SceneGen's F_geo).

Two encoders: VGGT's aggregator, as published, and a small one that learns with the scene flow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from ..nn.initialisation import xavier
from ..nn.norms import ChannelLayerNorm32, LayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from ..nn.rotary import planar_rotation
from .geometry.vggt import VggtAggregator, condition_tokens
from .geometry.views import across_views, check_views, geometry_block, token_positions, within_views
from .image_encoders.patches import normalised_channels

TOKEN_STD = 0.02


class SceneGeometryEncoder(Protocol):
    """What SceneGen needs of a geometry encoder.

    width  channels of its tokens
    """

    @property
    def width(self) -> int: ...

    def encode(self, images: Tensor, instances: Tensor | None = None) -> Tensor:
        """Views of S scenes -> tokens (S, K, M, width), which attend across all K views of their scene.

        images (S, K, 3, G, G) in [0, 1], as `views.object_crops.geometry_image` prepares them; instances (S, K, G, G)
        integers beside them, 0 = no asset: which pixels belong together. Numbers of assets mean nothing beyond that.
        An encoder may do without; None: not known. Raises `InputError` for shapes that do not fit.
        """
        ...


@dataclass(frozen=True)
class VggtSceneGeometry:
    """VGGT's aggregator as SceneGen uses it: both halves of its last features as tokens; it sees no instances."""

    aggregator: VggtAggregator

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        return self.aggregator.config.width

    def encode(self, images: Tensor, instances: Tensor | None = None) -> Tensor:
        """See `SceneGeometryEncoder.encode`."""
        return condition_tokens(self.aggregator(images)[0])


@dataclass(frozen=True)
class SmallSceneGeometryConfig:
    """Sizes; the defaults give 54 tokens of 192 channels from 112 pixels, with 3.0 million parameters.

    stem       channels of the strided convolutions before the last one, which has `width`; each halves the sides
    depth      pairs of a block within views and one across views
    registers  tokens of each view beside that of its camera
    out_width  channels of the tokens: those of the flow's context; None: `width`
    """

    stem: tuple[int, ...] = (32, 64, 128)
    width: int = 192
    depth: int = 3
    heads: int = 6
    mlp_ratio: float = 4.0
    registers: int = 4
    out_width: int | None = None
    rotation_base: float = 100.0

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise InputError(f"depth must be at least 1, got {self.depth}")
        if self.width % (4 * self.heads):
            raise InputError(f"{self.heads} heads of a width of {self.width} are not multiples of 4 channels wide")

    @property
    def stride(self) -> int:
        """Pixels along a side of a token."""
        return 2 ** (len(self.stem) + 1)


class SmallSceneGeometry(nn.Module):
    """A trainable `SceneGeometryEncoder`: convolutions over colour and outlines, then VGGT's alternating attention."""

    def __init__(self, config: SmallSceneGeometryConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SmallSceneGeometryConfig()
        C, channels = config.width, 5
        layers: list[nn.Module] = []
        for wider in config.stem:
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), ChannelLayerNorm32(wider), nn.GELU()]
            channels = wider
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, C, 3, stride=2, padding=1))
        # As in VGGT, entry 0 is for the first view, entry 1 for all others.
        self.special_token = nn.Parameter(torch.zeros(2, 1 + config.registers, C))
        self.frame_blocks, self.global_blocks = (
            nn.ModuleList(geometry_block(C, config.heads, config.mlp_ratio) for _ in range(config.depth))
            for _ in range(2)
        )
        self.norm = LayerNorm32(C)
        self.out_layer = nn.Linear(C, self.width)

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        return self.config.out_width or self.config.width

    def initialise(self) -> None:
        """Fresh parameters for training."""
        xavier(self)
        for layer in self.stem:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.trunc_normal_(self.special_token, std=TOKEN_STD)

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the blocks' matrix products in `dtype`; the layers around them stay in float32."""
        for blocks in (self.frame_blocks, self.global_blocks):
            cast_matrix_layers(blocks, dtype)

    def forward(self, images: Tensor, instances: Tensor | None = None) -> Tensor:
        """See `SceneGeometryEncoder.encode`; M = 1 + registers + (G / stride)², special tokens first."""
        config = self.config
        check_views(images, config.stride)
        scenes, views = images.shape[:2]
        channels = torch.cat([images, outline_channels(images, instances)], dim=2).flatten(0, 1)
        grid = self.stem(normalised_channels(channels, 5, config.stride).to(self.special_token.dtype))
        patches = grid.flatten(2).transpose(1, 2).unflatten(0, (scenes, views))
        rows = torch.arange(views, device=images.device).clamp_max(1)
        special = self.special_token[rows].expand(scenes, -1, -1, -1)
        x = torch.cat([special, patches], dim=2).to(matrix_dtype(self.frame_blocks))
        positions = token_positions(special.shape[2], grid.shape[-2], grid.shape[-1], images.device)
        within = planar_rotation(positions, config.width // config.heads, config.rotation_base)
        across = within.repeated(views)
        for frame_block, global_block in zip(self.frame_blocks, self.global_blocks, strict=True):
            x = across_views(global_block, within_views(frame_block, x, within), across)
        return self.out_layer(self.norm(x.to(self.norm.weight.dtype)))

    def encode(self, images: Tensor, instances: Tensor | None = None) -> Tensor:
        """The same as calling the module."""
        return self(images, instances)


def outline_channels(images: Tensor, instances: Tensor | None) -> Tensor:
    """(S, K, 2, G, G): where any asset is, and where one borders on something else; zeros for no instances.

    The same however the assets are numbered.
    """
    scenes, views, _, height, width = images.shape
    if instances is None:
        return images.new_zeros(scenes, views, 2, height, width)
    if instances.shape != (scenes, views, height, width):
        raise InputError(f"instances must be {(scenes, views, height, width)}, got {tuple(instances.shape)}")
    ids = instances.flatten(0, 1).to(torch.float32)[:, None]
    highest, lowest = F.max_pool2d(ids, 3, 1, 1), -F.max_pool2d(-ids, 3, 1, 1)
    found = torch.cat([ids > 0, (highest != lowest) & (highest > 0)], dim=1)
    return found.to(images.dtype).unflatten(0, (scenes, views))


def scene_geometry_encoder(module: Any) -> SceneGeometryEncoder:
    """The encoder that a checkpoint's `scene_geometry` network is; raises `InputError` for a network that is none."""
    if isinstance(module, VggtAggregator):
        return VggtSceneGeometry(module)
    if not hasattr(module, "encode") or not hasattr(module, "width"):
        raise InputError(f"a {type(module).__name__} is no encoder of scene geometry")
    return module
