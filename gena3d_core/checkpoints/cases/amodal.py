"""Cases of Amodal3R: mask-weighted attention, and both flow models with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ...models.conditioning import FlowCondition, mask_token_bias, single_views, unconditional
from ...models.sparse_structure_flow import SparseStructureFlow
from ...nn.layers import CrossAttention
from ...nn.norms import HeadRMSNorm
from ...nn.sparse import SparseTensor
from ..golden import CaseResults, GoldenCase
from ..key_maps import KeyMap
from ..load import load_state
from ..published import load_published

ATTENTION: KeyMap = ((r"^([qk])_rms_norm\.", r"\1_norm."),)
"""A cross-attention by itself."""


def weighted_attention(case: GoldenCase) -> CaseResults:
    """Cross-attention with log weights on the last tokens of the context; the sparse ones are without head norms."""
    data = case.inputs
    attend = _attention(case, head_norms=bool(case.constructor.get("qk_rms_norm")))
    plain = _attention(case, head_norms=False)
    x, context = data["x"], data["context"]
    bias = _weight_bias(data["mask_weight"], context.shape[1])
    feats, sample = data["feats"], data["coords"][:, 0]
    first = feats[None, sample == 0], context[:1], bias[:1]
    mixed = batch_leak(single_views(context, bias)).views
    leaky = feats[None], mixed.tokens[:1], mixed.token_bias[:1]  # type: ignore[index]
    with torch.no_grad():
        out = {
            "out.dense": _attend(attend, x, context, bias),
            "out.dense_without_mask": _attend(attend, x, context, None),
            "out.sparse_first_sample": _attend(plain, *first)[0],
            "out.sparse_batch_leaky": _attend(plain, *leaky)[0],
        }
    return CaseResults(out)


def batch_leak(condition: FlowCondition) -> FlowCondition:
    """The published sparse weighted attention's fault: voxels of a batch attend to the image tokens of every sample.

    Needed only to meet numbers that were computed with it, from batches of more than one sample; the models here keep
    samples apart. One view per object.
    """
    views, B = condition.views, condition.batch
    tokens = views.tokens.flatten(0, 1).expand(B, -1, -1)
    bias = None if views.token_bias is None else views.token_bias.flatten().expand(B, -1)
    return replace(condition, views=replace(views, tokens=tokens, token_bias=bias))


def sparse_structure_flow(case: GoldenCase) -> CaseResults:
    """out.v = model(x, t, cond), out.v_uncond with an all-zero condition."""
    name = "SparseStructureFlowModelMaskAsCondWeighted"
    model = cast(SparseStructureFlow, load_published(name, case.constructor, case.weights, case.name))
    x, t = case.inputs["x"], case.inputs["t"]
    with torch.no_grad():
        out = {"out.v": model(x, t, model.contexts(_condition(case)))}
        if "out.v_uncond" in case.expected:
            out["out.v_uncond"] = model(x, t, unconditional(model.blocks))
    return CaseResults(out)


def structured_latent_flow(case: GoldenCase) -> CaseResults:
    """out.v = model(x, t, cond).feats."""
    model: Any = load_published("SLatFlowModelMaskAsCondWeighted", case.constructor, case.weights, case.name)
    condition = _condition(case)
    if condition.batch > 1:
        condition = batch_leak(condition)
    x = SparseTensor.create(case.inputs["coords"], case.inputs["feats"], condition.batch)
    with torch.no_grad():
        out = {"out.v": model(x, case.inputs["t"], model.contexts(condition)).feats}
        if "out.v_uncond" in case.expected:
            out["out.v_uncond"] = model(x, case.inputs["t"], unconditional(model.blocks)).feats
    return CaseResults(out)


def _condition(case: GoldenCase) -> FlowCondition:
    """Image tokens, and the ratios (B, M, 1) of their patches; tokens before those of the patches have no ratio."""
    tokens, occluded = case.inputs["image_tokens"], case.inputs["occluded_ratio"]
    bias = _weight_bias(case.inputs["visible_ratio"], tokens.shape[1])
    return single_views(tokens, bias, occluded.expand(-1, -1, tokens.shape[-1]))


def _weight_bias(ratio: Tensor, tokens: int) -> Tensor:
    """(B, tokens) log weights from the ratios (B, M, 1) of the last M tokens."""
    return mask_token_bias(ratio[..., 0], tokens - ratio.shape[1])


def _attention(case: GoldenCase, *, head_norms: bool) -> CrossAttention:
    c = case.constructor
    operation = CrossAttention(
        c["channels"], c["ctx_channels"], c["num_heads"], qk_norm=HeadRMSNorm if head_norms else None
    )
    weights = {key: value for key, value in case.weights.items() if head_norms or "rms_norm" not in key}
    return load_state(operation, weights, ATTENTION, case.name)


def _attend(operation: CrossAttention, x: Tensor, context: Tensor, bias: Tensor | None) -> Tensor:
    return operation(x, operation.project(context, key_bias=bias))
