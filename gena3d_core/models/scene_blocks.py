"""Transformer blocks of SceneGen: local attention inside each asset, then attention over the whole scene.

The stream (S·A, N, C) holds S scenes of A assets each, the assets of a scene in neighbouring rows; the first tokens
of each row are special ones (position and registers), which only the scene's attentions read and write.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.blocks import SubLayer, TransformerBlock
from ..nn.layers import Context, CrossAttention, SelfAttention
from ..nn.norms import HeadRMSNorm
from .flow_blocks import FlowBlockConfig, flow_sublayers

ADALN_GLOBAL = "adaLN_modulation_global"


@dataclass(frozen=True)
class SceneContext(Context):
    """Keys and values of each asset, and those that all assets of a scene attend to besides.

    shared_keys, shared_values  (S, M, H, D)
    """

    shared_keys: Tensor | None = None
    shared_values: Tensor | None = None

    def joined(self) -> Context:
        """As if every asset brought the shared entries along."""
        if self.shared_keys is None or self.shared_values is None:
            return self
        keys, values = _append_shared(self.keys, self.shared_keys), _append_shared(self.values, self.shared_values)
        return Context(keys, values, self.rows, constant=self.constant)


def _append_shared(own: Tensor, shared: Tensor) -> Tensor:
    """own (S·A, L, H, D) and shared (S, M, H, D) -> (S·A, L + M, H, D)."""
    own = own.unflatten(0, (len(shared), -1))
    return torch.cat([own, shared[:, None].expand(-1, own.shape[1], -1, -1, -1)], dim=2).flatten(0, 1)


class SceneSelfAttention(SelfAttention):
    """Self-attention over all tokens of all assets of a scene; the context is A, the number of assets per scene."""

    def forward(self, x: Tensor, context: int | None = None) -> Tensor:  # type: ignore[override]
        """x (S·A, N, C) -> same shape."""
        if context is None:
            raise InputError("scene attention needs the number of assets per scene")
        return super().forward(x.reshape(-1, context * x.shape[1], x.shape[2])).view(x.shape)


class SceneCrossAttention(CrossAttention):
    """Cross-attention of each asset to tokens of its own and to tokens that its scene shares.

    The shared tokens are projected once per scene. They are appended in each call, not kept appended: a copy costs
    little beside the attention, whereas A copies of the keys of every block would fill the memory.
    """

    def project(self, context: Tensor, *, shared: Tensor | None = None, **packing: Any) -> Context:
        """Keys and values of `context` (S·A, L, C_context) and of `shared` (S, M, C_context)."""
        own = super().project(context, **packing)
        if shared is None:
            return own
        if packing:
            raise InputError(f"a context with tokens shared in the scene takes no {', '.join(packing)}")
        common = super().project(shared)
        return SceneContext(own.keys, own.values, own.rows, shared_keys=common.keys, shared_values=common.values)

    def _attend(self, x: Tensor, context: Context) -> Tensor:
        return super()._attend(x, context.joined() if isinstance(context, SceneContext) else context)


def scene_sublayers(config: FlowBlockConfig, special_tokens: int) -> list[SubLayer]:
    """The sub-layers of an object's block, on the latent tokens; before its feed-forward the scene's attentions."""
    C, H = config.width, config.heads
    qk_norm = HeadRMSNorm if config.qk_rms_norm_cross else None
    *local, feed_forward = (replace(layer, skip_tokens=special_tokens) for layer in flow_sublayers(config))
    return [
        *local,
        SubLayer(
            "global_attn", partial(SceneSelfAttention, C, H, qk_norm=qk_norm), affine_norm=True, modulation=ADALN_GLOBAL
        ),
        SubLayer("global_cross_attn", partial(SceneCrossAttention, C, config.context_width, H, qk_norm=qk_norm)),
        feed_forward,
    ]


def scene_block(config: FlowBlockConfig, special_tokens: int) -> TransformerBlock:
    """One block."""
    return TransformerBlock(config.width, scene_sublayers(config, special_tokens))
