"""Generators in the pipeline: what they are given, what becomes of objects that fail, the whole path on files."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from gena3d_core.checkpoints import locate
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.cli import main
from gena3d_core.errors import IncompleteError, InputError, MemoryBudgetError
from gena3d_core.generation import (
    MIN_POINTS,
    chosen_generator,
    complete_objects,
    free_space_resolution,
    make_generator,
)
from gena3d_core.generative.flow_generator import FlowGenerator
from gena3d_core.generative.inputs import prepare_inputs
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.io import load_scene
from gena3d_core.observation import build_observations
from gena3d_core.observed import ObservedSurface
from gena3d_core.pipeline import Pipeline, PipelineConfig
from gena3d_core.simulation import random_scene, views_from_scene
from gena3d_core.types import CompletedObject, ObjectMask, Segmentation, VoxelGrid

SPEC = random_scene(seed=3, object_count=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The smallest generator with random weights, as a folder."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_bundle(random_bundle("tiny", seed=3), folder)
    return folder


@pytest.fixture(scope="module")
def views():
    return views_from_scene(SPEC, 2)


@pytest.fixture
def observations(solids):
    scene = [solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03)), solids.Cylinder((0.13, 0.05, 0), 0.04, 0.09)]
    return [solids.observe(scene, solids.ring(2), number=n) for n in range(2)]


class Failing:
    """Gives cubes, but nothing for the objects in `bad`; notes what it was asked."""

    def __init__(self, bad=(), error=None):
        self.bad, self.error, self.asked = set(bad), error, []

    def generate(self, observations, *, seed=0, hypotheses=1, progress=None, cancelled=None):
        self.asked += [item.id for item in observations]
        if self.error is not None:
            raise self.error
        cube = mesh_ops.make_mesh(np.eye(4)[:, :3], np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]))
        completed = [CompletedObject(item.id, cube, np.eye(4)) for item in observations if item.id not in self.bad]
        reasons = {item.id: "nothing came out" for item in observations if item.id in self.bad}
        if reasons:
            raise IncompleteError(completed, reasons)
        return completed


def test_an_object_that_fails_keeps_its_observed_surface(observations):
    failed, done = observations[0].id, observations[1].id
    completed, warnings = complete_objects(Failing([failed]), observations)
    assert [item.id for item in completed] == [failed, done]
    expected = make_generator("observed").generate(observations[:1])[0].mesh
    np.testing.assert_array_equal(completed[0].mesh.vertices, expected.vertices)
    assert len(completed[1].mesh.vertices) == 4
    assert len(warnings) == 1
    assert f"object {failed}" in warnings[0]
    assert "nothing came out" in warnings[0]


def test_too_few_points_are_not_completed(observations):
    few = observations[0]
    kept = np.arange(MIN_POINTS - 1)
    few = replace(
        few, points_m=few.points_m[kept], point_colors=few.point_colors[kept], point_view=few.point_view[kept]
    )
    generator = Failing()
    completed, warnings = complete_objects(generator, [few, observations[1]])
    assert generator.asked == [observations[1].id]
    assert [item.id for item in completed] == [few.id, observations[1].id]
    assert f"{MIN_POINTS - 1} points" in warnings[0]
    # `observed` itself shows every point there is, without a warning.
    assert complete_objects(make_generator("observed"), [few])[1] == []


def test_errors_that_concern_all_objects_are_not_hidden(observations):
    for error in (MemoryBudgetError("too large"), InputError("wrong")):
        with pytest.raises(type(error)):
            complete_objects(Failing(error=error), observations)
    assert complete_objects(Failing(), []) == ([], [])


def test_generators_say_which_free_space_they_want(checkpoint):
    assert free_space_resolution(make_generator("observed")) == 0
    assert free_space_resolution(make_generator("edge", checkpoint=str(checkpoint))) == 64
    with pytest.raises(InputError, match="free_space_resolution"):
        Pipeline(PipelineConfig(free_space_resolution=-1))


def test_auto_is_the_checkpoint_that_is_at_hand(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(locate, "places", lambda name: (tmp_path / name,))
    assert chosen_generator("auto") == "observed"
    assert isinstance(make_generator("auto"), ObservedSurface)
    assert chosen_generator("auto", checkpoint="some folder") == "edge"
    assert isinstance(make_generator("auto", checkpoint=str(checkpoint)), FlowGenerator)
    (tmp_path / "edge").symlink_to(checkpoint)
    assert chosen_generator("auto") == "edge"
    assert isinstance(make_generator("auto", steps=3), FlowGenerator)
    assert chosen_generator("observed") == "observed"


def test_free_space_is_carved_in_the_grid_of_the_generator(observations):
    source = observations[0]
    mask = ObjectMask(1, "box", 1.0, source.visible_masks)
    found = build_observations(source.views, Segmentation((mask,), source.support), free_space_resolution=32)[0]
    S_world_grid = prepare_inputs([found], 32, 32, "observed").S_world_grid[0]
    assert found.free_space.state.shape == (32, 32, 32)
    np.testing.assert_allclose(32 * found.free_space.voxel_size_m, S_world_grid[0, 0])
    np.testing.assert_allclose(found.free_space.origin_m, S_world_grid[:3, 3] - S_world_grid[0, 0] / 2)
    assert (found.free_space.state == VoxelGrid.FREE).any()
    point = replace(source.views[0], depth_m=np.full_like(source.views[0].depth_m, np.nan))
    row, col = np.argwhere(source.visible_masks[0])[0]
    point.depth_m[row, col] = 0.5
    alone = Segmentation((ObjectMask(1, "dot", 1.0, source.visible_masks[:1]),))
    assert build_observations([point], alone, free_space_resolution=32)[0].free_space is None


def test_the_pipeline_reports_how_the_generator_agrees(checkpoint, views):
    config = PipelineConfig(generator="edge", generator_options={"checkpoint": str(checkpoint), "steps": 2})
    result = Pipeline(config).run(views, hypotheses=2)
    assert result.scene.objects
    for item, observation in zip(result.scene.objects, result.observations, strict=True):
        assert observation.free_space.state.shape == (64,) * 3
        assert item.residuals["free_space_violation_after"] == 0.0
        assert item.residuals["observed_coverage_after"] >= 0.99
        assert 0.0 <= item.residuals["free_space_violation_before"] <= 1.0
        assert "fit_rmse_m" in item.residuals
        assert item.mesh.vertex_colors is not None
        assert item.mesh.vertex_observed.any()
        assert item.mesh.vertex_confidence[item.mesh.vertex_observed].mean() > 0.5


def test_one_failed_object_in_the_pipeline_is_a_warning(checkpoint, views, monkeypatch):
    """A generator that finds nothing for the first object: the scene is whole and says so."""
    config = PipelineConfig(generator="edge", generator_options={"checkpoint": str(checkpoint), "steps": 1})
    pipeline = Pipeline(config)
    made = pipeline._generator.generate

    def without_first(observations, **options):
        first, *others = made(observations, **options)
        raise IncompleteError(others, {first.id: "the generator found no occupied voxel"})

    monkeypatch.setattr(pipeline._generator, "generate", without_first)
    result = pipeline.run(views)
    first = result.observations[0].id
    assert [item.id for item in result.scene.objects] == [item.id for item in result.observations]
    assert any(f"object {first}" in warning and "no occupied voxel" in warning for warning in result.scene.warnings)
    assert "observed_coverage_after" not in result.scene.objects[0].residuals
    assert "observed_coverage_after" in result.scene.objects[1].residuals


@pytest.fixture(scope="module")
def recording(tmp_path_factory, views):
    """Three objects on a table, seen from two sides with sensor noise, as an RGB-D folder."""
    folder = tmp_path_factory.mktemp("recording")
    for part in ("color", "depth", "pose"):
        (folder / part).mkdir()
    k = SPEC.intrinsics
    camera = {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy}
    (folder / "camera.json").write_text(json.dumps(camera))
    for number, view in enumerate(views):
        cv2.imwrite(str(folder / f"color/{number:06d}.png"), view.color[..., ::-1])
        depth_mm = np.nan_to_num(1000 * view.depth_m, nan=0).astype(np.uint16)
        cv2.imwrite(str(folder / f"depth/{number:06d}.png"), depth_mm)
        np.savetxt(folder / f"pose/{number:06d}.txt", view.T_world_camera)
    return folder


def test_reconstruct_with_a_checkpoint(recording, checkpoint, tmp_path, capsys):
    arguments = ["reconstruct", recording, "--out", tmp_path / "out", "--generator", "edge", "--checkpoint", checkpoint]
    options = ["--steps", 2, "--hypotheses", 2, "--device", "cpu"]
    assert main([str(argument) for argument in arguments + options]) == 0, capsys.readouterr().err
    scene = load_scene(tmp_path / "out")
    assert len(scene.objects) >= 2
    for item in scene.objects:
        assert len(item.mesh.faces) <= 20_000
        assert item.residuals["free_space_violation_after"] == 0.0
        assert item.residuals["observed_coverage_after"] >= 0.99
        assert 0.0 < item.observed_fraction < 1.0
    assert cv2.imread(str(tmp_path / "out/overview.png")) is not None


def test_a_checkpoint_that_is_not_there_is_one_clear_line(recording, tmp_path, capsys):
    arguments = [
        "reconstruct",
        recording,
        "--out",
        tmp_path / "out",
        "--generator",
        "edge",
        "--checkpoint",
        tmp_path / "nowhere",
    ]
    assert main([str(argument) for argument in arguments]) in (1, 2)
    error = capsys.readouterr().err
    assert "nowhere" in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()
