"""What the training of SceneGen starts from: a model of single objects, its VAE, and an encoder of scene geometry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.errors import InputError
from gena3d_core.models.scene_flow import SceneFlow
from gena3d_core.models.scene_geometry import (
    SmallSceneGeometry,
    SmallSceneGeometryConfig,
    scene_geometry_encoder,
)
from gena3d_core.models.scene_upgrade import add_hints, add_scene
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow

from .recipes.settings import SceneRecipe

VAE_ROLES = ("sparse_structure_encoder", "sparse_structure_decoder")
ENCODER, FLOW, GEOMETRY = "image_encoder", "sparse_structure_flow", "scene_geometry"
TINY_GEOMETRY = SmallSceneGeometryConfig(stem=(8, 16), width=24, depth=1, heads=2, registers=2)
UNUSED = ("structured_latent_flow", "structured_latent_encoder", "mesh_decoder", "gaussian_decoder",
          "radiance_field_decoder", "completion_unet")  # fmt: skip


def starting_scene_bundle(recipe: SceneRecipe, device: torch.device) -> ModelBundle:
    """Image encoder, scene flow, VAE and geometry encoder. Raises `InputError` for parts that do not fit together."""
    if recipe.start:
        base = open_checkpoint(recipe.start, device=device, dtype=torch.float32)
    else:
        base = _random_base(recipe)
    modules: dict[str, Any] = {role: module for role, module in base.modules.items() if role not in UNUSED}
    if recipe.vae:
        vae = open_checkpoint(Path(recipe.vae), device=device, dtype=torch.float32, roles=VAE_ROLES)
        modules |= vae.modules
    if missing := [role for role in (*VAE_ROLES, ENCODER, FLOW) if role not in modules]:
        raise InputError(f"{recipe.start} lacks {', '.join(missing)}: give vae=FOLDER and a base with an image encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        modules[FLOW] = _scene_flow(modules[FLOW], modules[ENCODER], recipe)
        _add_geometry(modules, recipe, device)
    latent = modules[VAE_ROLES[0]].config.latent_channels
    if latent != modules[FLOW].config.in_channels:
        raise InputError(f"{recipe.vae or recipe.start}: its latents have {latent} channels, the flow reads others")
    family = "scenegen" if recipe.preset == "full" else "edge"
    return replace(base, family=family, modules=modules)


def _random_base(recipe: SceneRecipe) -> ModelBundle:
    """Random weights; no attention to partial clouds, which scenes do not have."""
    bundle = random_bundle(recipe.preset, seed=recipe.seed)
    given = bundle.modules[FLOW].config
    config = replace(given, stereo_attention=False, aligned_stereo=False, fusion_norm=False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        flow = SparseStructureFlow(config)
        flow.initialise()
        initialise = getattr(bundle.modules[ENCODER], "initialise", None)
        if initialise is not None:
            initialise()
    return replace(bundle, modules={**bundle.modules, FLOW: flow})


def _scene_flow(flow: nn.Module, encoder: Any, recipe: SceneRecipe) -> SceneFlow:
    """The flow grown into one of scenes, or as it is if it is one already."""
    if isinstance(flow, SceneFlow):
        return add_hints(flow, mask_boxes=recipe.mask_boxes, aligned_crops=recipe.aligned_crops)
    if not isinstance(flow, SparseStructureFlow):
        raise InputError(f"{recipe.start}: a {type(flow).__name__} cannot start SceneGen")
    with torch.no_grad():
        parameter = next(encoder.parameters())
        blank = torch.zeros(1, 5, encoder.image_size, encoder.image_size, device=parameter.device)
        tokens = encoder.encode(blank).shape[1]
    return add_scene(
        flow,
        asset_tokens=tokens,
        joint_assets=recipe.joint_assets,
        quiet=recipe.quiet_start,
        mask_boxes=recipe.mask_boxes,
        aligned_crops=recipe.aligned_crops,
    )


def _add_geometry(modules: dict[str, Any], recipe: SceneRecipe, device: torch.device) -> None:
    width = modules[FLOW].config.cond_channels
    if not recipe.geometry_features:
        modules.pop(GEOMETRY, None)
        return
    if recipe.geometry:
        found = open_checkpoint(recipe.geometry, device=device, dtype=torch.float32).modules.get(GEOMETRY)
        if found is None:
            raise InputError(f"{recipe.geometry} holds no network of scene geometry, such as VGGT")
        modules[GEOMETRY] = found
    elif GEOMETRY not in modules:
        sizes = TINY_GEOMETRY if recipe.preset == "tiny" else SmallSceneGeometryConfig()
        small = SmallSceneGeometry(replace(sizes, out_width=width))
        small.initialise()
        modules[GEOMETRY] = small
    encoder = scene_geometry_encoder(modules[GEOMETRY])
    if encoder.width != width:
        raise InputError(f"geometry tokens of {encoder.width} channels do not fit a context of {width}")
