"""Transformer blocks of the object-level flow models, in both stages: TRELLIS, Amodal3R and GENA3D."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..errors import InputError
from ..nn.blocks import SubLayer, TransformerBlock
from ..nn.layers import AlignedContext, CrossAttention, FeedForward, GatedCrossAttention, SelfAttention
from ..nn.norms import HeadRMSNorm

ADALN = "adaLN_modulation"


@dataclass(frozen=True)
class FlowBlockConfig:
    """Sizes and sub-layers of a block.

    occlusion_attention  Amodal3R: attention to the occluded-ratio tokens after that to the image
    fusion_norm          GENA3D eq. 3: layer norm after the fusion of the views, in the attention to the image
    stereo_attention     GENA3D eq. 4-6: attention to the tokens of the partial cloud; zero at the start of training
    gating               whether that attention is gated (eq. 6)
    aligned_stereo       beyond the paper: each token also gets the partial cloud's token at its own place, for grids
                         that coincide (the frame "observed"); attention first has to learn where to look
    """

    width: int
    context_width: int
    heads: int
    mlp_ratio: float = 4.0
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False
    share_mod: bool = False
    occlusion_attention: bool = False
    fusion_norm: bool = False
    stereo_attention: bool = False
    gating: bool = True
    aligned_stereo: bool = False

    def __post_init__(self) -> None:
        if self.heads < 1:
            raise InputError(f"width {self.width} needs at least one head, got {self.heads}: give num_heads")
        if self.width % self.heads:
            raise InputError(f"width {self.width} is not a multiple of the number of heads {self.heads}")


@dataclass(frozen=True)
class FlowConfig:
    """Sizes of a flow model, in the words of the published configs."""

    resolution: int
    in_channels: int
    model_channels: int
    cond_channels: int
    out_channels: int
    num_blocks: int
    num_heads: int | None = None
    num_head_channels: int = 64
    mlp_ratio: float = 4.0
    patch_size: int = 1
    qk_rms_norm: bool = False
    qk_rms_norm_cross: bool = False

    @property
    def block(self) -> FlowBlockConfig:
        """Config of one block, with those of `BLOCK_OPTIONS` that the model has."""
        return FlowBlockConfig(
            width=self.model_channels,
            context_width=self.cond_channels,
            heads=self.num_heads or self.model_channels // self.num_head_channels,
            mlp_ratio=self.mlp_ratio,
            qk_rms_norm=self.qk_rms_norm,
            qk_rms_norm_cross=self.qk_rms_norm_cross,
            **{name: getattr(self, name) for name in BLOCK_OPTIONS if hasattr(self, name)},
        )


BLOCK_OPTIONS = ("share_mod", "occlusion_attention", "fusion_norm", "stereo_attention", "gating", "aligned_stereo")
"""Fields of `FlowBlockConfig` that not every flow model has."""


def flow_sublayers(config: FlowBlockConfig) -> list[SubLayer]:
    """The residual sub-layers in their order."""
    C, L, H = config.width, config.context_width, config.heads
    self_norm = HeadRMSNorm if config.qk_rms_norm else None
    cross_norm = HeadRMSNorm if config.qk_rms_norm_cross else None
    layers = [
        SubLayer("self_attn", partial(SelfAttention, C, H, qk_norm=self_norm), modulation=ADALN),
        SubLayer(
            "cross_attn",
            partial(CrossAttention, C, L, H, qk_norm=cross_norm, fusion_norm=config.fusion_norm),
            affine_norm=True,
        ),
    ]
    if config.occlusion_attention:
        layers.append(SubLayer("cross_attn_mask", partial(CrossAttention, C, L, H, qk_norm=cross_norm)))
    if config.stereo_attention:
        # Its context are tokens of the flow's own input layer, hence the width.
        kind = GatedCrossAttention if config.gating else CrossAttention
        layers.append(SubLayer("stereo_attn", partial(kind, C, C, H, qk_norm=cross_norm), affine_norm=True))
    if config.aligned_stereo:
        layers.append(SubLayer("aligned_stereo", partial(AlignedContext, C, C)))
    layers.append(SubLayer("mlp", partial(FeedForward, C, config.mlp_ratio), modulation=ADALN))
    return layers


def flow_block(config: FlowBlockConfig) -> TransformerBlock:
    """One block."""
    return TransformerBlock(config.width, flow_sublayers(config), own_modulation=not config.share_mod)
