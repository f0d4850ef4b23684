"""Training of the sparse-structure VAE: soft occupancy of objects, and partial clouds, which condition the flow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.objectives import RECONSTRUCTION, kl_divergence

from .datasets import Batch, ExampleRef, Split, structure_batch
from .latent_scale import scaled_vae
from .pictures import comparison_sheet
from .recipes.settings import VaeRecipe
from .symmetries import ORDER
from .task import Evaluation, Loss

EVALUATED_AT_ONCE = 16
SHOWN = 8
EMPTY_LOGIT = -2.5
"""Logit of the share of full voxels in a typical grid."""


@dataclass(frozen=True)
class VaeBatch(Batch):
    """occupancy (B, 1, R, R, R) float32 in [0, 1], noise (B, C, r, r, r)."""

    occupancy: Tensor
    noise: Tensor


class VaeNetwork(nn.Module):
    """Encoder, decoder and their loss."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, reconstruction: str, kl_weight: float) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.reconstruction, self.kl_weight = RECONSTRUCTION[reconstruction][0], kl_weight

    def forward(self, batch: VaeBatch) -> Loss:
        posterior = self.encoder(batch.occupancy)
        logits = self.decoder(posterior.sample(batch.noise))
        reconstruction = self.reconstruction(logits, batch.occupancy)
        divergence = kl_divergence(posterior.mean, posterior.logvar)
        return Loss(
            reconstruction + self.kl_weight * divergence,
            {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()},
        )


class VaeTask:
    """A `Task`: see there."""

    def __init__(self, recipe: VaeRecipe, split: Split, device: torch.device) -> None:
        self.recipe, self.split, self.device = recipe, split, device
        bundle = random_bundle(recipe.preset, seed=recipe.seed)
        encoder, decoder = bundle.modules["sparse_structure_encoder"], bundle.modules["sparse_structure_decoder"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            encoder.initialise()
            decoder.initialise()
        # Most voxels are empty: starting from there saves the first few hundred steps.
        nn.init.constant_(decoder.out_layer[-1].bias, EMPTY_LOGIT)
        self.template = bundle
        self.network: Any = VaeNetwork(encoder, decoder, recipe.reconstruction, recipe.kl_weight).to(device)

    def batch(self, indices: Sequence[int], rng: np.random.Generator) -> VaeBatch:
        """Random symmetries; `cloud_share` of the examples as their partial cloud."""
        examples = [self.split.train[i] for i in indices]
        is_cloud = rng.random(len(examples)) < self.recipe.cloud_share
        turned = [0] * len(examples) if self.recipe.overfit_one else rng.integers(0, len(ORDER), len(examples)).tolist()
        return self._with_noise(structure_batch(examples, is_cloud, turned).occupancy, rng)

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """IoU at 0.5 of held-out objects, and of their clouds; the score is that of the objects."""
        objects, truths, reconstructions = self._intersections(self.split.held_out, clouds=False)
        clouds, _, _ = self._intersections(self.split.held_out, clouds=True)
        metrics = {"iou": float(objects.mean()), "cloud_iou": float(clouds.mean()), "worst_iou": float(objects.min())}
        captions = [f"truth, reconstruction: IoU {iou:.3f}" for iou in objects[:SHOWN].tolist()]
        picture = comparison_sheet([truths, reconstructions], captions)
        return Evaluation(metrics, metrics["iou"], picture)

    def bundle(self, metadata: dict[str, Any]) -> ModelBundle:
        """Encoder and decoder whose latents have variance 1 over the training objects."""
        encoder, decoder, scale = scaled_vae(
            self.network.encoder, self.network.decoder, self._latent_inputs(), self.device
        )
        return ModelBundle(
            self.template.family,
            self.recipe.out,
            {"sparse_structure_encoder": encoder, "sparse_structure_decoder": decoder},
            frame=self.template.frame,
            image_size=self.template.image_size,
            metadata={**metadata, "latent_scale": scale},
        )

    def _latent_inputs(self) -> list[Tensor]:
        count = min(len(self.split.train), 8 * EVALUATED_AT_ONCE)
        chosen = [self.split.train[i * len(self.split.train) // count] for i in range(count)]
        return [batch for batch, _ in self._batches(chosen, clouds=False)]

    def _batches(self, examples: Sequence[ExampleRef], clouds: bool) -> list[tuple[Tensor, int]]:
        found = []
        for start in range(0, len(examples), EVALUATED_AT_ONCE):
            part = examples[start : start + EVALUATED_AT_ONCE]
            whole = structure_batch(part, np.full(len(part), clouds), [0] * len(part))
            found.append((whole.occupancy.to(self.device), len(part)))
        return found

    def _intersections(self, examples: Sequence[ExampleRef], clouds: bool) -> tuple[Tensor, np.ndarray, np.ndarray]:
        ious, truths, found = [], [], []
        for occupancy, _ in self._batches(examples, clouds):
            logits = self.network.decoder(self.network.encoder(occupancy).mean)
            ious.append(intersection_over_union(logits > 0, occupancy >= 0.5).cpu())
            truths.append((occupancy[:, 0] >= 0.5).cpu().numpy())
            found.append((logits[:, 0] > 0).cpu().numpy())
        return torch.cat(ious), np.concatenate(truths)[:SHOWN], np.concatenate(found)[:SHOWN]

    def _with_noise(self, occupancy: Tensor, rng: np.random.Generator) -> VaeBatch:
        config = self.network.encoder.config
        side = occupancy.shape[-1] // config.scale
        shape = (len(occupancy), config.latent_channels, side, side, side)
        return VaeBatch(occupancy, torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))


def intersection_over_union(found: Tensor, truth: Tensor) -> Tensor:
    """(B,) of bool grids (B, ...); two empty ones agree."""
    found, truth = found.flatten(1), truth.flatten(1)
    either = (found | truth).sum(1)
    return torch.where(either > 0, (found & truth).sum(1) / either.clamp_min(1), torch.ones_like(either).float())
