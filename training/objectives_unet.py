"""Training of the feed-forward baseline: partial clouds to the soft occupancy of the objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.checkpoints.presets import random_unet
from gena3d_core.generative.unet_generator import UNET
from gena3d_core.objectives import RECONSTRUCTION

from .datasets import Batch, ExampleRef, Split, structure_batch
from .objectives_vae import EMPTY_LOGIT, EVALUATED_AT_ONCE, SHOWN, intersection_over_union
from .pictures import comparison_sheet
from .recipes.settings import UnetRecipe
from .symmetries import ORDER
from .task import Evaluation, Loss


@dataclass(frozen=True)
class UnetBatch(Batch):
    """cloud (B, 1, R, R, R) float32 in {0, 1}, occupancy (B, 1, R, R, R) float32 in [0, 1]."""

    cloud: Tensor
    occupancy: Tensor


class UnetNetwork(nn.Module):
    """The network and its loss."""

    def __init__(self, unet: nn.Module, reconstruction: str) -> None:
        super().__init__()
        self.unet = unet
        self.reconstruction = RECONSTRUCTION[reconstruction][0]

    def forward(self, batch: UnetBatch) -> Loss:
        return Loss(self.reconstruction(self.unet(batch.cloud), batch.occupancy), {})


class UnetTask:
    """A `Task`: see there."""

    def __init__(self, recipe: UnetRecipe, split: Split, device: torch.device) -> None:
        self.recipe, self.split, self.device = recipe, split, device
        self.template = random_unet(recipe.preset, seed=recipe.seed)
        unet = self.template.modules[UNET]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            unet.initialise()
        # Most voxels are empty: starting from there saves the first few hundred steps.
        nn.init.constant_(unet.out_layer.bias, EMPTY_LOGIT)
        self.network: Any = UnetNetwork(unet, recipe.reconstruction).to(device)

    def batch(self, indices: Sequence[int], rng: np.random.Generator) -> UnetBatch:
        """Each example in a random one of the upright symmetries."""
        still = self.recipe.overfit_one
        variants = [0] * len(indices) if still else rng.integers(0, len(ORDER), len(indices)).tolist()
        return unet_batch([self.split.train[i] for i in indices], variants)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss of the held-out examples and their IoU at 0.5; score -loss."""
        losses, counts, ious = [], [], []
        shown: list[list[np.ndarray]] = []
        for start in range(0, len(self.split.held_out), EVALUATED_AT_ONCE):
            examples = self.split.held_out[start : start + EVALUATED_AT_ONCE]
            batch = unet_batch(examples, [0] * len(examples)).to(self.device)
            logits = self.network.unet(batch.cloud)
            losses.append(float(self.network.reconstruction(logits, batch.occupancy)))
            counts.append(len(examples))
            found, truth = logits > 0, batch.occupancy >= 0.5
            ious.append(intersection_over_union(found, truth).cpu())
            if len(shown) * EVALUATED_AT_ONCE < SHOWN:
                shown.append([grids[:, 0].cpu().numpy() for grids in (batch.cloud > 0, truth, found)])
        loss, iou = float(np.average(losses, weights=counts)), torch.cat(ious)
        columns = [np.concatenate(column)[:SHOWN] for column in zip(*shown, strict=True)]
        captions = [f"cloud, truth, result: IoU {value:.3f}" for value in iou[:SHOWN].tolist()]
        metrics = {"held_out_loss": loss, "iou": float(iou.mean()), "worst_iou": float(iou.min())}
        return Evaluation(metrics, -loss, comparison_sheet(columns, captions))

    def bundle(self, metadata: dict[str, Any]) -> ModelBundle:
        """The network for inference."""
        return replace(self.template, modules={UNET: self.network.unet}, metadata=metadata, source=self.recipe.out)


def unet_batch(examples: Sequence[ExampleRef], variants: Sequence[int]) -> UnetBatch:
    """Clouds and objects of the examples, both in the same upright symmetry."""
    every = np.ones(len(examples), dtype=bool)
    clouds = structure_batch(examples, every, variants).occupancy
    return UnetBatch(clouds, structure_batch(examples, ~every, variants).occupancy)
