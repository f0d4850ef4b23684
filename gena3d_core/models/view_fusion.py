"""Other ways than GENA3D's to condition on several views: all as one long context, or one view per step."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..nn.attention import PADDING_BIAS
from ..nn.packing import Packing
from .conditioning import FlowCondition, ViewTokens, select_views


def concatenate_views(condition: FlowCondition) -> FlowCondition:
    """All views of an object as one context, one after another; the shares of the views are not used.

    An object with fewer views than another has tokens of zeros at its end, masked by their bias.
    """
    views, packing = condition.seen
    if packing is None:
        return replace(condition, views=views)
    tokens, bias = _joined(views.tokens, views.token_bias, packing)
    if views.occlusion is None:
        occlusion, occlusion_bias = None, None
    else:
        occlusion, occlusion_bias = _joined(views.occlusion, views.occlusion_bias, packing)
    return replace(condition, views=ViewTokens(tokens, *_rows(tokens), bias, occlusion, occlusion_bias))


def _joined(tokens: Tensor, bias: Tensor | None, packing: Packing) -> tuple[Tensor, Tensor | None]:
    """(P, L, C), (P, L) -> (rows, most · L, C), (rows, most · L) or None where nothing is biased or masked."""
    if bias is None and packing.places is not None:
        bias = torch.zeros(tokens.shape[:2], device=tokens.device)
    joined_bias = None if bias is None else packing.table(bias, PADDING_BIAS).flatten(1, 2)
    return packing.table(tokens).flatten(1, 2), joined_bias


def _rows(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Owner and weight of one pair per row."""
    return torch.arange(len(tokens), device=tokens.device), torch.ones(len(tokens), device=tokens.device)


def view_at_step(condition: FlowCondition, step: int) -> FlowCondition:
    """One view per object: number `step` modulo the number of its views that count (mode `stochastic`)."""
    views, packing = condition.seen
    if packing is None:
        return replace(condition, views=views)
    counts = torch.bincount(packing.owner, minlength=condition.batch)
    pairs = packing.table(torch.arange(len(packing.owner), device=packing.owner.device))
    chosen = select_views(views, pairs.gather(1, (step % counts)[:, None])[:, 0])
    owner, weight = _rows(chosen.tokens)
    return replace(condition, views=replace(chosen, owner=owner, weight=weight))
