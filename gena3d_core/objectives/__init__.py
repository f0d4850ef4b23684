"""Training objectives: flow matching, the sparse-structure VAE, and the layout of SceneGen's scenes."""

from .flow_matching import (
    estimated_x0,
    interpolate,
    logit_normal,
    noise_level,
    remove_noise,
    sampled_times,
    velocity_loss,
    velocity_target,
)
from .scene import (
    PAPER_SCENE,
    PUBLISHED_SCENE,
    RunningWeight,
    SceneLosses,
    SceneObjective,
    SceneTargets,
    decayed_weight,
    scene_losses,
)
from .sparse_structure import (
    RECONSTRUCTION,
    cross_entropy_loss,
    dice_loss,
    kl_divergence,
    l1_loss,
    sparse_structure_vae_loss,
)

__all__ = [
    "PAPER_SCENE",
    "PUBLISHED_SCENE",
    "RECONSTRUCTION",
    "RunningWeight",
    "SceneLosses",
    "SceneObjective",
    "SceneTargets",
    "cross_entropy_loss",
    "decayed_weight",
    "dice_loss",
    "estimated_x0",
    "interpolate",
    "kl_divergence",
    "l1_loss",
    "logit_normal",
    "noise_level",
    "remove_noise",
    "sampled_times",
    "scene_losses",
    "sparse_structure_vae_loss",
    "velocity_loss",
    "velocity_target",
]
