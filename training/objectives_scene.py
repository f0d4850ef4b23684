"""Training of SceneGen: flow matching of all assets of a scene together, their layout and their collisions (3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gena3d_core.checkpoints.bundle import ModelBundle, SamplerDefaults
from gena3d_core.errors import InputError
from gena3d_core.generative.hypotheses import TEMPERATURE
from gena3d_core.generative.scene_inputs import GEOMETRY_SIZE, PARTS
from gena3d_core.models.scene_condition import SceneParts, SceneViewTensors, scene_condition, without_condition
from gena3d_core.models.scene_flow import SceneCondition, first_assets
from gena3d_core.models.scene_geometry import scene_geometry_encoder
from gena3d_core.models.scene_upgrade import SCENE_PARTS
from gena3d_core.nn.attention import set_attention_backend
from gena3d_core.objectives import (
    PAPER_SCENE,
    PUBLISHED_SCENE,
    RunningWeight,
    SceneLosses,
    SceneTargets,
    decayed_weight,
    scene_losses,
)
from gena3d_core.sampling.denoisers import NETWORK_TIME

from .latents import LatentStore, ensure_latents
from .recipes.settings import SceneRecipe
from .scene_datasets import AssetRows, SceneBatch, SceneSample, SceneSplit, equal_counts, scene_batch
from .scene_evaluation import sampled_scenes, scene_picture
from .scene_start import ENCODER, FLOW, GEOMETRY, VAE_ROLES, starting_scene_bundle
from .task import Evaluation, Loss

DEAD = ("position_head.trunk", ("q_norm", "k_norm"))
"""Parameters of the head's single-token attention on which nothing depends."""

TRAINABLE: dict[str, tuple[str, ...]] = {
    "scene": SCENE_PARTS,
    "images": (*SCENE_PARTS, ".operations.cross_attn."),
    "all": ("",),
}
"""What learns (see `SceneRecipe`): parameters of the flow with one of these in their names."""


