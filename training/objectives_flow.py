"""Training of the sparse-structure flow with its image encoder: conditional flow matching (GENA3D eq. 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gena3d_core.checkpoints.bundle import ModelBundle, SamplerDefaults
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.errors import InputError
from gena3d_core.generative.conditions import with_masks
from gena3d_core.generative.settings import SamplingSettings, stage_sampler
from gena3d_core.generative.structure import sample_structures
from gena3d_core.models.conditioning import FlowCondition, ViewTokens, view_weights
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow
from gena3d_core.models.upgrade import add_stereo
from gena3d_core.models.view_fusion import concatenate_views
from gena3d_core.nn.attention import set_attention_backend
from gena3d_core.objectives import interpolate, logit_normal, velocity_loss, velocity_target
from gena3d_core.sampling import object_seed
from gena3d_core.sampling.denoisers import NETWORK_TIME

from .datasets import Batch, ExampleRef, Split, kept_views, structure_batch, view_batch
from .latents import ensure_latents
from .objectives_vae import intersection_over_union
from .pictures import comparison_sheet
from .recipes.settings import FlowRecipe
from .task import Evaluation, Loss

VAE_ROLES = ("sparse_structure_encoder", "sparse_structure_decoder")
FLOW_ROLE = "sparse_structure_flow"


@dataclass(frozen=True)
class FlowBatch(Batch):
    """Crops of the views, latents, and everything that is random in a step.

    crops         (P, 5, S, S) uint8, owner (P,) int64, visibility (P,) float32
    x0, noise     (B, C, r, r, r) latents of the objects; geometry: of the partial clouds
    has_geometry, sees_images   (B,) bool: False where that part of the condition is dropped
    t             (B,) flow time in [0, 1]
    """

    crops: Tensor
    owner: Tensor
    visibility: Tensor
    x0: Tensor
    noise: Tensor
    geometry: Tensor
    has_geometry: Tensor
    sees_images: Tensor
    t: Tensor


class FlowNetwork(nn.Module):
    """Image encoder and flow, and their loss."""

    def __init__(self, image_encoder: nn.Module, flow: Any, fusion: str, *, train_image_encoder: bool) -> None:
        super().__init__()
        self.image_encoder, self.flow, self.fusion = image_encoder, flow, fusion
        self.train_image_encoder = train_image_encoder
        image_encoder.requires_grad_(train_image_encoder)

    def condition(self, batch: FlowBatch) -> FlowCondition:
        """As at inference; views of an example that does not see its images have tokens of zeros."""
        encoder: Any = self.image_encoder
        crops = torch.cat([batch.crops[:, :3].float() / 255.0, batch.crops[:, 3:].float()], dim=1)
        with torch.set_grad_enabled(self.train_image_encoder and torch.is_grad_enabled()):
            tokens = encoder.encode(crops)
        dropped = ~batch.sees_images[batch.owner]
        weight = view_weights(batch.visibility, batch.owner, len(batch.x0))
        views = ViewTokens(tokens.masked_fill(dropped[:, None, None], 0.0), batch.owner, weight)
        if self.flow.config.occlusion_attention:
            views = with_masks(views, crops, encoder.special_tokens)
            assert views.occlusion is not None
            views = replace(views, occlusion=views.occlusion.masked_fill(dropped[:, None, None], 0.0))
        return FlowCondition(views, len(batch.x0), batch.geometry, batch.has_geometry)

    def forward(self, batch: FlowBatch) -> Loss:
        condition = self.condition(batch)
        if self.fusion == "concatenated":
            condition = concatenate_views(condition)
        contexts = self.flow.contexts(condition)
        velocity = self.flow(interpolate(batch.x0, batch.noise, batch.t), NETWORK_TIME * batch.t, contexts)
        loss = velocity_loss(velocity, velocity_target(batch.x0, batch.noise))
        return Loss(loss, {})


class FlowTask:
    """A `Task`: see there."""

    def __init__(
        self,
        recipe: FlowRecipe,
        split: Split,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.recipe, self.split, self.device = recipe, split, device
        self.template = starting_bundle(recipe, device)
        modules = self.template.modules
        self.network: Any = FlowNetwork(
            modules["image_encoder"],
            modules["sparse_structure_flow"],
            recipe.fusion,
            train_image_encoder=recipe.train_image_encoder,
        ).to(device)
        self.network.image_encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if device.type == "cpu":
            set_attention_backend(self.network, "products")
        for role in VAE_ROLES:
            modules[role].to(device).requires_grad_(False)
        shards = list({e.shard.folder: e.shard for e in [*split.train, *split.held_out]}.values())
        precision = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.latents = ensure_latents(
            modules[VAE_ROLES[0]],
            shards,
            recipe.variants,
            device,
            rank=rank,
            world=world,
            precision=precision,
            cancelled=cancelled,
        )

    def batch(self, indices: Sequence[int], rng: np.random.Generator) -> FlowBatch:
        """Random views, symmetry, dropped conditions, noise and flow times."""
        r, examples = self.recipe, [self.split.train[i] for i in indices]
        count = len(examples)
        variants = [0] * count if r.overfit_one else rng.integers(0, r.variants, count).tolist()
        counts = (1,) if r.fusion == "stochastic" else r.views
        kept = kept_views(examples, rng, counts, 0.0 if r.overfit_one else r.view_dropout)
        draw = rng.random(count)
        nothing = draw < r.condition_dropout
        no_cloud = nothing | ((draw >= 1.0 - r.cloud_dropout) & (r.cloud_dropout > 0))
        image_edge = r.condition_dropout + r.image_dropout
        no_images = nothing | ((draw >= r.condition_dropout) & (draw < image_edge))
        return self._batch(examples, kept, variants, ~no_cloud, ~no_images, rng)

    def _batch(
        self,
        examples: Sequence[ExampleRef],
        kept: Sequence[np.ndarray],
        variants: Sequence[int],
        has_cloud: np.ndarray,
        sees_images: np.ndarray,
        rng: np.random.Generator,
    ) -> FlowBatch:
        views = view_batch(examples, kept, variants)
        targets, clouds = self.latents.take(examples, variants)
        held = np.array([bool(np.asarray(e.shard.packed_clouds[e.row]).any()) for e in examples])
        t = logit_normal(
            torch.from_numpy(rng.standard_normal(len(examples), dtype=np.float32)),
            self.recipe.time_mean,
            self.recipe.time_std,
        )
        return FlowBatch(
            views.crops,
            views.owner,
            views.visibility,
            torch.from_numpy(targets),
            torch.from_numpy(rng.standard_normal(targets.shape, dtype=np.float32)),
            torch.from_numpy(clouds),
            torch.from_numpy(has_cloud & held),
            torch.from_numpy(sees_images),
            t,
        )

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Loss of the held-out examples under fixed noise and times, and IoU of samples of a few; score -loss."""
        held_out = self.split.held_out
        loss = self.held_out_loss()
        shown = [held_out[i * len(held_out) // self.recipe.sample_count] for i in range(self.recipe.sample_count)]
        ious, picture = self.sampled(shown[: len(held_out)])
        return Evaluation({"held_out_loss": loss, "sample_iou": float(ious.mean())}, -loss, picture)

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean loss of the held-out examples under fixed noise and times, with their whole condition."""
        held_out, batch_size = self.split.held_out, self.recipe.batch
        losses, counts = [], []
        for start in range(0, len(held_out), batch_size):
            batch = self._evaluated(held_out[start : start + batch_size], start, loss_only=True)
            losses.append(float(self.network(batch).total))
            counts.append(len(batch.x0))
        return float(np.average(losses, weights=counts))

    def _evaluated(self, examples: Sequence[ExampleRef], number: int, *, loss_only: bool) -> FlowBatch:
        """Whole condition, fixed noise and times."""
        rng = np.random.default_rng([self.recipe.seed, number])
        everything = np.ones(len(examples), dtype=bool)
        kept = kept_views(examples, rng, (1,) if loss_only and self.recipe.fusion == "stochastic" else (), 0.0)
        return self._batch(examples, kept, [0] * len(examples), everything, everything, rng).to(self.device)

    def load(self, checkpoint: Path) -> None:
        """Parameters of the networks that learn, of a result of the same recipe. Raises `DataFormatError`."""
        stored = open_checkpoint(checkpoint, dtype=torch.float32)
        for role, module in (("image_encoder", self.network.image_encoder), (FLOW_ROLE, self.network.flow)):
            module.load_state_dict(stored.modules[role].state_dict())

    @torch.no_grad()
    def sample(self, examples: Sequence[ExampleRef], hypotheses: int = 1) -> Tensor:
        """Occupancy logits (n, hypotheses, R, R, R) of the examples with their whole condition."""
        batch = self._evaluated(examples, 0, loss_only=False)
        bundle = self.bundle({})
        seeds = [object_seed(self.recipe.seed, f"{e.object_id} {i}") for e in examples for i in range(hypotheses)]
        logits = sample_structures(
            bundle,
            self.network.condition(batch),
            torch.arange(len(examples)).repeat_interleave(hypotheses),
            seeds,
            stage_sampler(bundle, "sparse_structure", SamplingSettings()),
        )
        return logits.unflatten(0, (len(examples), hypotheses))

    @torch.no_grad()
    def sampled(self, examples: Sequence[ExampleRef]) -> tuple[Tensor, Any]:
        """IoU (n,) of one sample of each example, and a picture of them."""
        logits = self.sample(examples)[:, 0]
        truth = true_occupancy(examples)
        ious = intersection_over_union(logits > 0, truth >= 0.5)
        clouds = np.stack([e.shard.clouds(e.row) for e in examples])
        first_view = np.stack([e.shard.crops[e.views.start][:3].transpose(1, 2, 0) for e in examples])
        captions = [f"view, cloud, truth, sample: IoU {iou:.3f}" for iou in ious.tolist()]
        columns = [first_view, clouds, (truth >= 0.5).numpy(), (logits > 0).numpy()]
        return ious, comparison_sheet(columns, captions)

    def bundle(self, metadata: dict[str, Any]) -> ModelBundle:
        """Everything that inference needs, with the sampler's defaults."""
        return replace(
            self.template,
            fusion=self.recipe.fusion,
            samplers=self._samplers(),
            metadata=metadata,
            source=self.recipe.out,
        )

    def _samplers(self) -> dict[str, SamplerDefaults]:
        if self.recipe.start:
            return dict(self.template.samplers)
        strength = self.recipe.guidance_strength
        return {"sparse_structure": SamplerDefaults(guidance_strength=strength, guidance_interval=(0.0, 1.0))}


def true_occupancy(examples: Sequence[ExampleRef]) -> Tensor:
    """(n, R, R, R) occupancy of the examples' objects, as they stand."""
    return structure_batch(examples, np.zeros(len(examples), dtype=bool), [0] * len(examples)).occupancy[:, 0]


def starting_bundle(recipe: FlowRecipe, device: torch.device) -> ModelBundle:
    """What training starts from: a published base with stereo attention added, or random weights; and the VAE."""
    if recipe.start:
        base = open_checkpoint(recipe.start, device=device, dtype=torch.float32)
        flow = base.modules["sparse_structure_flow"]
        if recipe.stereo and not flow.config.stereo_attention:
            flow = add_stereo(flow, fusion_norm=recipe.fusion_norm, gating=recipe.gating)
        modules = {**base.modules, "sparse_structure_flow": flow}
        bundle = replace(base, family="gena3d", modules=modules)
    else:
        bundle = random_bundle(recipe.preset, seed=recipe.seed)
        config = replace(
            bundle.modules["sparse_structure_flow"].config,
            stereo_attention=recipe.stereo,
            gating=recipe.gating,
            fusion_norm=recipe.fusion_norm,
            aligned_stereo=recipe.aligned_stereo,
        )
        bundle = replace(bundle, modules={**bundle.modules, "sparse_structure_flow": SparseStructureFlow(config)})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            for role in ("image_encoder", "sparse_structure_flow"):
                initialise = getattr(bundle.modules[role], "initialise", None)
                if initialise is not None:
                    initialise()
    if recipe.vae:
        vae = open_checkpoint(Path(recipe.vae), device=device, dtype=torch.float32, roles=VAE_ROLES)
        bundle = replace(bundle, modules={**bundle.modules, **vae.modules})
    if missing := [role for role in (*VAE_ROLES, "image_encoder") if role not in bundle.modules]:
        raise InputError(f"{recipe.start} lacks {', '.join(missing)}: give vae=FOLDER and a base with an image encoder")
    latent = bundle.modules[VAE_ROLES[0]].config.latent_channels
    if latent != bundle.modules["sparse_structure_flow"].config.in_channels:
        raise InputError(
            f"{recipe.vae}: its latents have {latent} channels, the flow of preset '{recipe.preset}' reads others"
        )
    return bundle
