"""Samples of held-out scenes beside the truth, for the log of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gena3d_core.generative.scene_denoiser import scene_denoiser
from gena3d_core.sampling import FlowSchedule, Guidance, sample
from gena3d_core.types import UInt8Array

from .objectives_vae import intersection_over_union
from .pictures import comparison_sheet
from .scene_datasets import SceneBatch, SceneSample
from .scene_start import VAE_ROLES

SHOWN = 4
"""Assets of a scene in the picture."""


@dataclass(frozen=True, eq=False)
class SampledScene:
    """Metrics of one sampled scene, and grids and crops of its assets for the picture.

    crops (A, S, S, 3) uint8; truth, found (A, R, R, R) bool; offsets (A,): how far each asset is off, in scene sizes
    """

    metrics: dict[str, float]
    crops: UInt8Array
    truth: np.ndarray
    found: np.ndarray
    offsets: np.ndarray


@torch.no_grad()
def sampled_scenes(task: Any, batch: SceneBatch, drawn: SceneSample) -> SampledScene:
    """One sample of the scene of `batch` under the recipe's schedule and guidance, beside the truth."""
    recipe, network = task.recipe, task.network
    defaults = task.bundle({}).samplers["sparse_structure"]
    # Poses are numbers to be exact about, as at inference.
    with torch.autocast(batch.x0.device.type, enabled=False):
        result = sample(
            scene_denoiser(network.flow, network.condition(batch), assets=batch.assets),
            batch.noise,
            FlowSchedule(recipe.sampling_steps, defaults.rescale_t),
            Guidance(defaults.guidance_strength, defaults.guidance_interval),
        )
        found = (task.template.modules[VAE_ROLES[1]](result.x)[:, 0] > 0).cpu()
    assert result.extra is not None
    shown = drawn.shown(list(range(len(drawn.assets))), recipe.max_assets)
    rows = drawn.shard.assets(drawn.row)
    truth = torch.from_numpy(np.asarray(drawn.shard.occupancy[rows])[shown] >= 128)
    poses, true_poses = result.extra.cpu().float(), batch.poses.cpu()
    offsets = (poses - true_poses)[:, :3].norm(dim=1) / _scene_size(true_poses)
    iou = intersection_over_union(found, truth)
    metrics = {
        "sample_iou": float(iou.mean()),
        "sample_offset": float(offsets[1:].mean()),
        "sample_scale_error": float((poses / true_poses.clamp_min(1e-6))[1:, 7].log().abs().clamp_max(5.0).mean()),
    }
    crops = batch.crops[:, :3].permute(0, 2, 3, 1).cpu().numpy()
    return SampledScene(metrics, crops, truth.numpy(), found.numpy(), offsets.numpy())


def _scene_size(poses: Tensor) -> Tensor:
    """Longest side of the box around cubes of side s at the assets' places."""
    half = poses[:, 7:] / 2.0
    return ((poses[:, :3] + half).amax(dim=0) - (poses[:, :3] - half).amin(dim=0)).max()


def scene_picture(scenes: Sequence[SampledScene]) -> UInt8Array:
    """(H, W, 3): crop, true shape and sampled shape of the first assets of each scene; white without scenes."""
    if not scenes:
        return np.full((8, 8, 3), 255, dtype=np.uint8)
    columns = [np.concatenate([getattr(s, name)[:SHOWN] for s in scenes]) for name in ("crops", "truth", "found")]
    captions = [f"crop, truth, sample: {offset:.2f} off" for s in scenes for offset in s.offsets[:SHOWN]]
    return comparison_sheet([np.ascontiguousarray(column) for column in columns], captions)