class SceneNetwork(nn.Module):
    """Encoders and scene flow, and their loss."""

    steps: Tensor
    ratio: Tensor
    counters = ("steps", "ratio")

    def __init__(self, modules: dict[str, Any], recipe: SceneRecipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.image_encoder, self.flow, self.decoder = modules[ENCODER], modules[FLOW], modules[VAE_ROLES[1]]
        self.geometry = modules.get(GEOMETRY)
        self.parts = SceneParts(recipe.mask_features, recipe.scene_features, recipe.geometry_features)
        objective = PAPER_SCENE if recipe.losses == "paper" else PUBLISHED_SCENE
        self.objective = objective if recipe.collision else replace(objective, collision="none")
        # What λ depends on goes on where it was when a run is taken up again.
        self.register_buffer("steps", torch.zeros((), dtype=torch.long), persistent=False)
        self.register_buffer("ratio", torch.tensor(float("nan"), dtype=torch.float64), persistent=False)
        self._freeze()

    def _freeze(self) -> None:
        self.image_encoder.requires_grad_(False)
        self.decoder.requires_grad_(False)
        if self.geometry is not None:
            self.geometry.requires_grad_(not self.recipe.geometry)
        learns = TRAINABLE[self.recipe.trainable]
        for name, parameter in self.flow.named_parameters():
            dead = DEAD[0] in name and any(part in name for part in DEAD[1])
            parameter.requires_grad_(any(part in name for part in learns) and not dead)

    def condition(self, batch: SceneBatch) -> SceneCondition:
        """As at inference, with zeros for scenes whose condition is dropped."""
        crops = torch.cat([batch.crops[:, :3].float() / 255.0, batch.crops[:, 3:].float()], dim=1)
        view = SceneViewTensors(crops, batch.masks, batch.scene.float() / 255.0)
        tokens = None
        if self.geometry is not None and self.parts.geometry:
            encoder = scene_geometry_encoder(self.geometry)
            images = batch.geometry[:, None].float() / 255.0
            learns = torch.is_grad_enabled() and not self.recipe.geometry
            with torch.set_grad_enabled(learns):
                tokens = encoder.encode(images, batch.instances[:, None])[:, 0]
        return without_condition(scene_condition(self.image_encoder, view, tokens, self.parts), batch.dropped)

    def losses(self, batch: SceneBatch) -> SceneLosses:
        """Parts of the objective."""
        assets = batch.assets
        query = first_assets(batch.x0, assets)
        targets = SceneTargets(batch.x0, batch.noise, batch.t, batch.poses, query, assets)
        x_t = targets.noised(self.objective.sigma_min)
        condition = self.condition(batch)
        contexts, times = self.flow.contexts(condition), NETWORK_TIME * batch.t
        velocity, tokens = self.flow(x_t, times, contexts, assets=assets, query=query, hints=condition.hints)
        kind = batch.x0.device.type
        halved = torch.is_autocast_enabled(kind)

        def decode(latents: Tensor) -> Tensor:
            # Voxels are points by a threshold, as in the paper: assets learn to move apart, not to shrink.
            with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=halved):
                return self.decoder(latents)

        # Poses are numbers to be exact about: three digits of bfloat16 are more than the Huber norm's threshold.
        with torch.autocast(kind, enabled=False):
            poses = self.flow.poses(tokens.float())
            return scene_losses(velocity.float(), poses, targets, decode, self.objective)

    def forward(self, batch: SceneBatch) -> Loss:
        found = self.losses(batch)
        weight = self._weight(found)
        errors = dict(zip(("translation_error", "rotation_error", "scale_error"), found.errors, strict=True))
        parts = {"flow": found.flow, "position": found.position, "collision": found.collision}
        shown = {**parts, "collision_share": found.collision_share, **errors}
        weight *= self.recipe.layout_weight
        shown["layout_weight"] = torch.as_tensor(weight, device=found.flow.device)
        return Loss(found.total(weight), {name: value.detach() for name, value in shown.items()})

    def _weight(self, found: SceneLosses) -> float:
        """λ of this step; the counters move on only in training."""
        if self.recipe.losses == "paper":
            count = int(self.steps) // (self.recipe.decay_steps * self.recipe.accumulate)
            if self.training:
                self.steps += 1
            return decayed_weight(count)
        known = float(self.ratio)
        running = RunningWeight(None if np.isnan(known) else known)
        weight = running(found)
        if self.training and running.ratio is not None:
            self.ratio.fill_(running.ratio)
        return weight


