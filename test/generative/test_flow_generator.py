"""The generator over a checkpoint: the same result however the work is cut, and clear errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gena3d_core.errors import CancelledError, IncompleteError, InputError, MemoryBudgetError
from gena3d_core.generation import make_generator
from gena3d_core.generative.conditions import encode_condition
from gena3d_core.generative.flow_generator import FlowGenerator
from gena3d_core.generative.inputs import prepare_inputs
from gena3d_core.generative.settings import SamplingSettings, stage_sampler
from gena3d_core.generative.structure import sample_structures, structure_row_bytes
from gena3d_core.sampling import object_seed

FUSIONS = ["view_wise", "concatenated", "stochastic", "multidiffusion"]
STEPS = 4


def structures(bundle, observations, objects, seeds, fusion="view_wise", budget=None):
    generator = FlowGenerator(bundle)
    inputs = prepare_inputs(observations, generator.image_size, generator.resolution, bundle.frame)
    condition = encode_condition(bundle, inputs, "cpu")
    sampler = stage_sampler(bundle, "sparse_structure", SamplingSettings(steps=STEPS, fusion=fusion))
    return sample_structures(bundle, condition, torch.tensor(objects), seeds, sampler, budget)


def with_points(observation, count):
    fields = {name: getattr(observation, name)[:count] for name in ("points_m", "point_colors", "point_view")}
    return replace(observation, **fields)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_batched_is_one_by_one(tiny, observations, fusion):
    together = structures(tiny, observations, [0, 1, 2], [10, 11, 12], fusion)
    for number, observation in enumerate(observations):
        alone = structures(tiny, [observation], [0], [10 + number], fusion)
        torch.testing.assert_close(together[number], alone[0], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_hypotheses_are_independent_rows(tiny, observations, fusion):
    rows = structures(tiny, observations[1:], [0, 0, 1, 1], [1, 2, 1, 2], fusion)
    for row, (number, seed) in enumerate([(0, 1), (0, 2), (1, 1), (1, 2)]):
        alone = structures(tiny, [observations[1 + number]], [0], [seed], fusion)
        torch.testing.assert_close(rows[row], alone[0], atol=2e-5, rtol=1e-4)
    assert (rows[0] - rows[1]).abs().max() > 1e-2


def test_chunks_change_nothing(tiny, observations):
    objects, seeds = [0, 0, 1, 1, 2], [1, 2, 3, 4, 5]
    whole = structures(tiny, observations, objects, seeds)
    inputs = prepare_inputs(observations, 32, 64, "observed")
    row = structure_row_bytes(tiny, encode_condition(tiny, inputs, "cpu"))
    torch.testing.assert_close(
        structures(tiny, observations, objects, seeds, budget=int(3 * row)), whole, atol=2e-5, rtol=1e-4
    )
    with pytest.raises(MemoryBudgetError, match="--max-memory"):
        structures(tiny, observations, objects, seeds, budget=int(row / 2))


def test_views_cloud_and_masks_matter(tiny, observations):
    base = structures(tiny, [observations[1]], [0], [1])
    moved = with_points(observations[1], 300)
    dark = replace(observations[1], views=tuple(replace(v, color=v.color // 4) for v in observations[1].views))
    less = replace(
        observations[1], visible_masks=(observations[1].visible_masks[0] & False, *observations[1].visible_masks[1:])
    )
    for changed in (moved, dark, less):
        assert (structures(tiny, [changed], [0], [1]) - base).abs().max() > 1e-4


def test_generated_objects(tiny, observations):
    reports = []
    generator = FlowGenerator(tiny, settings=SamplingSettings(steps=STEPS))
    made = generator.generate(observations, seed=5, hypotheses=2, progress=lambda stage, f: reports.append((stage, f)))
    again = generator.generate(list(reversed(observations)), seed=5, hypotheses=2)
    assert [item.id for item in made] == [1, 2, 3]
    for item, other in zip(made, reversed(again), strict=True):
        np.testing.assert_allclose(item.mesh.vertices, other.mesh.vertices, atol=1e-3)
        assert len(item.mesh.faces)
        assert item.mesh.vertex_confidence.min() >= 0
        assert item.mesh.vertex_confidence.max() <= 1
        # The grid stands around the ball: its centre within a ball's width, its side wider than the ball.
        side_m = np.linalg.norm(item.S_world_mesh[:3, 0])
        assert 0.1 < side_m < 0.4
        assert np.linalg.norm(item.S_world_mesh[:3, 3] - [0.1 * item.id, 0.0, 0.05]) < 0.05
    fractions = [fraction for _, fraction in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    assert generator.generate([]) == []


def test_canonical_checkpoints_leave_the_pose_open(tiny, observations):
    generator = FlowGenerator(replace(tiny, frame="canonical"), settings=SamplingSettings(steps=2))
    made = generator.generate(observations[:1])[0]
    assert made.S_world_mesh is None
    assert made.occupancy.S_world_grid is None
    # Nothing is known of where its voxels lie.
    assert not made.residuals
    assert generator.free_space_resolution == 0


def test_occupancy_is_what_all_hypotheses_say(tiny, observations):
    sampled = structures(tiny, observations[:1], [0, 0, 0], [object_seed(5, 1, n) for n in range(3)])
    settings = SamplingSettings(steps=STEPS)
    for temperature in (1.0, 2.5):
        bundle = replace(tiny, metadata={"occupancy_temperature": temperature})
        made = FlowGenerator(bundle, settings=settings).generate(observations[:1], seed=5, hypotheses=3)[0]
        np.testing.assert_array_equal(made.occupancy.S_world_grid, made.S_world_mesh)
        expected = torch.sigmoid(sampled / temperature).mean(dim=0).numpy()
        # Voxels under the table are empty whatever the samples say.
        possible = made.occupancy.probability > 0
        assert 0.5 < possible.mean() < 1.0
        np.testing.assert_allclose(made.occupancy.probability[possible], expected[possible], atol=1e-4)
        assert made.residuals["observed_coverage_after"] >= 0.99


def test_objects_without_a_result_do_not_cost_the_others(tiny, observations, monkeypatch):
    def first_is_empty(bundle, condition, objects, seeds, sampler, budget):
        logits = sample_structures(bundle, condition, objects, seeds, sampler, budget)
        logits[objects == 0] = -9.0
        return logits

    monkeypatch.setattr("gena3d_core.generative.flow_generator.sample_structures", first_is_empty)
    unseen = replace(observations[0], points_m=observations[0].points_m[:3], point_view=observations[0].point_view[:3])
    generator = FlowGenerator(tiny, settings=SamplingSettings(steps=2))
    with pytest.raises(IncompleteError, match="object 1: the generator found no occupied voxel") as caught:
        generator.generate([unseen, *observations[1:]], hypotheses=2)
    assert [item.id for item in caught.value.completed] == [2, 3]
    assert set(caught.value.reasons) == {1}


def test_an_object_without_a_usable_cloud_is_generated_from_its_views(tiny, observations):
    sparse = replace(observations[0], points_m=observations[0].points_m[:3], point_view=observations[0].point_view[:3])
    generator = FlowGenerator(tiny, settings=SamplingSettings(steps=2))
    assert len(generator.generate([sparse])[0].mesh.faces)


def test_cancellation(tiny, observations):
    asked = []

    def cancelled():
        asked.append(0)
        return len(asked) > 3

    with pytest.raises(CancelledError):
        FlowGenerator(tiny, settings=SamplingSettings(steps=STEPS)).generate(observations, cancelled=cancelled)
    assert len(asked) == 4


def test_an_invisible_object_is_refused(tiny, observations):
    hidden = replace(observations[0], visible_masks=(observations[0].visible_masks[0] & False,))
    with pytest.raises(InputError, match="visible in none of its views"):
        FlowGenerator(tiny).generate([hidden])


def test_a_checkpoint_that_lacks_a_network_is_refused(tiny):
    with pytest.raises(InputError, match="mesh_decoder"):
        FlowGenerator(tiny, detail="full")
    without = replace(tiny, modules={k: v for k, v in tiny.modules.items() if k != "sparse_structure_decoder"})
    with pytest.raises(InputError, match="sparse_structure_decoder"):
        FlowGenerator(without)


def test_the_budget_must_hold_the_weights(tiny, observations):
    generator = FlowGenerator(tiny, settings=SamplingSettings(max_memory_bytes=1000))
    with pytest.raises(MemoryBudgetError, match="weights"):
        generator.generate(observations)


@pytest.mark.parametrize("options", [{"steps": 0}, {"guidance_strength": -1.0}])
def test_bad_settings(options):
    with pytest.raises(InputError, match=next(iter(options))):
        SamplingSettings(**options)


def test_the_family_without_files_says_where_they_are_looked_for():
    with pytest.raises(Exception, match="amodal3r"):
        make_generator("amodal3r")
