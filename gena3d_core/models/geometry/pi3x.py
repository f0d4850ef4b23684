"""π³X: π³ with smoother maps, a guess of the metric scale, and whatever is known of the cameras as a help.

Source: the release of π³X by the authors of Wang et al. 2025 (see `pi3`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ...errors import InputError
from ...nn.rotary import planar_rotation
from ..image_encoders.dinov2 import DinoV2, DinoV2Config
from .camera_attention import CameraFrames, PoseInjection, camera_frames
from .heads import CameraHead, TokenDecoder
from .metric_scale import MetricScale
from .pi3 import Pi3Config, ViewGeometry
from .priors import KnownGeometry, NormalisedPriors, normalised_priors
from .trunk import GeometryTrunk
from .upsampling_head import UpsamplingHead
from .views import token_positions

MAX_LOG_DEPTH = 15.0


@dataclass(frozen=True)
class Pi3XConfig(Pi3Config):
    """Sizes; the defaults are the published model with 1360 million parameters. The first fields: see `Pi3Config`.

    pose_layers      numbers of the blocks behind which known poses are told, each with a block of its own
    head_channels    of the feature maps of the two heads
    metric_width, metric_heads   of the decoder that guesses the scale
    """

    pose_layers: tuple[int, ...] = (1, 9, 17, 25, 33)
    head_channels: tuple[int, ...] = (256, 128, 64)
    metric_width: int = 512
    metric_heads: int = 8
    encoder: DinoV2Config = field(default_factory=lambda: DinoV2Config(mask_token=False))

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 <= layer < self.depth for layer in self.pose_layers):
            raise InputError(f"pose_layers must be blocks in [0, {self.depth}), got {self.pose_layers}")


@dataclass(frozen=True)
class MetricViewGeometry(ViewGeometry):
    """`ViewGeometry` in metres, as far as the network can guess them: `metres_per_unit` (B,) is applied already."""

    metres_per_unit: Tensor


class Pi3X(GeometryTrunk):
    """Views (B, S, 3, H, W), colour in [0, 1] and sides multiples of the patch size, to `MetricViewGeometry`."""

    takes_known = True
    """Can be told what is known of the views; its lengths are about metres."""

    def __init__(self, config: Pi3XConfig | None = None) -> None:
        config = config or Pi3XConfig()
        super().__init__(config.encoder, config.depth, config.heads, config.registers, config.rotation_base)
        self.config = config
        patch, C = config.encoder.patch_size, config.encoder.embed_dim
        self.depth_encoder = DinoV2(replace(config.encoder, image_channels=2))
        self.depth_emb = nn.Parameter(torch.zeros(1, 1, C))
        self.ray_embed = nn.Conv2d(2, C, patch, stride=patch)
        self.pose_blocks = nn.ModuleList(PoseInjection(C, config.heads) for _ in config.pose_layers)
        self.point_decoder, self.conf_decoder = self._decoder(config.head_width), self._decoder(config.head_width)
        self.camera_decoder = self._decoder(config.camera_width)
        self.point_head = UpsamplingHead(config.head_width, (2, 1), patch, config.head_channels)
        self.conf_head = UpsamplingHead(config.head_width, (1,), patch, config.head_channels)
        self.camera_head = CameraHead(config.camera_width)
        self.metric = MetricScale(2 * C, config.metric_width, config.head_depth, config.metric_heads)

    def _decoder(self, out_width: int) -> TokenDecoder:
        config = self.config
        return TokenDecoder(
            2 * config.encoder.embed_dim, config.head_width, out_width, config.head_depth, config.head_heads
        )

    def forward(
        self,
        images: Tensor,
        T_world_camera: Tensor | None = None,
        rays: Tensor | None = None,
        depth_m: Tensor | None = None,
    ) -> MetricViewGeometry:
        """What is known of the views: see `KnownGeometry`. Raises `InputError` for shapes that are not as described."""
        config, patches = self.config, self.patch_tokens(images)
        height, width = (side // config.encoder.patch_size for side in images.shape[-2:])
        positions = token_positions(config.registers, height, width, images.device)
        priors = normalised_priors(KnownGeometry(T_world_camera, rays, depth_m), images)
        tell = None
        if priors is not None:
            patches = patches + self._prior_tokens(priors)
            if priors.posed.any():
                head = config.encoder.embed_dim // config.heads
                frames = camera_frames(priors.T_world_camera, priors.posed, height, width, head)
                tell = self._pose_teller(frames, priors.posed)
        tokens = self.trunk(patches, positions, tell)
        rotation = planar_rotation(positions, config.head_width // config.head_heads, config.rotation_base)
        points, confidence, camera = (
            decoder(tokens, rotation)[:, :, config.registers :]
            for decoder in (self.point_decoder, self.conf_decoder, self.camera_decoder)
        )
        ray, log_depth = self.point_head(points, height, width)
        depth = log_depth.clamp(max=MAX_LOG_DEPTH).exp()
        poses = self.camera_head(camera)
        metres = self._metres(tokens, positions)
        scale = torch.ones_like(poses)
        scale[..., :3, 3] = metres[:, None, None]
        return MetricViewGeometry(
            local_points=torch.cat([ray * depth, depth], dim=-1) * metres[:, None, None, None, None],
            confidence_logit=self.conf_head(confidence, height, width)[0].squeeze(-1),
            T_world_camera=poses * scale,
            metres_per_unit=metres,
        )

    def _metres(self, tokens: Tensor, positions: Tensor) -> Tensor:
        head = self.config.metric_width // self.config.metric_heads
        rotation = planar_rotation(positions, head, self.config.rotation_base).repeated(tokens.shape[1])
        return self.metric(tokens.flatten(1, 2), rotation)

    def _prior_tokens(self, priors: NormalisedPriors) -> Tensor:
        """(B, S, patches, C) to be added to the tokens of the images."""
        shape, device = priors.measured.shape, priors.depth.device
        found = torch.zeros(1, device=device)
        if priors.measured.any():
            depth = priors.depth.flatten(0, 1)[:, None]
            encoded = self.depth_encoder(torch.cat([depth, (depth > 0).to(depth.dtype)], dim=1)).patch_tokens
            found = found + (encoded + self.depth_emb).unflatten(0, shape) * priors.measured[..., None, None]
        if priors.calibrated.any():
            rays = self.ray_embed(priors.rays.flatten(0, 1).movedim(-1, 1)).flatten(2).mT
            found = found + rays.unflatten(0, shape) * priors.calibrated[..., None, None]
        return found

    def _pose_teller(self, frames: CameraFrames, posed: Tensor) -> Callable[[int, Tensor], Tensor]:
        """What tells poses to the patches of `posed` views (B, S) behind the blocks of `pose_layers`."""
        registers, layers = self.config.registers, self.config.pose_layers

        def tell(number: int, x: Tensor) -> Tensor:
            if number not in layers:
                return x
            patches = x[:, :, registers:]
            change = self.pose_blocks[layers.index(number)](patches.flatten(1, 2), frames).view(patches.shape)
            return torch.cat([x[:, :, :registers], patches + change * posed[..., None, None]], dim=2)

        return tell