class SceneTask:
    """A `Task`: see there."""

    def __init__(
        self,
        recipe: SceneRecipe,
        split: SceneSplit,
        device: torch.device,
        *,
        rank: int = 0,
        world: int = 1,
        cancelled: Any = None,
    ) -> None:
        self.recipe, self._split, self.device = recipe, split, device
        self.template = starting_scene_bundle(recipe, device)
        modules = {role: module.to(device) for role, module in self.template.modules.items()}
        self.network: Any = SceneNetwork(modules, recipe).to(device)
        self.network.image_encoder.to(memory_format=torch.channels_last)
        if device.type == "cpu":
            set_attention_backend(self.network, "products")
        samples = [*split.train, *split.held_out]
        shards = list({s.shard.folder: AssetRows(s.shard) for s in samples}.values())
        _check_sizes(recipe, shards[0], self.network.image_encoder.image_size)
        precision = torch.bfloat16 if recipe.precision == "bfloat16" else torch.float32
        self.latents: LatentStore = ensure_latents(
            modules[VAE_ROLES[0]].requires_grad_(False),
            shards,
            2 if recipe.mirror_share else 1,
            device,
            clouds=False,
            rank=rank,
            world=world,
            precision=precision,
            cancelled=cancelled,
        )

    @property
    def split(self) -> SceneSplit:
        """Samples to train on and to evaluate on."""
        return self._split

    def batch(self, indices: Sequence[int], rng: np.random.Generator) -> SceneBatch:
        """Scenes of equally many assets in random order behind the query, random noise and flow times."""
        r = self.recipe
        return scene_batch(
            equal_counts(self.split, indices, rng),
            self.latents,
            rng,
            max_assets=r.max_assets,
            dropout=r.condition_dropout,
            shared_times=r.asset_times == "shared",
            times=(r.time_mean, r.time_std),
            mirror_share=r.mirror_share,
        )

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """Losses of held-out scenes under fixed noise and times, and what samples of a few of them are like.

        Score: minus the flow's loss and the error of the translations.
        """
        parts: dict[str, list[float]] = {}
        weights: list[int] = []
        for number, samples in enumerate(self._evaluated(self.split.held_out)):
            found = self.network.losses(self._fixed(samples, number))
            values = {"flow": found.flow, "position": found.position, "translation_error": found.errors[0]}
            for name, value in values.items():
                parts.setdefault(name, []).append(float(value))
            weights.append(len(samples))
        metrics = {f"held_out_{name}": float(np.average(v, weights=weights)) for name, v in parts.items()}
        held_out = self.split.held_out
        count = min(self.recipe.sample_count, len(held_out))
        shown = [held_out[i * len(held_out) // count] for i in range(count)] if count else []
        results = [sampled_scenes(self, self._fixed([sample], 0), sample) for sample in shown]
        if results:
            metrics |= {name: float(np.mean([r.metrics[name] for r in results])) for name in results[0].metrics}
        score = -metrics["held_out_flow"] - metrics["held_out_translation_error"]
        return Evaluation(metrics, score, scene_picture(results))

    def _evaluated(self, samples: Sequence[SceneSample]) -> list[list[SceneSample]]:
        """In groups of equally many assets, at most a batch each."""
        groups: dict[int, list[SceneSample]] = {}
        for sample in samples:
            groups.setdefault(len(sample.assets), []).append(sample)
        size = self.recipe.batch
        return [group[i : i + size] for group in groups.values() for i in range(0, len(group), size)]

    def _fixed(self, samples: Sequence[SceneSample], number: int) -> SceneBatch:
        """Whole condition, largest assets first, fixed noise and times."""
        rng = np.random.default_rng([self.recipe.seed, number])
        most = self.recipe.max_assets
        return scene_batch(samples, self.latents, rng, max_assets=most, shuffled=False).to(self.device)

    def bundle(self, metadata: dict[str, Any]) -> ModelBundle:
        """Everything that inference needs, with the sampler's defaults."""
        r = self.recipe
        defaults = SamplerDefaults(steps=r.sampling_steps, guidance_strength=r.guidance_strength)
        if not r.start:
            defaults = replace(defaults, guidance_interval=(0.0, 1.0))
        first = self.split.train[0]
        frame = first.shard.info[first.row].get("frame", self.template.frame)
        facts = {
            **{key: value for key, value in self.template.metadata.items() if key == TEMPERATURE},
            **metadata,
            "geometry_encoder": r.geometry or "own",
            GEOMETRY_SIZE: int(first.shard.arrays["geometry"].shape[-1]),
            PARTS: asdict(self.network.parts),
        }
        # A geometry encoder with a checkpoint of its own is named, not copied.
        left_out = {GEOMETRY} if r.geometry else set()
        return replace(
            self.template,
            modules={role: module for role, module in self.template.modules.items() if role not in left_out},
            frame=frame,
            samplers={"sparse_structure": defaults},
            metadata=facts,
            source=r.out,
        )


def _check_sizes(recipe: SceneRecipe, first: AssetRows, image_size: int) -> None:
    """Raise `InputError` for shards of pictures that the image encoder was not made for."""
    side = first.shard.arrays["crops"].shape[-1]
    if side != image_size:
        raise InputError(
            f"{recipe.data}: its crops are {side} pixels wide and the image encoder's {image_size}: render them with "
            f"--image-size {image_size}"
        )
