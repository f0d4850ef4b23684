"""Rows of scene evaluations: means, errors, failures, pairs."""

import json

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.metrics.rendering import ImageScores
from gena3d_core.metrics.scene_objects import PlacedMesh
from gena3d_core.metrics.scene_pictures import ScenePictureScores, rendered_truth
from gena3d_core.metrics.scene_scores import Agreement, ObjectFigures, SceneScores, TrueScene
from gena3d_core.metrics.scene_table import SceneResult, paired_difference, scene_markdown, scene_result, scene_rows
from gena3d_core.simulation.primitives import sphere
from gena3d_core.types import Intrinsics, Mesh


def scores(chamfer: float, objects: int = 2) -> SceneScores:
    good, shape = Agreement(chamfer, (0.5, 0.7, 0.9)), Agreement(2 * chamfer, (0.4, 0.6, 0.8))
    parts = tuple(ObjectFigures(i, i == 0, shape, good, 0.5 * (i == 0)) for i in range(objects))
    return SceneScores(good, parts, 0, 0.01, 0.0, np.eye(4))


def result(method: str, scene: str, chamfer: float, **more: object) -> SceneResult:
    return SceneResult(scene, method, scores(chamfer), 3.0, **more)  # type: ignore[arg-type]


RESULTS = [
    result("ours", "a", 0.1),
    result("alone", "a", 0.15),
    result("ours", "b", 0.5),
    result("alone", "b", 0.57, problem="no mesh"),
    result("ours", "c", 0.3),
]


def test_rows_are_means_over_scenes():
    ours, alone = scene_rows(RESULTS)
    assert (ours.method, ours.scenes, ours.assets, ours.failed) == ("ours", 3, 6, 0)
    assert (alone.method, alone.scenes, alone.failed) == ("alone", 2, 1)
    assert ours.means["cd_s"] == pytest.approx(0.3)
    assert ours.means["cd_o"] == pytest.approx(0.6)
    assert (ours.means["fs_s"], ours.means["fs_s_1"], ours.means["fs_o_2"]) == (0.9, 0.5, 0.6)
    assert (ours.means["iou_b"], ours.means["found"]) == (0.25, 0.5)
    assert ours.errors["cd_s"] == pytest.approx(0.2 / np.sqrt(3))
    assert ours.seconds_per_asset == pytest.approx(1.5)


def test_rows_are_json_and_say_none_for_what_is_not_known():
    content = scene_rows(RESULTS)[0].as_json()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    assert {"method", "cd_s", "cd_o", "fs_s", "fs_o", "iou_b", "collision", "seconds_per_asset"} <= content.keys()
    assert content["psnr"] is None


def test_tables_leave_out_what_no_method_has():
    plain = scene_markdown(scene_rows(RESULTS))
    assert "CD-S" in plain
    assert "PSNR" not in plain
    pictures = ScenePictureScores(ImageScores(17.0, 0.9), ImageScores(12.0, 0.5), 0.8)
    seen = scene_markdown(scene_rows([*RESULTS, result("seen", "a", 0.2, pictures=pictures)]))
    assert "PSNR" in seen
    lines = seen.splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "–" in lines[2]
    assert "17.0" in lines[4]


def test_pairs_show_what_means_of_different_scenes_hide():
    mean, error = paired_difference(RESULTS, "ours", "alone", "cd_s")
    assert mean == pytest.approx(-0.06)
    assert error == pytest.approx(0.01)
    assert paired_difference(RESULTS, "alone", "ours", "cd_s")[0] == pytest.approx(0.06)


def test_a_scene_is_scored_in_one_call_and_failure_counts():
    camera = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)
    items = [PlacedMesh(7, sphere(0.5), transforms.rigid(0.2 * np.eye(3), np.array([0.0, 0.0, 0.1])))]
    truth = TrueScene.measure(items)
    pictures = [rendered_truth(items, transforms.look_at((0, -1, 0.5), (0, 0, 0.1)), camera)]
    right = scene_result("a", "ours", items, truth, 2.0, pictures=pictures, alignment="none")
    wrong = scene_result("a", "theirs", None, truth, 1.0, pictures=pictures, problem="RuntimeError: no memory")
    missed = scene_result("a", "other", [PlacedMesh(8, *_parts(items[0]))], truth, 1.0, alignment="none")
    assert right.problem == ""
    assert right.pictures is not None
    assert right.pictures.silhouette == 1.0
    assert wrong.problem == "RuntimeError: no memory"
    assert "none of the true objects" in missed.problem
    rows = {row.method: row for row in scene_rows([right, wrong, missed])}
    assert rows["ours"].failed == 0
    assert (rows["theirs"].failed, rows["theirs"].means["cd_s"], rows["theirs"].means["silhouette"]) == (1, 2.0, 0.0)
    assert rows["other"].means["cd_s"] < 0.01  # the surface is there, under another id


def _parts(item: PlacedMesh) -> tuple[Mesh, np.ndarray]:
    return item.mesh, item.S_world_object


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(InputError, match="no scene in common"):
        paired_difference(RESULTS, "ours", "theirs", "cd_s")
    with pytest.raises(InputError, match="unknown figure"):
        paired_difference(RESULTS, "ours", "alone", "beauty")
