"""The node with a generator that has a checkpoint: parameters to completed objects on the topic."""

import pytest
import torch

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import StageError
from gena3d_core.generative.scene_generator import SceneFlowGenerator
from gena3d_core.generative.settings import SamplingSettings
from gena3d_core.simulation import find_scene, views_from_scene
from gena3d_core.types import Reconstruction, Scene
from gena3d_ros import conversions
from gena3d_ros.diagnostics import ERROR
from gena3d_ros.reconstruction_request import Request, make_pipeline, reconstruct

from ...known_scene import known_bundle


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_bundle(random_bundle("tiny", seed=3), folder)
    return folder


@pytest.fixture
def make_real_node(ros, tmp_path):
    from gena3d_ros.reconstruction import ReconstructionNode

    def make(checkpoint, **parameters):
        given = {
            "generator": "edge",
            "checkpoint": str(checkpoint),
            "sampling_steps": 2,
            "hypotheses": 2,
            "settle_s": 0.0,
            "output_directory": str(tmp_path / "scenes"),
        }
        return ros.make(ReconstructionNode, {**given, **parameters}, pipeline_factory=make_pipeline)

    return make


@pytest.mark.slow
def test_completed_objects_come_over_dds(make_real_node, client, checkpoint):
    assert make_real_node(checkpoint).start()
    views = views_from_scene(find_scene("default"), 2)
    client.send(conversions.view_set_to_msg([conversions.view_to_msg(view, "map") for view in views], "map", 1))
    client.wait_for(lambda: client.scenes, 120, "the first scene")
    scene = conversions.scene_from_msg(client.scenes[0])
    assert len(scene.objects) >= 3
    for item in scene.objects:
        assert item.residuals["free_space_violation_after"] == 0.0
        assert item.residuals["observed_coverage_after"] >= 0.99
        assert 0.0 < item.observed_fraction < 1.0
        assert item.mesh.vertex_confidence.max() <= 1.0


def test_a_missing_checkpoint_stops_the_start_with_a_reason(make_real_node, client, tmp_path):
    assert not make_real_node(tmp_path / "nowhere").start()
    status = client.status("lifecycle", ERROR, "nowhere")
    assert "Traceback" not in status.message


def test_mode_scene_needs_a_checkpoint_of_scenes(make_real_node, client, tmp_path, checkpoint):
    missing = {"mode": "scene", "generator": "auto"}
    assert not make_real_node(tmp_path / "nowhere", **missing).start()
    client.status("lifecycle", ERROR, "nowhere")


def test_mode_scene_refuses_a_checkpoint_of_objects(make_real_node, client, checkpoint):
    assert not make_real_node(checkpoint, mode="scene", generator="auto").start()
    status = client.status("lifecycle", ERROR, "no checkpoint of SceneGen")
    assert "Traceback" not in status.message


def test_mode_auto_does_without_a_checkpoint_of_scenes(make_real_node, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("gena3d_core.checkpoints.registry.PACKAGED", tmp_path)
    assert make_real_node(checkpoint, mode="auto").start()


@pytest.mark.slow
def test_a_scene_comes_over_dds(make_real_node, client, checkpoint, monkeypatch):
    torch.set_num_threads(1)
    count = 10
    poses = [[0.8 * n, 0, 0, 1, 0, 0, 0, 1] for n in range(count)]
    generator = SceneFlowGenerator(known_bundle([(4, 4, 4)] * count, poses), settings=SamplingSettings(steps=2))
    monkeypatch.setattr("gena3d_core.pipeline.make_scene_generator", lambda *_, **__: generator)
    assert make_real_node(checkpoint, mode="scene", generator="auto", hypotheses=1).start()
    views = views_from_scene(find_scene("default"), 2)
    client.send(conversions.view_set_to_msg([conversions.view_to_msg(view, "map") for view in views], "map", 1))
    client.wait_for(lambda: client.scenes, 200, "the first scene")
    scene = conversions.scene_from_msg(client.scenes[0])
    assert len(scene.objects) >= 3
    assert all("layout_sigma_m" in item.residuals for item in scene.objects)


def test_a_scene_without_metres_is_a_failure_of_layout():
    """A robot must not take units of an unknown size for metres."""

    class Unscaled:
        def run(self, views, **_):
            return Reconstruction(Scene((), metric=False), tuple(views), ())

    views = views_from_scene(find_scene("default"), 1, noise=False)
    request = Request(conversions.view_set_to_msg([conversions.view_to_msg(views[0], "map")], "map", 1))
    with pytest.raises(StageError, match="stage 'layout' failed: nothing tells the size of the scene in metres"):
        reconstruct(Unscaled(), request, lambda *_: None, lambda: False)
