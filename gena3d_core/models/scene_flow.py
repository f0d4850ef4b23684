"""SceneGen's sparse-structure flow: velocities of all assets of a scene together, and tokens that tell their poses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.embeddings import TimestepEmbedder, absolute_position_embedding
from ..nn.initialisation import initialise_transformer, zero
from ..nn.norms import LayerNorm32
from ..nn.precision import cast_matrix_layers, matrix_dtype
from .conditioning import Contexts
from .flow_blocks import FlowConfig
from .position_head import PositionHead, PositionHeadConfig
from .scene_blocks import ADALN_GLOBAL, scene_block
from .scene_hints import CROP_SIDE, AlignedCropEmbedding, MaskBoxEmbedding, SceneHints, no_hints
from .sparse_structure_flow import patchify, unpatchify

OFFICIAL_ASSET_TOKENS = 1374
"""Class token, four registers and 37² patches of a DINOv2 image of 518² pixels."""


@dataclass(frozen=True)
class SceneFlowConfig(FlowConfig):
    """Sizes, in the words of the published configs.

    trunk_depth    blocks of the position head
    num_iteration  refinements of the poses
    asset_tokens   leading tokens of an asset's context that show the asset itself: all that local attention sees
    fusion_norm    GENA3D's layer norm after the attention to an asset's image, for models that start from one
    joint_assets   whether the scene's self-attention joins its assets; False: each attends to itself (an ablation)
    mask_boxes, aligned_crops   whether position tokens start from where the masks lie in the image, and latent tokens
                   from the pixels in front of them (`scene_hints`): ours, since few scenes do not teach a network to
                   measure in features
    """

    num_register_tokens: int = 4
    trunk_depth: int = 4
    num_iteration: int = 4
    asset_tokens: int = OFFICIAL_ASSET_TOKENS
    fusion_norm: bool = False
    joint_assets: bool = True
    mask_boxes: bool = False
    aligned_crops: bool = False

    def __post_init__(self) -> None:
        if self.resolution % self.patch_size:
            raise InputError(f"resolution {self.resolution} is not a multiple of patch_size {self.patch_size}")
        if self.aligned_crops and CROP_SIDE % (self.resolution // self.patch_size):
            raise InputError(f"aligned_crops: {self.resolution // self.patch_size} tokens do not divide {CROP_SIDE}")

    @property
    def special_tokens(self) -> int:
        """The position token and the registers."""
        return 1 + self.num_register_tokens

    @property
    def head(self) -> PositionHeadConfig:
        """Config of the position head."""
        return PositionHeadConfig(self.model_channels, self.block.heads, self.trunk_depth, self.mlp_ratio)


@dataclass(frozen=True)
class SceneCondition:
    """Condition of S scenes of A assets each.

    tokens  (S·A, L, C_context): first the image tokens of the asset itself, then others of its own (its mask)
    shared  (S, M, C_context) that all assets of the scene see after their own (the scene's image and geometry), or None
    hints   of the S·A assets, or None: not known
    """

    tokens: Tensor
    shared: Tensor | None = None
    hints: SceneHints | None = None


class SceneFlow(nn.Module):
    """Velocity of x (S·A, C_in, R, R, R), S scenes of A assets in neighbouring rows, and their position tokens."""

    pos_emb: Tensor
    blocks: Any  # a ModuleList of TransformerBlock, whose items mypy cannot know

    def __init__(self, config: SceneFlowConfig) -> None:
        super().__init__()
        self.config = config
        C, cells = config.model_channels, config.patch_size**3
        axis = torch.arange(config.resolution // config.patch_size)
        # Row 0 is for query assets, row 1 for all others.
        self.position_token = nn.Parameter(torch.randn(2, 1, C))
        self.register_token = nn.Parameter(torch.randn(2, config.num_register_tokens, C))
        self.register_buffer("pos_emb", absolute_position_embedding(torch.cartesian_prod(axis, axis, axis), C))
        self.t_embedder = TimestepEmbedder(C)
        self.input_layer = nn.Linear(config.in_channels * cells, C)
        self.blocks = nn.ModuleList(scene_block(config.block, config.special_tokens) for _ in range(config.num_blocks))
        self.out_norm = LayerNorm32(C, eps=1e-5, elementwise_affine=False)
        self.out_layer = nn.Linear(C, config.out_channels * cells)
        self.position_head = PositionHead(config.head)
        self.mask_boxes = MaskBoxEmbedding(C) if config.mask_boxes else None
        self.aligned_crops = AlignedCropEmbedding(C, len(axis)) if config.aligned_crops else None

    def initialise(self) -> None:
        """Fresh parameters for training; the parts that stage 1 of TRELLIS lacks as SceneGen starts them."""
        initialise_transformer(self)
        zero(self.out_layer)
        for block in self.blocks:
            nn.init.normal_(block.modulations[ADALN_GLOBAL][1].weight, std=0.02)
            for name in ("global_attn", "global_cross_attn"):
                for part, layer in block.operations[name].named_children():
                    if isinstance(layer, nn.Linear):
                        nn.init.normal_(layer.bias, std=0.1 if part == "to_kv" else 0.2)
        nn.init.normal_(self.position_token)
        nn.init.normal_(self.register_token)
        self.position_head.initialise()
        for hint in (self.mask_boxes, self.aligned_crops):
            if hint is not None:
                hint.initialise()

    def set_precision(self, dtype: torch.dtype) -> None:
        """Compute the matrix products of the blocks and of the head's trunk in `dtype`; the rest stays in float32."""
        cast_matrix_layers(self.blocks, dtype)
        self.position_head.set_precision(dtype)

    def contexts(self, condition: SceneCondition) -> Contexts:
        """Keys and values of the condition for every block: they do not change along the sampling path."""
        local = condition.tokens[:, : self.config.asset_tokens]
        if local.shape[1] < self.config.asset_tokens:
            raise InputError(f"an asset needs {self.config.asset_tokens} tokens of its own, got {local.shape[1]}")
        if condition.shared is not None and len(condition.tokens) % len(condition.shared):
            raise InputError(f"{len(condition.tokens)} assets do not fit {len(condition.shared)} scenes of equal size")
        return [
            {
                "cross_attn": block.operations["cross_attn"].project(local),
                "global_cross_attn": block.operations["global_cross_attn"].project(
                    condition.tokens, shared=condition.shared
                ),
            }
            for block in self.blocks
        ]

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        contexts: Contexts,
        *,
        assets: int,
        query: Tensor | None = None,
        hints: SceneHints | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Velocity like x (S·A, C_out, R, R, R) and position tokens (S·A, C), both float32.

        t (S·A,) as the sampler gives it (1000 times the flow time); contexts as `contexts` made them; assets is A;
        query (S·A,) bool, one row per scene: the asset in whose frame the poses are; None: the first of each scene.
        hints: those of the condition; without effect unless the config has a use for them.
        """
        self._check(x, assets, query)
        dtype, special = matrix_dtype(self.blocks), self.config.special_tokens
        latent = self.input_layer(patchify(x.to(self.input_layer.weight), self.config.patch_size)) + self.pos_emb
        query = first_assets(x, assets) if query is None else query
        special_tokens, hints = self._special_tokens(query), hints or no_hints(len(x), latent)
        if self.mask_boxes is not None:
            special_tokens[:, 0] += self.mask_boxes(hints.boxes, query)
        if self.aligned_crops is not None:
            latent = latent + self.aligned_crops(hints.crops)
        h = torch.cat([special_tokens, latent], dim=1).to(dtype)
        embedding = self.t_embedder(t).to(dtype)
        joined = assets if self.config.joint_assets else 1
        for block, context in zip(self.blocks, contexts, strict=True):
            h = block(h, embedding, {**context, "global_attn": joined})
        velocity = self.out_layer(self.out_norm(h[:, special:].float()))
        return unpatchify(velocity, self.config.patch_size), h[:, 0].float()

    def poses(self, position_tokens: Tensor, *, query: Tensor | None = None) -> Tensor:
        """Poses (B, 8) of position tokens (B, C), rows [t, quat_wxyz, s]: see `PositionHead`."""
        return self.position_head(position_tokens, iterations=self.config.num_iteration, query=query)

    def _special_tokens(self, query: Tensor) -> Tensor:
        """(B, 1 + R, C) tokens in front of the latent ones."""
        return torch.cat([self.position_token, self.register_token], dim=1)[(~query).long()]

    def _check(self, x: Tensor, assets: int, query: Tensor | None) -> None:
        R = self.config.resolution
        if x.shape[1:] != (self.config.in_channels, R, R, R):
            raise InputError(f"x must be (B, {self.config.in_channels}, {R}, {R}, {R}), got {tuple(x.shape)}")
        if assets < 1 or len(x) % assets:
            raise InputError(f"x has {len(x)} rows, which are no scenes of {assets} assets")
        if query is None:
            return
        fits = query.shape == x.shape[:1] and query.dtype == torch.bool
        if not fits or not bool((query.view(-1, assets).sum(dim=1) == 1).all()):
            raise InputError("every scene has one query asset: query must be (S·A,) bool with one True per scene")


def first_assets(x: Tensor, assets: int) -> Tensor:
    """(S·A,) bool, on the device of x (S·A, ...): the first asset of each scene."""
    return torch.arange(len(x), device=x.device) % assets == 0
