"""Scenes with encoders and stage 2 as the published checkpoint has them: narrow, but with its sizes of images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import InputError
from gena3d_core.generative.scene_generator import SceneFlowGenerator, make_scene_generator
from gena3d_core.generative.settings import SamplingSettings
from gena3d_core.layout.relative_layout import Y_UP_MODEL
from gena3d_core.models.geometry.vggt import VggtAggregator, VggtAggregatorConfig
from gena3d_core.models.image_encoders.dinov2 import DinoV2, DinoV2Config
from gena3d_core.models.scene_flow import SceneFlow, SceneFlowConfig
from gena3d_core.models.structured_latent_decoders import StructuredLatentMeshDecoder
from gena3d_core.models.structured_latent_flow import StructuredLatentFlow, StructuredLatentFlowConfig
from gena3d_core.models.structured_latent_vae import StructuredLatentVAEConfig

from ..known_scene import CELLS, CellDecoder, KnownFlow, box_latent, squares

IMAGE_TOKENS = 1374
WIDTH = 16
IDENTITY = [0.0, 0, 0, 1, 0, 0, 0, 1]


def small_networks():
    """Encoders for 518 pixels, and stage 2 on a 64³ grid, all narrow, with random weights."""
    encoder = DinoV2(DinoV2Config(embed_dim=WIDTH, depth=1, num_heads=2))
    geometry = VggtAggregator(VggtAggregatorConfig(width=WIDTH, depth=1, heads=2, encoder=None))
    flow = StructuredLatentFlow(
        StructuredLatentFlowConfig(
            resolution=64,
            in_channels=4,
            out_channels=4,
            model_channels=24,
            cond_channels=WIDTH,
            num_blocks=1,
            num_heads=2,
            io_block_channels=(16,),
        )
    )
    decoder = StructuredLatentMeshDecoder(
        StructuredLatentVAEConfig(resolution=64, model_channels=256, latent_channels=4, num_blocks=1, num_heads=4),
        use_color=True,
    )
    found = {"image_encoder": encoder, "scene_geometry": geometry, "structured_latent_flow": flow}
    return {role: module.eval() for role, module in {**found, "mesh_decoder": decoder}.items()}


@pytest.fixture
def published():
    """Two known boxes; context width and widths of the encoders agree, as they must."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    config = SceneFlowConfig(CELLS, 1, WIDTH, WIDTH, 1, 1, num_heads=2, asset_tokens=IMAGE_TOKENS)
    latents = torch.stack([box_latent((2, 1, 1)), box_latent((1, 1, 1))])
    flow = KnownFlow(config, latents, torch.tensor([IDENTITY, [0.5, 0, 0, 1, 0, 0, 0, 0.5]]))
    modules = {**small_networks(), "sparse_structure_flow": flow, "sparse_structure_decoder": CellDecoder()}
    return ModelBundle(
        "scenegen",
        "published",
        modules,
        frame="canonical",
        fusion="stochastic",
        slat_mean=torch.zeros(4),
        slat_std=torch.ones(4),
        metadata={"model_axes": "y_up"},
    )


@pytest.mark.parametrize("views", [1, 2])
def test_contexts_and_meshes_are_as_published(published, views):
    generator = SceneFlowGenerator(published, settings=SamplingSettings(steps=2))
    assert generator.full
    assert generator.max_views > 1
    found = generator.generate(squares([20, 12], views=views))
    conditions = published.modules["sparse_structure_flow"].conditions
    assert len(conditions) == views
    for condition in conditions:
        assert condition.tokens.shape == (2, 2 * IMAGE_TOKENS, WIDTH)
        assert condition.shared.shape == (1, 3 * IMAGE_TOKENS, WIDTH)  # the image, and both halves of the geometry
    assert not found.upright
    np.testing.assert_array_equal(found.R_model_grid, Y_UP_MODEL)
    for item in found.assets:
        assert item.mesh.vertex_colors is not None
        assert np.abs(item.mesh.vertices).max() <= 0.5
    assert published.samplers == {}
    assert generator.bundle.samplers["sparse_structure"].steps == 25
    assert generator.bundle.samplers["structured_latent"].guidance_strength == 5.0


def test_structure_alone_if_wanted(published):
    generator = SceneFlowGenerator(published, settings=SamplingSettings(steps=1), detail="structure")
    found = generator.generate(squares([20, 12]))
    assert all(item.mesh.vertex_colors is None for item in found.assets)
    lacking = {role: m for role, m in published.modules.items() if role != "mesh_decoder"}
    with pytest.raises(InputError, match="lacks mesh_decoder"):
        SceneFlowGenerator(replace(published, modules=lacking), detail="full")


def test_a_geometry_encoder_may_come_apart(tmp_path):
    torch.manual_seed(1)
    networks = small_networks()
    base = random_bundle("tiny")
    config = SceneFlowConfig(4, 8, WIDTH, WIDTH, 8, 1, num_heads=2, asset_tokens=IMAGE_TOKENS)
    flow = SceneFlow(config)
    flow.initialise()
    decoder = base.modules["sparse_structure_decoder"]
    modules = {"image_encoder": networks["image_encoder"], "sparse_structure_flow": flow.eval()}
    modules["sparse_structure_decoder"] = decoder
    save_bundle(replace(base, family="scenegen", modules=modules), tmp_path / "scenegen")
    save_bundle(replace(base, modules={"scene_geometry": networks["scene_geometry"]}), tmp_path / "vggt")
    with pytest.raises(InputError, match="name one with --geometry-encoder"):
        make_scene_generator(str(tmp_path / "scenegen"))
    made = make_scene_generator(str(tmp_path / "scenegen"), geometry_encoder=str(tmp_path / "vggt"), steps=2)
    assert isinstance(made.bundle.modules["scene_geometry"], VggtAggregator)
    assert made.settings.steps == 2
