"""π³: points, confidence and camera poses from any number of views, whatever their order.

Source: Wang et al. 2025, π³: Permutation-Equivariant Visual Geometry Learning.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...errors import InputError
from ...nn.rotary import planar_rotation
from ..image_encoders.dinov2 import DinoV2Config
from .heads import CameraHead, PixelHead, TokenDecoder
from .trunk import GeometryTrunk
from .views import token_positions


@dataclass(frozen=True)
class Pi3Config:
    """Sizes; the defaults are the published model with 959 million parameters.

    encoder     the image encoder, whose width is that of the trunk
    depth, heads          trunk: even blocks attend within a view, odd ones across all views
    head_width, head_depth, head_heads   the three decoders behind it
    camera_width          channels of the camera head
    registers             tokens added to each view
    rotation_base         see `nn.rotary.planar_rotation`
    """

    encoder: DinoV2Config = field(default_factory=lambda: DinoV2Config(mask_token=False))
    depth: int = 36
    heads: int = 16
    head_width: int = 1024
    head_depth: int = 5
    head_heads: int = 16
    camera_width: int = 512
    registers: int = 5
    rotation_base: float = 100.0

    def __post_init__(self) -> None:
        if self.depth < 2:
            raise InputError(f"depth must be at least 2, got {self.depth}: the last two blocks make the result")
        for name, width, heads in (
            ("heads", self.encoder.embed_dim, self.heads),
            ("head_heads", self.head_width, self.head_heads),
        ):
            if width % (4 * heads):
                raise InputError(f"{name}: {heads} heads of a width of {width} are not multiples of 4 channels wide")


@dataclass(frozen=True)
class ViewGeometry:
    """B scenes of S views, H x W pixels each; lengths in a unit that the network chooses for each scene.

    local_points      (B, S, H, W, 3) in the frame of the view's camera (OpenCV axes)
    confidence_logit  (B, S, H, W)
    T_world_camera    (B, S, 4, 4) camera to world; which frame is the world is the network's choice too
    """

    local_points: Tensor
    confidence_logit: Tensor
    T_world_camera: Tensor

    @property
    def points(self) -> Tensor:
        """(B, S, H, W, 3) in the world's frame."""
        rotation, translation = self.T_world_camera[..., :3, :3], self.T_world_camera[..., :3, 3]
        return torch.einsum("bsij,bshwj->bshwi", rotation, self.local_points) + translation[:, :, None, None]

    @property
    def confidence(self) -> Tensor:
        """(B, S, H, W) in [0, 1]."""
        return torch.sigmoid(self.confidence_logit)


class Pi3(GeometryTrunk):
    """Views (B, S, 3, H, W), colour in [0, 1] and sides multiples of the patch size, to `ViewGeometry`."""

    def __init__(self, config: Pi3Config | None = None) -> None:
        config = config or Pi3Config()
        super().__init__(config.encoder, config.depth, config.heads, config.registers, config.rotation_base)
        self.config = config
        patch = config.encoder.patch_size
        self.point_decoder = self._decoder(config.head_width)
        self.point_head = PixelHead(config.head_width, 3, patch)
        self.conf_decoder = self._decoder(config.head_width)
        self.conf_head = PixelHead(config.head_width, 1, patch)
        self.camera_decoder = self._decoder(config.camera_width)
        self.camera_head = CameraHead(config.camera_width)

    def _decoder(self, out_width: int) -> TokenDecoder:
        config = self.config
        return TokenDecoder(
            2 * config.encoder.embed_dim, config.head_width, out_width, config.head_depth, config.head_heads
        )

    def forward(self, images: Tensor) -> ViewGeometry:
        """Raises `InputError` for images that are not as the class says."""
        config, patches = self.config, self.patch_tokens(images)
        height, width = (side // config.encoder.patch_size for side in images.shape[-2:])
        positions = token_positions(config.registers, height, width, images.device)
        tokens = self.trunk(patches, positions)
        rotation = planar_rotation(positions, config.head_width // config.head_heads, config.rotation_base)
        points, confidence, camera = (
            decoder(tokens, rotation)[:, :, config.registers :]
            for decoder in (self.point_decoder, self.conf_decoder, self.camera_decoder)
        )
        ray, log_depth = self.point_head(points, height, width).float().split([2, 1], dim=-1)
        depth = log_depth.exp()
        return ViewGeometry(
            local_points=torch.cat([ray * depth, depth], dim=-1),
            confidence_logit=self.conf_head(confidence, height, width).float().squeeze(-1),
            T_world_camera=self.camera_head(camera),
        )
