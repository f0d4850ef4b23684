"""Stage 1 of a scene: conditions to occupancy logits and poses of a group of assets that are generated together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.bundle import ModelBundle
from ..geometry import scene_poses
from ..memory import in_chunks
from ..models.scene_flow import SceneFlow
from ..sampling import Denoiser, draw_noise, sample
from ..types import Float32Array, Float64Array
from .scene_denoiser import cycle_scene_views, mean_poses, scene_denoiser
from .scene_inputs import SceneConditions
from .settings import StageSampler
from .structure import ACTIVATIONS_PER_TOKEN

DECODED_AT_ONCE = 4


@dataclass(frozen=True, eq=False)
class SceneSamples:
    """One sample of a group of n assets, the query first: logits (n, R, R, R) and poses (n, 8), valid ones."""

    logits: Float32Array
    poses: Float64Array


@torch.no_grad()
def sample_scene(
    bundle: ModelBundle, conditions: SceneConditions, group: Sequence[int], seeds: Sequence[int], sampler: StageSampler
) -> SceneSamples:
    """Sample the assets `group` (numbers into the conditions, the query first) together; seeds one for each asset.

    Noise belongs to an asset's seed, and the network does not mind the order of the others: neither does the result.
    Several views take turns, one a step; velocities and poses of the last step are averages over all of them.
    """
    flow: SceneFlow = bundle.modules["sparse_structure_flow"]
    decoder = bundle.modules["sparse_structure_decoder"]
    own = conditions.of_assets(torch.tensor(list(group)))
    views = [scene_denoiser(flow, view, assets=len(group), decoded=False) for view in own]
    query = torch.arange(len(group), device=own[0].tokens.device) == 0
    schedule = replace(sampler.schedule, steps=max(sampler.schedule.steps, len(views)))
    denoiser: Denoiser = views[0]
    if len(views) > 1:
        # What no view shows together with the query is a guess whichever view makes it.
        seen = conditions.seen[:, list(group)]
        seen = np.where(seen.any(axis=0), seen, 1.0)

        def average(tokens: Sequence[Tensor]) -> Tensor:
            return mean_poses([flow.poses(view, query=query) for view in tokens], seen)

        denoiser = cycle_scene_views(views, schedule.steps, average=average)
    shape = (flow.config.in_channels, *(flow.config.resolution,) * 3)
    found = sample(
        denoiser,
        draw_noise([seeds[number] for number in group], shape, own[0].tokens.device),
        schedule,
        sampler.guidance,
        method=sampler.method,
        sigma_min=sampler.sigma_min,
        on_step=sampler.on_step(0, 1, 1),
        cancelled=sampler.cancelled,
    )
    parts = in_chunks(len(group), DECODED_AT_ONCE, lambda start, stop: decoder(found.x[start:stop])[:, 0].float().cpu())
    # The poses of several views are decoded already: each has its own, of which these are the mean.
    told = flow.poses(found.extra, query=query) if len(views) == 1 else found.extra
    poses = scene_poses.valid_poses(told.double().cpu().numpy(), query=0)
    return SceneSamples(torch.cat(parts).numpy(), poses)


def scene_asset_bytes(bundle: ModelBundle, conditions: SceneConditions) -> float:
    """Estimated memory of one more asset while it is sampled with guidance, beside the weights: contexts of all blocks
    for each view, keys and values of one block with the shared ones appended, and the widest activations."""
    flow: SceneFlow = bundle.modules["sparse_structure_flow"]
    config = flow.config
    width, size = config.model_channels, next(flow.blocks.parameters()).element_size()
    views = conditions.views
    own = sum(config.asset_tokens + view.tokens.shape[1] for view in views)
    shared = max(0 if view.shared is None else view.shared.shape[1] for view in views)
    contexts = config.num_blocks * own * 2 * width * size
    joined = 2 * (views[0].tokens.shape[1] + shared) * 2 * width * size
    tokens = (config.resolution // config.patch_size) ** 3 + config.special_tokens
    return contexts + joined + 2 * tokens * width * size * ACTIVATIONS_PER_TOKEN
