"""Evaluation of scenes: a scene whose answer is known by construction scores as such, and failures count."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from gena3d_core.checkpoints.presets import random_bundle, random_scene_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import EmptyResultError, InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import upright_axes
from gena3d_core.geometry.mesh import transformed
from gena3d_core.geometry.similarity_fit import fit_similarity
from gena3d_core.layout.relative_layout import Y_UP_MODEL, Z_UP_MODEL, layout_from_world
from gena3d_core.metrics.scene_evaluation import CONTACTS, SceneEvaluator, ScenePlan, evaluate_scenes
from gena3d_core.metrics.scene_methods import (
    AloneScene,
    JointScene,
    SceneNetworkOptions,
    alone_scene,
    parted,
    without_scene_attention,
)
from gena3d_core.metrics.scene_objects import PlacedMesh, solid_overlap
from gena3d_core.metrics.scene_table import scene_figures
from gena3d_core.types import CompletedObject, GeneratedScene

from .scene_folder import SHAPES, make_scene_folder, smoothed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_scene_folder(tmp_path_factory.mktemp("data"))


def plan(folder, **changes):
    common = {"contacts": False, **changes}
    return ScenePlan(folder / "scenes", "val", folder / "objects", ("val_0000", "val_0001"), **common)


@dataclass
class Oracle:
    """Gives the true assets in grids that stand as the camera sees them, and their true poses."""

    example: object
    R_model_grid: np.ndarray
    shift: float = 0.0

    def generate(self, scene, *, query=None, seed=0, hypotheses=1, progress=None, cancelled=None):
        R = upright_axes(self.example.views[0].camera.T_world_camera)
        grids, assets = [], []
        for item in self.example.truth.objects:
            mesh = item.in_world()
            low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
            grid = transforms.rigid(1.4 * float((high - low).max()) * R, (low + high) / 2.0)
            grids.append(grid)
            assets.append(CompletedObject(item.id, transformed(mesh, transforms.inverse(grid)), None, {}))
        layout = layout_from_world(np.stack(grids), 1, self.R_model_grid)
        poses = layout.poses.copy()
        poses[0, :3] += self.shift
        return GeneratedScene(tuple(assets), poses, 1, poses[None], self.R_model_grid, True)


def example_of(folder, id="val_0000"):
    examples = []

    def keep(example, seed):
        examples.append(example)
        return []

    SceneEvaluator(plan(folder), {"keep": lambda: keep})(id)
    return examples[0]


@pytest.mark.parametrize("axes", [Z_UP_MODEL, Y_UP_MODEL], ids=["z_up", "y_up"])
def test_true_poses_give_the_true_scene(folder, axes):
    example = example_of(folder)
    assert example.observation.labels == tuple(SHAPES)
    placed = JointScene(Oracle(example, axes))(example, 0)
    # Wherever the frame is, one similarity lays all assets together on the truth.
    found, truth = (
        np.concatenate([item.in_world().vertices for item in items]) for items in (placed, example.truth.objects)
    )
    S = fit_similarity(found[None].astype(float), truth[None].astype(float), np.ones((1, len(found))), upright=True)[0]
    np.testing.assert_allclose(transforms.apply(S, found.astype(float)), truth, atol=1e-5)
    heights = [item.in_world().vertices[:, 2].min() for item in placed]
    np.testing.assert_allclose(heights, heights[0], atol=1e-6)
    evaluator = SceneEvaluator(plan(folder), {"oracle": lambda: JointScene(Oracle(example, axes))})
    (result,) = evaluator("val_0000").results
    figures = scene_figures(result)
    assert figures["cd_s"] < 0.01
    assert figures["fs_s"] > 0.99
    assert figures["iou_b"] > 0.95
    assert figures["silhouette"] > 0.9
    assert figures["psnr"] > 15
    off = SceneEvaluator(plan(folder), {"off": lambda: JointScene(Oracle(example, axes, shift=1.0))})("val_0000")
    assert scene_figures(off.results[0])["iou_b"] < figures["iou_b"] - 0.1


def test_a_method_that_fails_counts_as_an_empty_scene(folder):
    def broken(example, seed):
        raise EmptyResultError("nothing came out")

    outcome = SceneEvaluator(plan(folder, contacts=True), {"broken": lambda: broken})("val_0001")
    assert [result.method for result in outcome.results] == ["broken", "broken" + CONTACTS]
    for result in outcome.results:
        assert result.problem == "EmptyResultError: nothing came out"
        assert scene_figures(result)["fs_s"] == 0.0
    missing = SceneEvaluator(plan(folder), {"broken": lambda: broken})("val_0009")
    assert "no scene 'val_0009'" in missing.problem


def test_contacts_part_what_penetrates_and_lower_what_floats(folder):
    example = example_of(folder)
    first, second, third = example.truth.objects
    inside = PlacedMesh(
        second.id, second.mesh, transforms.rigid(t=first.mesh.vertices.mean(axis=0) - second.mesh.vertices.mean(axis=0))
    )
    above = PlacedMesh(third.id, third.mesh, transforms.rigid(t=np.array([0.5, 0.5, 0.2])))
    given = [first, inside, above]
    assert solid_overlap(given) > 0.01
    apart = parted(given)
    assert [item.id for item in apart] == [item.id for item in given]
    assert solid_overlap(apart) == 0.0
    lowest = min(item.in_world().vertices[:, 2].min() for item in given)
    assert apart[2].in_world().vertices[:, 2].min() == pytest.approx(lowest, abs=2e-3)


def test_networks_without_scene_attention_do_not_see_the_others(folder):
    example = example_of(folder)
    bundle = random_scene_bundle("tiny", seed=2)
    apart = without_scene_attention(bundle)
    assert bundle.modules["sparse_structure_flow"].config.joint_assets
    assert not apart.modules["sparse_structure_flow"].config.joint_assets
    with pytest.raises(InputError, match="no attention over the scene"):
        without_scene_attention(apart)
    with pytest.raises(InputError, match="no model of single objects"):
        AloneScene(bundle)(example, 0)


@pytest.mark.slow
def test_results_do_not_depend_on_who_makes_them(folder):
    save_bundle(smoothed(random_bundle("tiny", seed=1)), folder / "edge")
    makers = {"alone": partial(alone_scene, str(folder / "edge"), "table", SceneNetworkOptions())}
    found = {outcome.scene: outcome for outcome in evaluate_scenes(plan(folder), makers)}
    assert list(found) == ["val_0000", "val_0001"]
    again = {outcome.scene: outcome for outcome in evaluate_scenes(plan(folder), makers, processes=2)}
    for id, outcome in found.items():
        for one, other in zip(outcome.results, again[id].results, strict=True):
            assert one.method == other.method
            assert scene_figures(one) == pytest.approx(scene_figures(other), nan_ok=True)
