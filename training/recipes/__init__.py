"""Recipes by name: the kind of run, and what differs from the defaults of its dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gena3d_core.errors import InputError

from .overrides import parse_overrides
from .settings import FlowRecipe, Recipe, SceneRecipe, UnetRecipe, VaeRecipe


@dataclass(frozen=True)
class NamedRecipe:
    """A kind of run and its own defaults."""

    kind: type[Recipe]
    defaults: Mapping[str, Any]


PAPER = {
    "preset": "full",
    "batch": 32,
    "epochs": 12.0,
    "learning_rate": 5e-5,
    "warmup_steps": 1000,
    "weight_decay": 0.0,
    "betas": (0.9, 0.999),
    "ema_decay": 0.9999,
    "adaptive_clip": True,
}
"""GENA3D §4 and TRELLIS, whose trainer it builds on."""

RECIPES: dict[str, NamedRecipe] = {
    "vae_tiny": NamedRecipe(VaeRecipe, {"preset": "tiny", "batch": 8, "warmup_steps": 10, "ema_decay": 0.95}),
    "vae_edge": NamedRecipe(VaeRecipe, {"batch": 16, "hours": 1.5, "evaluate_minutes": 15.0}),
    "vae_paper": NamedRecipe(VaeRecipe, {**PAPER, "reconstruction": "dice", "kl_weight": 1e-3, "learning_rate": 1e-4}),
    "flow_tiny": NamedRecipe(
        FlowRecipe, {"preset": "tiny", "batch": 8, "warmup_steps": 10, "ema_decay": 0.95, "sample_count": 2}
    ),
    "flow_edge": NamedRecipe(
        FlowRecipe,
        {"batch": 32, "hours": 8.0, "learning_rate": 5e-4, "warmup_steps": 500, "ema_decay": 0.9995, "variants": 4},
    ),
    "flow_small": NamedRecipe(
        FlowRecipe,
        {"preset": "small", "batch": 32, "hours": 1.0, "learning_rate": 1e-3, "warmup_steps": 100, "variants": 4},
    ),
    "unet_tiny": NamedRecipe(UnetRecipe, {"preset": "tiny", "batch": 8, "warmup_steps": 10, "ema_decay": 0.95}),
    "unet_edge": NamedRecipe(
        UnetRecipe,
        {"batch": 32, "hours": 4.0, "learning_rate": 5e-4, "warmup_steps": 500, "ema_decay": 0.999},
    ),
    "flow_paper": NamedRecipe(
        FlowRecipe,
        {
            **PAPER,
            "start": "amodal3r",
            "views": (1, 2, 3, 4),
            "train_image_encoder": False,
            "cloud_dropout": 0.0,
            "image_dropout": 0.0,
            "guidance_strength": 5.0,
        },
    ),
    "scene_tiny": NamedRecipe(
        SceneRecipe,
        {
            "preset": "tiny",
            "batch": 4,
            "warmup_steps": 10,
            "ema_decay": 0.95,
            "trainable": "all",
            "mask_boxes": True,
            "aligned_crops": True,
            "guidance_strength": 0.0,
            "sampling_steps": 6,
            "sample_count": 2,
        },
    ),
    "scene_edge": NamedRecipe(
        SceneRecipe,
        {
            "batch": 16,
            "start": "edge",
            "hours": 6.0,
            "learning_rate": 5e-4,
            "warmup_steps": 500,
            "ema_decay": 0.9995,
            "decay_steps": 1,
            "trainable": "images",
            "mask_boxes": True,
            "aligned_crops": True,
            "sampling_steps": 12,
            "mirror_share": 0.5,
            "guidance_strength": 1.0,
        },
    ),
    "scene_paper": NamedRecipe(
        SceneRecipe,
        {
            **PAPER,
            "batch": 8,
            "epochs": 240.0,
            "start": "trellis-image-large",
            "quiet_start": False,
            "asset_times": "own",
            # λ falls once an epoch: 30 thousand samples in batches of 8.
            "decay_steps": 3750,
        },
    ),
}
"""paper: from a published base under torchrun on 8 GPUs; edge: what ships with the package; tiny: for tests."""


def make_recipe(name: str, words: Sequence[str]) -> Recipe:
    """The recipe `name` with the `key=value` of `words`; `InputError` for names, keys and values that do not fit."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe '{name}', one of {', '.join(RECIPES)}")
    named = RECIPES[name]
    return named.kind(**{**named.defaults, **parse_overrides(named.kind, words)})
