"""`gena3d evaluate scenes` from end to end on two scenes with networks of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.presets import random_bundle, random_scene_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.cli import main

from ..metrics.scene_folder import make_scene_folder, smoothed


class Features(torch.nn.Module):
    """Stands for Inception: the mean colour of each quarter."""

    def forward(self, images, return_features: bool = False):
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make_scene_folder(tmp_path_factory.mktemp("data"))
    save_bundle(smoothed(random_scene_bundle("tiny", seed=0)), folder / "edge_scene")
    save_bundle(smoothed(random_bundle("tiny", seed=0)), folder / "edge")
    return folder


def run(folder, *more):
    words = [
        "evaluate",
        "scenes",
        str(folder),
        "--checkpoint",
        str(folder / "edge_scene"),
        "--base",
        str(folder / "edge"),
    ]
    return main([*words, "--steps", "2", "--jobs", "1", *more])


def test_a_row_for_each_method(folder, tmp_path):
    out = tmp_path / "rows.json"
    more = ("--methods", "scene,alone", "--limit", "1", "--no-contacts", "--json", str(out))
    assert run(folder, *more) == 0
    content = json.loads(out.read_text())
    assert [row["method"] for row in content["rows"]] == ["scene", "alone"]
    assert [row["failed"] for row in content["rows"]] == [0, 0]
    assert len(content["scenes"]) == 1
    assert content["rows"][0]["cd_s_se"] is None


@pytest.mark.slow
def test_rows_of_all_methods(folder, tmp_path, capsys):
    methods = "scene,alone_depth,no_scene_attention,no_geometry"
    compare = f"again={folder / 'edge_scene'}"
    out = tmp_path / "rows.json"
    assert run(folder, "--methods", methods, "--compare", compare, "--no-contacts", "--json", str(out)) == 0
    content = json.loads(out.read_text())
    rows = {row["method"]: row for row in content["rows"]}
    assert list(rows) == [*methods.split(","), "again"]
    assert content["scenes"] == ["val_0000", "val_0001"]
    for row in rows.values():
        assert row["scenes"] == 2
        assert row["failed"] == 0, content["problems"]
        assert row["seconds_per_asset"] > 0
        for name in ("cd_s", "fs_s", "cd_o", "fs_o", "iou_b", "collision", "overlap", "psnr", "ssim", "cd_s_se"):
            assert np.isfinite(row[name]), name
    assert rows["again"]["cd_s"] == rows["scene"]["cd_s"]
    # Each part matters to what comes out.
    for name in methods.split(",")[1:]:
        assert any(rows[name][figure] != rows["scene"][figure] for figure in ("cd_s", "cd_o", "fs_o_2", "collision")), (
            name
        )
    same = [item for item in content["differences"] if item["other"] == "again"]
    assert [item["difference"] for item in same] == [0.0, 0.0, 0.0]
    text = capsys.readouterr().out
    assert "| scene | 2 | 0 |" in text
    assert "scene minus alone_depth, on the same scenes: cd_s" in text
    assert "±" in text


@pytest.mark.slow
def test_contacts_and_networks_of_pictures(folder, tmp_path, capsys):
    network = tmp_path / "inception.pt"
    torch.jit.script(Features()).save(network)
    out = tmp_path / "rows.json"
    more = ("--methods", "scene", "--views", "2", "--inception", str(network), "--json", str(out))
    assert run(folder, *more) == 0
    before, after = json.loads(out.read_text())["rows"]
    assert after["method"] == "scene + contacts"
    assert after["overlap"] <= 1e-3
    assert after["overlap"] <= before["overlap"]
    assert before["fid"] >= 0
    assert "FID" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--methods", "magic"), 2, "--methods 'magic' is unknown"),
        (("--split", "test"), 2, "no scene of split 'test'"),
        (("--scenes", "val_0007"), 2, "--scenes 'val_0007' is unknown"),
        (("--compare", "alone=x"), 2, "label of its own"),
        (("--base", "/no/such"), 1, "neither a directory"),
        (("--dino", "DINO"), 1, "holds no DINOv2"),
    ],
)
def test_what_is_wrong_shows_before_the_work(folder, capsys, more, code, message):
    more = tuple(str(folder / "edge") if word == "DINO" else word for word in more)
    assert run(folder, "--methods", "alone", *more) == code
    assert message in capsys.readouterr().err


def test_layouts_without_objects_near_are_named(folder, tmp_path, capsys):
    shutil.copytree(folder / "scenes", tmp_path / "alone" / "layouts")
    words = [
        "evaluate",
        "scenes",
        str(tmp_path / "alone" / "layouts"),
        "--methods",
        "alone",
        "--base",
        str(folder / "edge"),
    ]
    assert main(words) == 2
    assert "name the folder of objects with --objects" in capsys.readouterr().err
