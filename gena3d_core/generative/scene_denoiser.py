"""SceneGen as the samplers see it: a velocity for all assets, their poses as what comes besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..geometry import scene_poses
from ..models.conditioning import Contexts, with_unconditional
from ..models.scene_flow import SceneCondition, SceneFlow, first_assets
from ..sampling import BatchedDenoiser, CyclingViews, Denoiser, MeanOfViews, Prediction


def scene_denoiser(
    model: SceneFlow, condition: SceneCondition, *, assets: int, query: Tensor | None = None, decoded: bool = True
) -> BatchedDenoiser[Contexts]:
    """Denoiser of x (S·A, C, R, R, R), A = `assets`; a prediction's extra are the poses (S·A, 8).

    query (S·A,) bool: the asset of each scene in whose frame the poses are; None: the first. decoded: False leaves the
    position tokens (S·A, C) as the extra, for callers that decode only the last step's.
    The condition is projected here, once; a guided prediction is one pass over 2·S scenes.
    """

    def network(x: Tensor, t: Tensor, contexts: Contexts) -> Prediction:
        # A guided pass has the scenes twice.
        queries = None if query is None else query.repeat(len(x) // len(query))
        hints = None if condition.hints is None else condition.hints.guided(len(x))
        velocity, position_tokens = model(x, t, contexts, assets=assets, query=queries, hints=hints)
        if not decoded:
            return Prediction(velocity, position_tokens)
        known = first_assets(x, assets) if queries is None else queries
        return Prediction(velocity, model.poses(position_tokens, query=known))

    contexts = model.contexts(condition)
    return BatchedDenoiser(network, contexts, with_unconditional(contexts, model.blocks))


def mean_poses(poses: Sequence[Tensor], weights: np.ndarray | None = None) -> Tensor:
    """Mean of K poses (B, 8) each, rows [t, quat_wxyz, s], as `geometry.scene_poses.mean_poses` has it -> (B, 8).

    weights (K,) or (K, B): how much each view tells about each asset; equal by default.
    """
    stacked = torch.stack(list(poses))
    mean = scene_poses.mean_poses(scene_poses.valid_poses(stacked.double().cpu().numpy()), weights)
    return torch.from_numpy(mean).to(stacked)


def cycle_scene_views(
    views: Sequence[Denoiser], steps: int, *, average: Callable[[Sequence[Tensor]], Tensor] = mean_poses
) -> CyclingViews:
    """SceneGen with K views: step s sees view s mod K, the last step averages velocities and poses over all views."""
    return CyclingViews(views, last=MeanOfViews(views, average), last_step=steps - 1)
