"""What a training run is told: frozen dataclasses whose fields are the keys of the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from gena3d_core.errors import InputError


@dataclass(frozen=True)
class Recipe:
    """What every run has.

    data, out          folder of shards, folder of the run
    preset             sizes of the networks, a name of `gena3d_core.checkpoints.presets.PRESETS`
    batch, accumulate  examples of one step over all processes; in how many parts a step is computed
    max_steps, epochs, hours   the run ends at the first of them that is reached; 0: no such limit. `hours` counts the
                       time of training over all restarts
    warmup_steps, final_rate   the rate rises over so many steps and falls along a cosine to this share
    clip_norm, adaptive_clip   limit of the gradients' norm; adaptive: min(limit, 95th percentile of past norms)
    precision          of the matrix products; parameters and moments are float32
    held_out           share of the objects (of the training split) that is kept for the evaluation of the run
    evaluate_count     how many held-out examples are evaluated, every evaluate_minutes and at the end
    repeat_everyday    how often an object that is not procedural comes in an epoch
    threads            of the processor; 0: torch's choice. Where other programs keep the cores busy, 1 is several times
                       faster than 2, which wait for one another
    overfit_one        train on the first example only, evaluate on it: the first test of any change
    """

    data: str = ""
    out: str = ""
    preset: str = "edge"
    batch: int = 32
    accumulate: int = 1
    max_steps: int = 0
    epochs: float = 0.0
    hours: float = 0.0
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    final_rate: float = 0.01
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    adaptive_clip: bool = False
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    seed: int = 0
    device: str = "auto"
    compile: bool = False
    threads: int = 0
    save_minutes: float = 5.0
    evaluate_minutes: float = 30.0
    held_out: float = 0.05
    evaluate_count: int = 64
    repeat_everyday: int = 1
    overfit_one: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "out"):
            if not getattr(self, name):
                raise InputError(f"{name} is missing: give {name}=FOLDER")
        if self.batch < 1 or self.accumulate < 1 or self.batch % self.accumulate:
            raise InputError(f"batch {self.batch} must be a positive multiple of accumulate {self.accumulate}")
        if not (self.max_steps or self.epochs or self.hours):
            raise InputError("the run has no end: give max_steps=, epochs= or hours=")
        for name in ("max_steps", "epochs", "hours", "warmup_steps", "weight_decay", "threads", "evaluate_count"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("learning_rate", "clip_norm", "repeat_everyday"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name} must be positive, got {getattr(self, name)}")
        check_shares(self, "final_rate", "ema_decay", "held_out")


@dataclass(frozen=True)
class VaeRecipe(Recipe):
    """The sparse-structure VAE.

    reconstruction   a name of `gena3d_core.objectives.RECONSTRUCTION`
    cloud_share      share of the examples whose partial cloud is reconstructed instead of the object
    """

    reconstruction: str = "bce"
    kl_weight: float = 1e-4
    cloud_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "cloud_share")


@dataclass(frozen=True)
class FlowRecipe(Recipe):
    """Conditional flow matching of the sparse structure (GENA3D eq. 7).

    vae                  folder of the VAE's result; with `start`, empty takes the VAE that comes with it
    start                checkpoint of a published base (TRELLIS, Amodal3R) that gets stereo attention; empty: random
    train_image_encoder  whether the image encoder learns too
    stereo, gating, fusion_norm, fusion   parts of GENA3D, for ablations: attention to the partial cloud (eq. 4-5), its
                         gate (eq. 6), the layer norm after view-wise fusion (eq. 3), and how views are joined:
                         view_wise, concatenated, or stochastic (one view at a time)
    aligned_stereo       whether each token also gets the partial cloud's token at its place (not in the paper)
    variants             how many of the eight upright symmetries (quarter turns, mirror images) of each example are
                         encoded and trained on
    views                numbers of views, one of which is drawn for each batch; empty: each example's own views,
                         of which `view_dropout` of the examples lose a random part
    condition_dropout    share of the examples without any condition (the unconditional branch)
    cloud_dropout, image_dropout   further shares without the partial cloud alone, without the images alone
    time_mean, time_std  of the logit-normal flow times
    guidance_strength    of the samples drawn for the evaluation, and the result's default
    sample_count         how many held-out examples are sampled
    """

    vae: str = ""
    start: str = ""
    train_image_encoder: bool = True
    stereo: bool = True
    gating: bool = True
    fusion_norm: bool = True
    aligned_stereo: bool = True
    fusion: Literal["view_wise", "concatenated", "stochastic"] = "view_wise"
    variants: int = 1
    views: tuple[int, ...] = ()
    view_dropout: float = 0.3
    condition_dropout: float = 0.1
    cloud_dropout: float = 0.1
    image_dropout: float = 0.05
    time_mean: float = 1.0
    time_std: float = 1.0
    guidance_strength: float = 1.0
    sample_count: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "view_dropout", "condition_dropout", "cloud_dropout", "image_dropout")
        if self.condition_dropout + self.cloud_dropout + self.image_dropout > 1:
            raise InputError("condition_dropout, cloud_dropout and image_dropout must not sum to more than 1")
        if self.variants not in (1, 2, 4, 8):
            raise InputError(f"variants must be 1, 2, 4 or 8, got {self.variants}")
        if any(count < 1 for count in self.views):
            raise InputError(f"views must list positive numbers, got {self.views}")
        if not (self.vae or self.start):
            raise InputError("vae is missing: give vae=FOLDER, the result of a VAE recipe")


@dataclass(frozen=True)
class UnetRecipe(Recipe):
    """The feed-forward baseline, from partial clouds to occupancy.

    preset           a name of `gena3d_core.checkpoints.presets.UNETS`
    reconstruction   a name of `gena3d_core.objectives.RECONSTRUCTION`; bce makes its sigmoids probabilities
    """

    reconstruction: Literal["dice", "bce", "l1"] = "bce"


@dataclass(frozen=True)
class SceneRecipe(Recipe):
    """SceneGen: the scene flow with its position head, on shards of scenes.

    batch                scenes of one step, all with the same number of assets
    vae                  folder of the VAE's result; with `start`, empty takes the VAE that comes with it
    start                checkpoint of single objects to grow from, or of scenes to go on from; empty: random
    geometry             checkpoint of VGGT, which stays as it is; empty: a small encoder that learns too
    trainable            scene: only what SceneGen adds (paper 3.3); images: also the object model's attention to an
                         asset's own picture, which then may learn to do without a partial cloud; all: the whole object
                         model, but not its encoder
    quiet_start          see `gena3d_core.models.scene_upgrade.add_scene`
    mask_features, scene_features, geometry_features, joint_assets   parts of SceneGen, for its ablation: F_mask,
                         F_global_V, F_geo, self-attention over the scene instead of within each asset
    mask_boxes, aligned_crops   see `SceneFlowConfig`; a scene model to go on from gets what it lacks
    max_assets           of a scene in a step: those beyond are left out at random
    min_pixels           an asset with fewer visible pixels in a view is left out of that view
    losses               paper or published: the objective and its weight λ
    collision            whether colliding assets cost
    decay_steps          steps after which λ of the paper has fallen by its factor once
    layout_weight        times λ: the norms of positions pull ten times harder than the flow, which learns once they are
                         known and this is small
    asset_times          own: every asset has its own flow time, as in the published code; shared: one for the scene, as
                         when sampling
    condition_dropout    share of the scenes without any condition
    mirror_share         share of the scenes that come mirrored left to right, as many more to learn from
    guidance_strength, sampling_steps   of the samples drawn for the evaluation, and the result's default
    sample_count         how many held-out scenes are sampled
    """

    vae: str = ""
    start: str = ""
    geometry: str = ""
    trainable: Literal["scene", "images", "all"] = "scene"
    quiet_start: bool = True
    mask_features: bool = True
    scene_features: bool = True
    geometry_features: bool = True
    joint_assets: bool = True
    mask_boxes: bool = False
    aligned_crops: bool = False
    max_assets: int = 7
    min_pixels: int = 64
    losses: Literal["paper", "published"] = "paper"
    collision: bool = True
    decay_steps: int = 1
    layout_weight: float = 1.0
    asset_times: Literal["own", "shared"] = "shared"
    condition_dropout: float = 0.1
    mirror_share: float = 0.0
    time_mean: float = 1.0
    time_std: float = 1.0
    guidance_strength: float = 5.0
    sampling_steps: int = 25
    sample_count: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "condition_dropout", "mirror_share")
        if not (self.vae or self.start):
            raise InputError("vae is missing: give vae=FOLDER, the result of a VAE recipe, or start=CHECKPOINT")
        if not self.start and self.trainable != "all":
            raise InputError(
                f"trainable={self.trainable} keeps the object model as it is: give start=CHECKPOINT or trainable=all"
            )
        if self.max_assets < 2 or min(self.decay_steps, self.sampling_steps, self.min_pixels, self.evaluate_count) < 1:
            raise InputError(
                "max_assets must be at least 2; decay_steps, sampling_steps, min_pixels and evaluate_count at least 1"
            )
        if not self.layout_weight > 0:
            raise InputError(f"layout_weight must be positive, got {self.layout_weight}")


def check_shares(recipe: Recipe, *names: str) -> None:
    """Raise `InputError` unless the fields lie in [0, 1]."""
    for name in names:
        if not 0.0 <= getattr(recipe, name) <= 1.0:
            raise InputError(f"{name} must lie between 0 and 1, got {getattr(recipe, name)}")


def field_names(kind: type[Recipe]) -> list[str]:
    """Keys that a recipe of this kind knows."""
    return [field.name for field in fields(kind)]
