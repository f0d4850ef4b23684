"""Generation of whole scenes: who is the query, what several views do, groups, seeds, and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gena3d_core.benchmarks.measuring import with_peak_memory
from gena3d_core.checkpoints.presets import random_bundle, random_scene_bundle
from gena3d_core.errors import EmptyResultError, InputError, MemoryBudgetError
from gena3d_core.generative.flow_generator import FlowGenerator
from gena3d_core.generative.scene_denoiser import scene_denoiser
from gena3d_core.generative.scene_generator import SceneFlowGenerator, _shapes
from gena3d_core.generative.scene_structure import sample_scene
from gena3d_core.generative.settings import SamplingSettings
from gena3d_core.models.scene_flow import SceneCondition, SceneFlow, SceneFlowConfig

from ..known_scene import known_bundle, squares

IDENTITY = [0.0, 0, 0, 1, 0, 0, 0, 1]
RIGHT = [0.9, 0.1, 0.0, -2.0, 0, 0, 0, 0.5]
TURNED = [-0.5, 0.0, 0.2, 0.5, 0, 0, 0.5, 0.0]
"""A quaternion of another length and sign, one of a quarter turn about z, and a scale that was cut off at zero."""


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_the_largest_asset_is_the_query_and_order_is_kept():
    bundle = known_bundle([(6, 4, 4), (4, 4, 4), (2, 2, 6)], [IDENTITY, RIGHT, TURNED])
    found = SceneFlowGenerator(bundle).generate(squares([8, 16, 12]))
    assert found.query == 1
    assert [item.id for item in found.assets] == [10, 20, 30]
    np.testing.assert_allclose(found.poses[1], IDENTITY)
    np.testing.assert_allclose(found.poses[2], [0.9, 0.1, 0, 1, 0, 0, 0, 0.5], atol=1e-6)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found.poses[0], [-0.5, 0, 0.2, half, 0, 0, half, 0.01], atol=1e-6)
    sizes = [np.ptp(item.mesh.vertices, axis=0) * 8 for item in found.assets]
    np.testing.assert_allclose(sizes, [(2, 2, 6), (6, 4, 4), (4, 4, 4)], atol=0.3)
    assert found.upright
    flow = bundle.modules["sparse_structure_flow"]
    assert len(flow.calls) == 25  # a guided step is one pass
    chosen = SceneFlowGenerator(bundle).generate(squares([8, 16, 12]), query=0)
    assert chosen.query == 0
    np.testing.assert_allclose(np.ptp(chosen.assets[0].mesh.vertices, axis=0) * 8, (6, 4, 4), atol=0.3)


def test_views_take_turns_and_poses_are_averaged_properly():
    def about_z(degrees, length, scale):
        half = np.radians(degrees) / 2
        return [1.0, 0, 0, length * np.cos(half), 0, 0, length * np.sin(half), scale]

    views = [[IDENTITY, about_z(0, 1.0, 0.5), about_z(0, 1.0, 1.0)], [IDENTITY, about_z(60, -3.0, 2.0), RIGHT]]
    bundle = known_bundle([(6, 4, 4), (4, 4, 4), (2, 2, 6)], [IDENTITY] * 3, views)
    settings = SamplingSettings(steps=3, guidance_strength=0.0)
    scene = squares([16, 12, 8], views=2, hidden=[(1, 2)])
    found = SceneFlowGenerator(bundle, settings=settings, max_views=2).generate(scene)
    calls = bundle.modules["sparse_structure_flow"].calls
    assert calls == [3] * 4  # two steps with one view each, the last with both
    np.testing.assert_allclose(found.poses[1], about_z(30, 1.0, 1.0), atol=1e-6)
    np.testing.assert_allclose(found.poses[2], about_z(0, 1.0, 1.0), atol=1e-6)  # the other view does not show it
    first, second = bundle.modules["sparse_structure_flow"].conditions
    torch.testing.assert_close(first.tokens[2], second.tokens[2])
    assert not torch.allclose(first.tokens[1], second.tokens[1])


def test_an_upright_grid_takes_the_view_that_shows_most():
    bundle = known_bundle([(4, 4, 4)] * 3, [IDENTITY, RIGHT, RIGHT])
    scene = squares([16, 12, 8], views=3, hidden=[(0, 1), (1, 2), (0, 2)])
    found = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(scene)
    assert found.views == (2,)
    assert found.seen.all()
    (only,) = bundle.modules["sparse_structure_flow"].conditions
    hidden = squares([16, 12, 8], views=2, hidden=[(0, 2), (1, 1), (1, 0)])
    found = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(hidden)
    assert found.views == (0,)
    assert found.seen.tolist() == [True, True, False]
    assert len(bundle.modules["sparse_structure_flow"].conditions) == 2
    assert only.tokens.shape == bundle.modules["sparse_structure_flow"].conditions[1].tokens.shape
    metadata = {"scene_views": 2}
    assert SceneFlowGenerator(known_bundle([(4, 4, 4)], [IDENTITY], metadata=metadata)).max_views == 2


def test_more_assets_than_fit_share_the_query(caplog):
    count = 5
    poses = [IDENTITY] + [[n / 10, 0, 0, 1, 0, 0, 0, 1] for n in range(1, count)]
    bundle = known_bundle([(4, 4, 4)] * count, poses)
    generator = SceneFlowGenerator(bundle, max_assets=3, settings=SamplingSettings(steps=2))
    found = generator.generate(squares([24, 20, 18, 16, 12]))
    assert bundle.modules["sparse_structure_flow"].calls == [3, 3, 3, 3]
    assert found.query == 0
    np.testing.assert_allclose(found.poses[:, 0], [0.0, 0.1, 0.2, 0.1, 0.2], atol=1e-6)
    assert "5 assets are more than 3: they are generated in 2 groups" in caplog.text
    assert found.warnings


@pytest.fixture(scope="module")
def random_weights():
    torch.set_num_threads(1)
    bundle = random_scene_bundle("tiny", seed=1)
    return bundle


def sampled(bundle, scene, seed=0, **settings):
    """Logits and poses by id, without meshes, which random weights make huge."""
    found = {}
    generator = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=3, **settings))
    import gena3d_core.generative.scene_generator as module

    def keep(*arguments):
        result = sample_scene(*arguments)
        for number, logits, pose in zip(arguments[2], result.logits, result.poses, strict=True):
            found[scene.ids[number]] = (logits, pose)
        return replace(result, logits=np.full_like(result.logits, -9.0))

    original = module.sample_scene
    module.sample_scene = keep
    try:
        with pytest.raises(EmptyResultError):
            generator.generate(scene, seed=seed)
    finally:
        module.sample_scene = original
    return found


def test_results_depend_on_the_seed_not_on_the_order_of_the_assets(random_weights):
    scene = squares([8, 16, 12])
    turned = replace(
        scene, ids=scene.ids[::-1], labels=scene.labels[::-1], masks=tuple(masks[::-1].copy() for masks in scene.masks)
    )
    first, again, other = (sampled(random_weights, s, seed) for s, seed in ((scene, 0), (turned, 0), (scene, 1)))
    for id in scene.ids:
        np.testing.assert_allclose(first[id][0], again[id][0], atol=1e-4)
        np.testing.assert_allclose(first[id][1], again[id][1], atol=1e-5)
        assert np.abs(first[id][0] - other[id][0]).max() > 1e-2


def test_a_single_asset_is_a_scene():
    bundle = known_bundle([(4, 4, 4)], [IDENTITY])
    found = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(squares([16]))
    np.testing.assert_allclose(found.poses, [IDENTITY])
    assert len(found.assets[0].mesh.faces)


def test_an_empty_asset_is_told_and_an_empty_query_replaced():
    bundle = known_bundle([(0, 0, 0), (4, 4, 4), (2, 2, 2)], [IDENTITY, RIGHT, [0.9, 0.6, 0, 1, 0, 0, 0, 0.25]])
    found = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2)).generate(squares([16, 12, 8]))
    assert list(found.failures) == [10]
    assert [item.id for item in found.assets] == [20, 30]
    assert found.query == 0
    np.testing.assert_allclose(found.poses[0], IDENTITY, atol=1e-6)
    np.testing.assert_allclose(found.poses[1], [0, 1.0, 0, 1, 0, 0, 0, 0.5], atol=1e-6)
    nothing = known_bundle([(0, 0, 0)], [IDENTITY])
    with pytest.raises(EmptyResultError, match="no occupied voxel"):
        SceneFlowGenerator(nothing, settings=SamplingSettings(steps=2)).generate(squares([16]))


def test_sixteen_assets_need_no_quadratic_buffer():
    config = SceneFlowConfig(8, 1, 32, 16, 1, 1, num_heads=4, asset_tokens=4)
    flow = SceneFlow(config)
    flow.initialise()
    condition = SceneCondition(torch.randn(16, 8, 16), torch.randn(1, 4, 16))
    x = torch.randn(16, 1, 8, 8, 8)
    with torch.no_grad():
        denoiser = scene_denoiser(flow.eval(), condition, assets=16)
        _, working = with_peak_memory(lambda: denoiser.guided(x, 0.5, 0), "cpu")
    tokens = 16 * (8**3 + 5)
    quadratic = 2 * config.num_heads * tokens**2 * 4
    assert quadratic > 2e9
    assert working is None or working < 0.15 * quadratic


def test_bad_input_is_refused():
    bundle = known_bundle([(4, 4, 4)] * 2, [IDENTITY, RIGHT])
    generator = SceneFlowGenerator(bundle, settings=SamplingSettings(steps=2))
    with pytest.raises(InputError, match=r"objects \[20\] have no pixel in any image"):
        generator.generate(squares([16, 8], hidden=[(0, 1)]))
    with pytest.raises(InputError, match="query asset 2 is not one of the 2"):
        generator.generate(squares([16, 8]), query=2)
    with pytest.raises(InputError, match="no checkpoint of SceneGen"):
        SceneFlowGenerator(random_bundle("tiny"))
    with pytest.raises(InputError, match="mode 'scene' takes it"):
        FlowGenerator(bundle)
    lacking = {role: module for role, module in bundle.modules.items() if role != "scene_geometry"}
    with pytest.raises(InputError, match=r"lacks scene_geometry.*--geometry-encoder"):
        SceneFlowGenerator(replace(bundle, modules=lacking))
    with pytest.raises(MemoryBudgetError):
        SceneFlowGenerator(bundle, settings=SamplingSettings(max_memory_bytes=10)).generate(squares([16, 8]))
    with pytest.raises(InputError, match="masks of image 0"):
        replace(squares([16, 8]), masks=(np.zeros((2, 10, 10), bool),))


def test_shapes_of_unsure_networks_are_what_hypotheses_have_in_common():
    logits = np.full((1, 3, 8, 8, 8), -6.0, dtype=np.float32)
    logits[0, :, 2:6, 2:6, 2:6] = 6.0  # all agree on the cube
    logits[0, 0, 2:6, 2:6, 6:] = 6.0  # and each adds something of its own
    logits[0, 1, 2:6, 6:, 2:6] = 6.0
    logits[0, 2, 6:, 2:6, 2:6] = 6.0
    common = _shapes(logits, [7], by_chance=True)[0][0]
    np.testing.assert_array_equal(common.logits > 0, logits[0].min(axis=0) > 0)
    shapes, kept, failures = _shapes(logits, [7], by_chance=False)
    np.testing.assert_array_equal(shapes[0].logits, logits[0, kept])
    assert not failures
