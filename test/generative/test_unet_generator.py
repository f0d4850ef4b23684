"""The generator over the feed-forward U-Net: same contract as the flow's, chosen by what the checkpoint holds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.presets import random_unet
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import CancelledError, IncompleteError, InputError
from gena3d_core.generation import free_space_resolution, make_generator
from gena3d_core.generative.flow_generator import FlowGenerator
from gena3d_core.generative.inputs import prepare_inputs
from gena3d_core.generative.unet_generator import UnetGenerator
from gena3d_core.types import VoxelGrid


@pytest.fixture
def bundle():
    """Random weights: about half of all voxels are filled."""
    return random_unet("tiny", seed=3)


def test_results_do_not_depend_on_the_list_the_seed_or_the_number_of_samples(bundle, observations):
    reports = []
    generator = UnetGenerator(bundle)
    made = generator.generate(observations, progress=lambda stage, done: reports.append(done))
    again = generator.generate(observations[::-1], seed=7, hypotheses=3)
    assert [item.id for item in made] == [1, 2, 3]
    for item, other in zip(made, again[::-1], strict=True):
        np.testing.assert_allclose(item.mesh.vertices, other.mesh.vertices, atol=1e-4)
        assert len(item.mesh.faces)
        assert item.mesh.vertex_confidence.min() >= 0
        assert item.mesh.vertex_confidence.max() <= 1
        assert item.residuals["observed_coverage_after"] >= 0.99
    assert reports == pytest.approx([1 / 3, 2 / 3, 1])
    assert generator.generate([]) == []


def test_the_probability_is_the_networks_own_where_voxels_are_possible(bundle, observations):
    inputs = prepare_inputs(observations[:1], 16, 64, "observed")
    with torch.no_grad():
        logits = bundle.modules["completion_unet"](torch.from_numpy(inputs.clouds)[:, None].float())[0, 0]
    for temperature in (1.0, 2.0):
        stated = replace(bundle, metadata={"occupancy_temperature": temperature})
        made = UnetGenerator(stated).generate(observations[:1])[0]
        np.testing.assert_array_equal(made.occupancy.S_world_grid, inputs.S_world_grid[0])
        possible = made.occupancy.probability > 0
        assert 0.5 < possible.mean() < 1.0
        expected = torch.sigmoid(logits / temperature).numpy()
        np.testing.assert_allclose(made.occupancy.probability[possible], expected[possible], atol=1e-5)


def test_what_cameras_proved_empty_is_empty(bundle, observations):
    with torch.no_grad():
        bundle.modules["completion_unet"].out_layer.bias.fill_(6.0)  # everything full
    generator = UnetGenerator(bundle)
    S_world_grid = prepare_inputs(observations[:1], 16, 64, "observed").S_world_grid[0]
    side_m = float(np.linalg.norm(S_world_grid[:3, 0]))
    state = np.full((64, 64, 64), VoxelGrid.UNKNOWN, dtype=np.uint8)
    state[:, :, 48:] = VoxelGrid.FREE
    free = VoxelGrid(S_world_grid[:3, 3] - side_m / 2, side_m / 64, state)
    made = generator.generate([replace(observations[0], free_space=free)])[0]
    assert made.residuals["free_space_violation_before"] > 0.1
    assert made.residuals["free_space_violation_after"] == 0
    assert free_space_resolution(generator) == 64


def test_an_object_that_gives_nothing_does_not_cost_the_others(bundle, observations):
    few = {name: getattr(observations[0], name)[:3] for name in ("points_m", "point_colors", "point_view")}
    with pytest.raises(IncompleteError, match="object 1: none of its points") as caught:
        UnetGenerator(bundle).generate([replace(observations[0], **few), *observations[1:]])
    assert [item.id for item in caught.value.completed] == [2, 3]


def test_cancellation(bundle, observations):
    with pytest.raises(CancelledError):
        UnetGenerator(bundle).generate(observations, cancelled=lambda: True)


def test_a_saved_one_is_chosen_by_its_role(bundle, observations, tmp_path):
    save_bundle(bundle, tmp_path / "unet")
    generator = make_generator("edge", checkpoint=str(tmp_path / "unet"))
    assert isinstance(generator, UnetGenerator)
    found, wanted = generator.generate(observations[:1])[0], UnetGenerator(bundle).generate(observations[:1])[0]
    np.testing.assert_array_equal(found.mesh.vertices, wanted.mesh.vertices)
    for options in ({"steps": 3}, {"guidance_strength": 2.0}, {"max_memory": "1GB"}, {"detail": "full"}):
        with pytest.raises(InputError, match="feed-forward"):
            make_generator("edge", checkpoint=str(tmp_path / "unet"), **options)


def test_checkpoints_that_do_not_fit_are_refused(bundle, tiny):
    with pytest.raises(InputError, match="lacks completion_unet"):
        UnetGenerator(tiny)
    with pytest.raises(InputError, match="lacks sparse_structure_flow"):
        FlowGenerator(bundle)
    with pytest.raises(InputError, match="frame 'observed'"):
        UnetGenerator(replace(bundle, frame="canonical"))
