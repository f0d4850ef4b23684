"""What the flow models are conditioned on, and its projection to keys and values, once per sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InputError
from ..nn.blocks import TransformerBlock
from ..nn.layers import AlignedContext, Context, CrossAttention
from ..nn.packing import Packing, pack

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

    @cached_property
    def seen(self) -> tuple[ViewTokens, Packing | None]:
        """The views that count (weight above 0), and which object each serves; None for one view per object, in order.

        Raises `InputError` for an object without such a view, and for weights that do not sum to 1.
        """
        views = self.views
        if not bool((views.weight > 0).all()):
            views = select_views(views, torch.nonzero(views.weight > 0).flatten())
        packing = pack(views.owner, self.batch)
        total = packing.sum(views.weight.double())
        if not bool(((total - 1).abs() < 1e-2).all()):
            raise InputError(f"the weights of an object's views must sum to 1, got {total.tolist()}: see view_weights")
        # With one view per object, in order, the detour over owners would only cost time.
        return views, None if packing.places is None and packing.most == 1 else packing


def select_views(views: ViewTokens, pairs: Tensor) -> ViewTokens:
    """The pairs (n,) int64 of the packed views, weights as they are."""

    def taken(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[pairs]

    return ViewTokens(
        views.tokens[pairs],
        views.owner[pairs],
        views.weight[pairs],
        taken(views.token_bias),
        taken(views.occlusion),
        taken(views.occlusion_bias),
    )


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
    if not bool(((visibility >= 0) & (visibility <= 1)).all()):
        raise InputError(f"visibility must lie between 0 and 1, got {visibility.tolist()}")
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


VIEW_TOKENS: dict[str, Callable[[ViewTokens], tuple[Tensor | None, Tensor | None]]] = {
    "cross_attn": lambda views: (views.tokens, views.token_bias),
    "cross_attn_mask": lambda views: (views.occlusion, views.occlusion_bias),
}
"""Cross-attention to the views -> its tokens and their bias."""


STEREO = ("stereo_attn", "aligned_stereo")
"""What reads the tokens of the partial cloud."""


def project_condition(
    block: TransformerBlock, condition: FlowCondition, geometry_tokens: Tensor | None
) -> dict[str, Context | Tensor]:
    """Keys and values of the block's cross-attentions; geometry_tokens (batch, G, C) as eq. 5 makes them.

    None: no object has a cloud.
    """
    views, packing = condition.seen
    contexts: dict[str, Context | Tensor] = {}
    for name, operation in cross_attentions(block).items():
        if name in STEREO:
            # Without any cloud the tokens would all be zero.
            contexts[name] = (
                operation.constant_output() if geometry_tokens is None else operation.project(geometry_tokens)
            )
            continue
        if name not in VIEW_TOKENS:
            raise InputError(f"no condition is known for the cross-attention '{name}'")
        tokens, bias = VIEW_TOKENS[name](views)
        if tokens is None:
            raise InputError(f"this model has the attention '{name}' to tokens that the views lack: give `occlusion`")
        assert isinstance(operation, CrossAttention)
        contexts[name] = operation.project(tokens, key_bias=bias, packing=packing, weight=views.weight)
    return contexts


def cross_attentions(block: TransformerBlock) -> dict[str, CrossAttention | AlignedContext]:
    """The block's operations that read the condition, by name."""
    return {name: op for name, op in block.operations.items() if isinstance(op, CrossAttention | AlignedContext)}


def unconditional(blocks: Sequence[TransformerBlock]) -> list[dict[str, Context | Tensor]]:
    """Contexts of an all-zero condition: the constant that each cross-attention then gives."""
    return [{name: op.constant_output() for name, op in cross_attentions(block).items()} for block in blocks]


def repeat_contexts(contexts: Contexts, copies: int) -> list[dict[str, Context | Tensor]]:
    """Contexts for `copies` consecutive rows of the stream per object (hypotheses), without copying keys or values."""
    return [
        {name: c.changed(copies=c.copies * copies) if isinstance(c, Context) else c for name, c in own.items()}
        for own in contexts
    ]


def with_unconditional(contexts: Contexts, blocks: Sequence[TransformerBlock]) -> list[dict[str, Context | Tensor]]:
    """Contexts of one guided pass over (2B, ...): rows B to 2B - 1 see the all-zero condition.

    B counts copies (see `repeat_contexts`).
    """
    return [
        {
            name: context.changed(constant=cross_attentions(block)[name].constant_output())
            if isinstance(context, Context)
            else context
            for name, context in own.items()
        }
        for own, block in zip(contexts, blocks, strict=True)
    ]
