"""`gena3d evaluate robustness` on one small object, and its failures."""

import csv
import json
import math

import numpy as np
import pytest
from PIL import Image

from gena3d_core.cli import main
from gena3d_core.errors import InputError
from gena3d_core.metrics.object_protocol import Condition, example_seed, example_settings
from gena3d_core.metrics.robustness import VARIATIONS, make_levels
from gena3d_core.simulation.primitives import cylinder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, mesh = tmp_path_factory.mktemp("objects"), cylinder(0.3, 0.9)
    with (folder / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "category", "split", "scale_m", "shard", "index"])
        writer.writerow(["tube", "can", "val", 0.15, "shard.npz", 0])
    np.savez(
        folder / "shard.npz",
        vertices=mesh.vertices,
        faces=mesh.faces.astype(np.uint16),
        vertex_offsets=np.array([0, len(mesh.vertices)]),
        face_offsets=np.array([0, len(mesh.faces)]),
    )
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    from gena3d_core.checkpoints.presets import random_bundle
    from gena3d_core.checkpoints.save import save_bundle

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_bundle(random_bundle("tiny", seed=3), folder)
    return folder


def evaluated(data, file, *options):
    common = ["--occlusion", "0", "--jobs", "1", "--json", str(file)]
    assert main(["evaluate", "robustness", str(data), *common, *options]) == 0
    return json.loads(file.read_text())


def curve(content, variation, method, figure="chamfer"):
    rows = [row for row in content["rows"] if (row["variation"], row["method"]) == (variation, method)]
    return {row["level"]: row[figure] for row in rows}


def test_curves_of_what_is_measured(data, tmp_path, capsys):
    """What was seen and nothing else: dilated masks and noisy poses must show in it."""
    vary = ["--vary", "mask=0,6", "--vary", "position=0,2", "--vary", "depth_noise=1,8", "--vary", "holes=0,0.75"]
    content = evaluated(data, tmp_path / "rows.json", "--generator", "observed", "--baselines", "none", *vary)
    assert (content["schema"], content["command"], content["objects"]) == (1, "evaluate robustness", ["tube"])
    usual = {name: curve(content, name, "observed")[VARIATIONS[name].usual] for name in ("mask", "depth_noise")}
    assert usual["mask"] == usual["depth_noise"]
    seen = {name: curve(content, name, "observed", "f1") for name in ("mask", "position", "depth_noise", "holes")}
    assert seen["position"][2.0] < seen["position"][0.0]
    assert seen["depth_noise"][8.0] < seen["depth_noise"][1.0]
    assert seen["mask"][6.0] != seen["mask"][0.0]
    assert seen["holes"][0.75] < seen["holes"][0.0]
    picture = np.array(Image.open(tmp_path / "rows.png"))
    assert picture.shape[2] == 3
    assert np.ptp(picture) > 100
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(content["rows"]) == 2 + 8
    assert len({line.count("|") for line in table}) == 1


@pytest.mark.slow
def test_a_network_without_its_cloud(data, tiny, tmp_path):
    options = ["--checkpoint", str(tiny), "--steps", "2", "--vary", "cloud", "--vary", "blind_views=0,1"]
    chart = tmp_path / "chart.png"
    content = evaluated(data, tmp_path / "rows.json", "--chart", str(chart), *options)
    assert chart.is_file()
    assert not (tmp_path / "rows.png").exists()
    assert set(curve(content, "blind_views", "observed")) == {0.0, 1.0}
    # Baselines have no network, so nothing to take from it.
    assert curve(content, "cloud", "observed") == {}
    cloud = curve(content, "cloud", "edge")
    assert set(cloud) == {0.0, 1.0}
    assert all(math.isfinite(value) for value in cloud.values())
    assert cloud[0.0] == curve(content, "blind_views", "edge")[0.0]


def test_a_level_changes_one_setting_and_no_seed():
    base = Condition(2, 0.3)
    levels = make_levels({"mask": (-2.0, 0.0), "position": (2.0,), "rotation": (1.5,), "blind_views": (1.0,)}, base)
    found = [example_settings("surface", level.condition, ["image_width=200"]) for level in levels]
    assert [s.mask_error_px for s in found] == [(-2.0, -2.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]
    assert found[2].pose_jitter_m == (0.02, 0.02)
    assert found[3].pose_jitter_deg == (1.5, 1.5)
    assert found[4].missing_depth == 1.0
    assert {s.image_width for s in found} == {200}
    assert levels[1].condition == base
    assert len({example_seed(0, "mug", level.condition) for level in levels}) == 1
    for name, variation in VARIATIONS.items():
        for level in make_levels({name: variation.levels}, base):
            example_settings("surface", level.condition)
        with pytest.raises(InputError, match=name):
            make_levels({name: (variation.high + 1,)}, base)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--vary", "fog"], "fog"),
        (["--vary", "mask=thick"], "numbers"),
        (["--vary", "holes=2"], "0 to 1"),
        (["--vary", "cloud=0.5"], "0 and 1"),
        (["--occlusion", "0.2,0.5"], "one share"),
        (["--baselines", "magic"], "magic"),
    ],
)
def test_what_it_cannot_do(data, capsys, monkeypatch, options, message):
    monkeypatch.setattr("gena3d_core.checkpoints.locate.local_folder", lambda name: None)
    assert main(["evaluate", "robustness", str(data), *options]) == 2
    assert message in capsys.readouterr().err
