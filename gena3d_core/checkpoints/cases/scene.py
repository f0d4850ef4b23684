"""Cases of SceneGen: the scene-level flow, its position head, and their sampling."""

from __future__ import annotations

from typing import cast

import torch

from ...models.position_head import PositionHead
from ...models.scene_flow import SceneCondition, SceneFlow, first_assets
from ..golden import CaseResults, GoldenCase
from ..published import load_published
from .recording import recorded


def position_head(case: GoldenCase) -> CaseResults:
    """out.train_mode.iter<n> and out.eval_mode = head(token); row 0 is the query."""
    head = cast(PositionHead, load_published("PositionHead", case.constructor, case.weights, case.name))
    tokens = case.inputs["token"][:, 0]
    prefix = "out.train_mode.iter"
    counts = [int(name.removeprefix(prefix)) for name in case.expected if name.startswith(prefix)]
    with torch.no_grad():
        found = {f"{prefix}{count}": head(tokens, iterations=count) for count in counts}
        query = first_assets(tokens, len(tokens))
        found["out.eval_mode"] = head(tokens, iterations=int(case.description.get("num_iteration", 4)), query=query)
    return CaseResults(found)


def flow(case: GoldenCase) -> CaseResults:
    """out.v, out.positions = model(x, t, cond) of one scene; out.v_first_asset_alone of its first asset by itself."""
    model = load_flow(case)
    x, t, tokens = (case.inputs[name] for name in ("x", "t", "cond"))
    points = {f"block{i}": block for i, block in enumerate(model.blocks)}
    with torch.no_grad():
        with recorded(points) as mid:
            velocity, position_tokens = model(x, t, model.contexts(SceneCondition(tokens)), assets=len(x))
        alone, _ = model(x[:1], t[:1], model.contexts(SceneCondition(tokens[:1])), assets=1)
        found = {
            "out.v": velocity,
            "out.v_first_asset_alone": alone,
            "out.positions": model.poses(position_tokens, query=first_assets(x, len(x))),
            "out.positions_train_mode": model.poses(position_tokens),
        }
    return CaseResults(found | {f"{name}.position_token": tensor[:, :1] for name, tensor in mid.items()})


def load_flow(case: GoldenCase) -> SceneFlow:
    """The case's network with its weights."""
    return cast(SceneFlow, load_published("SceneFlow", case.constructor, case.weights, case.name))
