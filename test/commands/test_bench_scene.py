"""`gena3d bench scene` as a user calls it."""

import json

import torch

from gena3d_core.benchmarks.scene_photo import largest, photo_of_scene
from gena3d_core.cli import main


def test_seconds_by_stage_of_one_picture(tmp_path, capsys):
    torch.set_num_threads(1)
    arguments = ["--assets", "2", "--repeat", "1", "--steps", "1", "--detail", "structure", "--guidance", "0"]
    assert main(["bench", "scene", *arguments, "--json", str(tmp_path / "bench.json")]) == 0
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["command"] == "bench scene"
    (row,) = content["rows"]
    assert row["assets"] == 2
    assert 0 < row["objects"] <= 2
    assert row["median_s"].keys() == {"generation", "meshing", "layout", "total"}
    assert row["median_s"]["total"] >= max(row["median_s"][stage] for stage in ("generation", "meshing", "layout"))
    assert "2 assets" in capsys.readouterr().out


def test_the_largest_objects_of_the_packaged_scene_are_taken():
    scene = photo_of_scene()
    assert len(scene.ids) >= 4
    assert max(masks.sum(axis=0).max() for masks in scene.masks) == 1
    kept = largest(scene, 3)
    left = [scene.pixels[0, scene.ids.index(id)] for id in scene.ids if id not in kept.ids]
    assert kept.pixels.min() >= max(left)
