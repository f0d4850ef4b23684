"""SceneGen as the samplers see it: a velocity for all assets, their poses as what comes besides."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.conditioning import Contexts, with_unconditional
from ..models.scene_flow import SceneCondition, SceneFlow, first_assets
from ..sampling import BatchedDenoiser, CyclingViews, Denoiser, MeanOfViews, Prediction


def scene_denoiser(
    model: SceneFlow, condition: SceneCondition, *, assets: int, query: Tensor | None = None
) -> BatchedDenoiser[Contexts]:
    """Denoiser of x (S·A, C, R, R, R), A = `assets`; a prediction's extra are the poses (S·A, 8).

    query (S·A,) bool: the asset of each scene in whose frame the poses are; None: the first.
    The condition is projected here, once; a guided prediction is one pass over 2·S scenes.
    """

    def network(x: Tensor, t: Tensor, contexts: Contexts) -> Prediction:
        # A guided pass has the scenes twice.
        queries = None if query is None else query.repeat(len(x) // len(query))
        velocity, position_tokens = model(x, t, contexts, assets=assets, query=queries)
        known = first_assets(x, assets) if queries is None else queries
        return Prediction(velocity, model.poses(position_tokens, query=known))

    contexts = model.contexts(condition)
    return BatchedDenoiser(network, contexts, with_unconditional(contexts, model.blocks))


def mean_poses(poses: Sequence[Tensor]) -> Tensor:
    """Mean of K poses (B, 8) each, rows [t, quat_wxyz, s] -> (B, 8) with quaternions of length one, w >= 0.

    Rotations: the eigenvector of the largest eigenvalue of Σ q qᵀ (Markley et al. 2007), which unlike a mean of
    components does not mind that q and -q are the same rotation.
    """
    stacked = torch.stack(list(poses)).double()
    mean, q = stacked.mean(dim=0), F.normalize(stacked[..., 3:7], dim=-1)
    rotation = torch.linalg.eigh(torch.einsum("kbi,kbj->bij", q, q)).eigenvectors[..., -1]
    rotation = torch.where(rotation[:, :1] < 0, -rotation, rotation)
    return torch.cat([mean[:, :3], rotation, mean[:, 7:]], dim=1).to(poses[0].dtype)


def cycle_scene_views(
    views: Sequence[Denoiser], steps: int, *, average: Callable[[Sequence[Tensor]], Tensor] = mean_poses
) -> CyclingViews:
    """SceneGen with K views: step s sees view s mod K, the last step averages velocities and poses over all views."""
    return CyclingViews(views, last=MeanOfViews(views, average), last_step=steps - 1)
