"""Cases of stage 1: the sparse-structure flow model and VAE."""

from __future__ import annotations

from typing import cast

import torch

from ...models.conditioning import single_views
from ...models.sparse_structure_flow import SparseStructureFlow
from ..golden import CaseResults, GoldenCase
from ..published import load_published
from .recording import recorded


def flow(case: GoldenCase) -> CaseResults:
    """out.v = model(x, t, cond)."""
    model = cast(
        SparseStructureFlow, load_published("SparseStructureFlowModel", case.constructor, case.weights, case.name)
    )
    points = {f"block{i}": block for i, block in enumerate(model.blocks)}
    with torch.no_grad():
        contexts = model.contexts(single_views(case.inputs["cond"]))
        with recorded({"t_emb": model.t_embedder, "input_layer": model.input_layer, **points}) as mid:
            out = model(case.inputs["x"], case.inputs["t"], contexts)
    return CaseResults({"out.v": out, **mid})
