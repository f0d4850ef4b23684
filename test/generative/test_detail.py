"""Stage 2: voxels to meshes through structured latents."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gena3d_core.checkpoints.bundle import SamplerDefaults
from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.generative.conditions import encode_condition
from gena3d_core.generative.detail import detailed_meshes
from gena3d_core.generative.inputs import prepare_inputs
from gena3d_core.generative.settings import SamplingSettings, stage_sampler
from gena3d_core.generative.structured_latents import doubled, sample_structured_latents
from gena3d_core.models.structured_latent_decoders import StructuredLatentMeshDecoder
from gena3d_core.models.structured_latent_flow import StructuredLatentFlow, StructuredLatentFlowConfig
from gena3d_core.models.structured_latent_vae import StructuredLatentVAEConfig
from gena3d_core.nn.sparse import SparseTensor

R = 8


@pytest.fixture(scope="module")
def two_stages(tiny):
    """The tiny bundle with a random second stage on an 8³ grid."""
    torch.manual_seed(1)
    flow = StructuredLatentFlow(
        StructuredLatentFlowConfig(
            resolution=R,
            in_channels=4,
            out_channels=4,
            model_channels=24,
            cond_channels=24,
            num_blocks=1,
            num_heads=2,
            io_block_channels=(16,),
        )
    )
    decoder = StructuredLatentMeshDecoder(
        StructuredLatentVAEConfig(resolution=R, model_channels=256, latent_channels=4, num_blocks=1, num_heads=4),
        use_color=True,
    )
    modules = {**tiny.modules, "structured_latent_flow": flow.eval(), "mesh_decoder": decoder.eval()}
    return replace(
        tiny,
        modules=modules,
        samplers={"structured_latent": SamplerDefaults(steps=3)},
        slat_mean=torch.tensor([1.0, 2.0, 3.0, 4.0]),
        slat_std=torch.full((4,), 0.5),
    )


def condition_of(bundle, observations):
    return encode_condition(bundle, prepare_inputs(observations, 32, 64, "observed"), "cpu")


def ball(radius):
    at = (torch.arange(R) + 0.5) / R - 0.5
    return radius - torch.linalg.norm(torch.stack(torch.meshgrid(at, at, at, indexing="ij")), dim=0)


def meshes(bundle, observations, logits, seeds, fusion="view_wise"):
    sampler = stage_sampler(bundle, "structured_latent", SamplingSettings(fusion=fusion))
    return detailed_meshes(bundle, condition_of(bundle, observations), logits, seeds, sampler)


@pytest.mark.parametrize("fusion", ["view_wise", "concatenated", "stochastic", "multidiffusion"])
def test_objects_together_are_objects_alone(two_stages, observations, fusion):
    logits = [ball(0.3), ball(0.4), ball(0.2)]
    together = meshes(two_stages, observations, logits, [1, 2, 3], fusion)
    for number, observation in enumerate(observations):
        alone = meshes(two_stages, [observation], logits[number : number + 1], [1 + number], fusion)[0]
        assert together[number].faces.shape == alone.faces.shape
        assert abs(together[number].vertices - alone.vertices).max() < 1e-3
        assert together[number].vertex_colors.shape == together[number].vertices.shape
        assert abs(together[number].vertices).max() <= 0.5 + 1e-6


def test_latents_are_denormalised(two_stages, observations):
    coords = torch.nn.functional.pad(torch.nonzero(ball(0.4) > 0), (1, 0)).int()
    condition = condition_of(two_stages, observations[:1])
    sampler = stage_sampler(two_stages, "structured_latent", SamplingSettings())
    plain = sample_structured_latents(
        replace(two_stages, slat_mean=None, slat_std=None), condition, coords, [4], sampler
    )
    scaled = sample_structured_latents(two_stages, condition, coords, [4], sampler)
    torch.testing.assert_close(scaled.feats, plain.feats * 0.5 + torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_doubled_grids_repeat_their_samples():
    coords = torch.tensor([[0, 1, 2, 3], [1, 0, 0, 0], [1, 4, 5, 6]], dtype=torch.int32)
    grid = SparseTensor.create(coords, torch.zeros(3, 1)).geometry
    twice = doubled(grid)
    assert twice.batch == 4
    assert twice.coords.tolist() == [*coords.tolist(), [2, 1, 2, 3], [3, 0, 0, 0], [3, 4, 5, 6]]


def test_objects_without_voxels_are_refused(two_stages, observations):
    with pytest.raises((InputError, Gena3DError)):
        meshes(two_stages, observations[:1], [torch.full((R, R, R), -1.0)], [1])


def test_objects_with_different_view_counts_do_not_share_a_call(two_stages, observations):
    coords = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.int32)
    sampler = stage_sampler(two_stages, "structured_latent", SamplingSettings())
    with pytest.raises(InputError, match="equally many views"):
        sample_structured_latents(two_stages, condition_of(two_stages, observations[:2]), coords, [1, 2], sampler)
