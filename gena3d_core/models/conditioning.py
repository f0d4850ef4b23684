"""What the flow models are conditioned on, and its projection to keys and values, once per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.blocks import TransformerBlock
from ..nn.layers import Context, CrossAttention

MASK_EPS = 1e-6
"""Added to Amodal3R's visible ratios before the logarithm."""

Contexts = Sequence[Mapping[str, Context | Tensor]]
"""For each block: name of the sub-layer -> projected context, or the (C,) output that an all-zero context gives."""


@dataclass(frozen=True)
class ViewTokens:
    """Encoded views of a batch of objects, packed: P pairs of an object and one of its views.

    tokens           (P, L, C) of the image encoder
    owner            (P,) int64: object of each pair
    weight           (P,) share of the view among its object's views, summing to 1 in each object (GENA3D eq. 3)
    token_bias       (P, L) added to the attention logits of each token (Amodal3R's mask weights, padding), or None
    occlusion        (P, M, C) Amodal3R's occluded-ratio tokens, or None
    occlusion_bias   (P, M) added to their logits, or None
    """

    tokens: Tensor
    owner: Tensor
    weight: Tensor
    token_bias: Tensor | None = None
    occlusion: Tensor | None = None
    occlusion_bias: Tensor | None = None


@dataclass(frozen=True)
class FlowCondition:
    """Condition of a batch of `batch` objects.

    geometry       (batch, C_latent, R, R, R): sparse-structure latent of the partial clouds (GENA3D eq. 5), or None
    has_geometry   (batch,) bool: False where an object has no cloud (or it was dropped); None: all have one
    """

    views: ViewTokens
    batch: int
    geometry: Tensor | None = None
    has_geometry: Tensor | None = None


def single_views(tokens: Tensor, token_bias: Tensor | None = None, occlusion: Tensor | None = None) -> FlowCondition:
    """One view per object: tokens (B, L, C)."""
    owner = torch.arange(len(tokens), device=tokens.device)
    weight = torch.ones(len(tokens), device=tokens.device)
    return FlowCondition(ViewTokens(tokens, owner, weight, token_bias, occlusion), len(tokens))


def view_weights(visibility: Tensor, owner: Tensor, batch: int) -> Tensor:
    """w_n = τ_n / Σ_j τ_j of each object's views (GENA3D eq. 3).

    visibility (P,) τ in [0, 1], owner (P,) -> (P,). A view that sees nothing gets 0; an object whose views all see
    nothing raises `InputError`.
    """
    total = visibility.new_zeros(batch).index_add(0, owner, visibility)
    if not bool((total > 0).all()):
        unseen = torch.nonzero(~(total > 0)).flatten().tolist()
        raise InputError(f"objects {unseen} of the batch are visible in none of their views: leave them out")
    return visibility / total[owner]


def mask_token_bias(visible_ratio: Tensor, special_tokens: int) -> Tensor:
    """Amodal3R's additive log weights: (P, M) visible ratios of the patches -> (P, special_tokens + M).

    Class and register tokens, which come first, keep weight 1.
    """
    weights = torch.nn.functional.pad(visible_ratio.float(), (special_tokens, 0), value=1.0)
    return torch.log(weights + MASK_EPS)


def project_condition(
    block: TransformerBlock, condition: FlowCondition, geometry_tokens: Tensor | None
) -> dict[str, Context]:
    """Keys and values of the block's cross-attentions; geometry_tokens (batch, G, C) as eq. 5 makes them."""
    views = condition.views
    # With one view per object, in order, the detour over owners would only cost time.
    plain = len(views.owner) == condition.batch and torch.equal(
        views.owner, torch.arange(condition.batch, device=views.owner.device)
    )
    packing: dict[str, Any] = {} if plain else {"owner": views.owner, "weight": views.weight, "rows": condition.batch}
    contexts: dict[str, Context] = {}
    for name, operation in cross_attentions(block).items():
        if name == "cross_attn":
            contexts[name] = operation.project(views.tokens, key_bias=views.token_bias, **packing)
        elif name == "cross_attn_mask":
            if views.occlusion is None:
                raise InputError("this model attends to occluded-ratio tokens: give `occlusion` of the views")
            contexts[name] = operation.project(views.occlusion, key_bias=views.occlusion_bias, **packing)
        elif name == "stereo_attn":
            if geometry_tokens is None:
                raise InputError("this model attends to stereo geometry: give `geometry`, or has_geometry all False")
            contexts[name] = operation.project(geometry_tokens)
        else:
            raise InputError(f"no condition is known for the cross-attention '{name}'")
    return contexts


def cross_attentions(block: TransformerBlock) -> dict[str, CrossAttention]:
    """The block's cross-attentions by name."""
    return {name: op for name, op in block.operations.items() if isinstance(op, CrossAttention)}


def unconditional(blocks: Sequence[TransformerBlock]) -> list[dict[str, Context | Tensor]]:
    """Contexts of an all-zero condition: the constant that each cross-attention then gives."""
    return [{name: op.constant_output() for name, op in cross_attentions(block).items()} for block in blocks]


def with_unconditional(contexts: Contexts, blocks: Sequence[TransformerBlock]) -> list[dict[str, Context | Tensor]]:
    """Contexts of one guided pass over (2B, ...): rows B to 2B - 1 see the all-zero condition."""
    return [
        {
            name: replace(context, constant=cross_attentions(block)[name].constant_output())
            if isinstance(context, Context)
            else context
            for name, context in own.items()
        }
        for own, block in zip(contexts, blocks, strict=True)
    ]
