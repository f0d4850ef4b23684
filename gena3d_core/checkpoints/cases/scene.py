"""Cases of SceneGen: the scene-level flow, its position head, and their sampling."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from ...generative.scene_denoiser import cycle_scene_views, scene_denoiser
from ...models.position_head import PositionHead
from ...models.scene_flow import SceneCondition, SceneFlow, first_assets
from ...sampling import NO_GUIDANCE, Denoiser, FlowSchedule, Guidance, SampleStep, sample
from ...sampling.denoisers import mean_extra
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


def sampler(case: GoldenCase) -> CaseResults:
    """out.<method>.*: euler, cfg, interval with one view; multiview with K views in turn."""
    settings, noise = case.description["sampler"], case.inputs["noise"]
    model, assets = load_flow(case), len(noise)
    schedule = FlowSchedule(int(settings["steps"]), float(settings["rescale_t"]))
    low, high = settings["cfg_interval"]
    strength = float(settings["cfg_strength"])
    inside = Guidance(strength, (float(low), float(high)))
    with torch.no_grad():
        one = scene_denoiser(model, SceneCondition(case.inputs["cond"]), assets=assets)
        several = [scene_denoiser(model, SceneCondition(tokens), assets=assets) for tokens in case.inputs["multi_cond"]]
    # The published sampler averages quaternions component by component.
    cycling = cycle_scene_views(several, schedule.steps, average=mean_extra)
    runs: dict[str, tuple[Denoiser, Guidance]] = {
        "euler": (one, NO_GUIDANCE),
        "cfg": (one, Guidance(strength)),
        "interval": (one, inside),
        "multiview": (cycling, inside),
    }
    found: dict[str, Tensor] = {}
    for name, (denoiser, guidance) in runs.items():
        steps: list[SampleStep] = []
        sigma = float(settings["sigma_min"])
        result = sample(denoiser, noise, schedule, guidance, sigma_min=sigma, on_step=steps.append)
        found |= {
            f"out.{name}.samples": result.x,
            f"out.{name}.positions": result.extra,
            f"out.{name}.x_t_mean": torch.stack([step.x.mean(dim=(2, 3, 4)) for step in steps]),
            f"out.{name}.positions_per_step": torch.stack([step.extra for step in steps]),
        }
    return CaseResults(found)
