"""`gena3d evaluate objects` end to end on two small objects, and its failures."""

import csv
import json
import math

import numpy as np
import pytest

from gena3d_core.cli import main
from gena3d_core.io.object_dataset import ObjectDataset
from gena3d_core.metrics.object_evaluation import EvaluationPlan, evaluate, ordered
from gena3d_core.metrics.object_protocol import Condition, example_seed, example_settings
from gena3d_core.metrics.object_table import add_sets, make_rows, markdown
from gena3d_core.simulation.primitives import box, cone, cylinder, ellipsoid
from gena3d_core.types import CompletedObject

SCHEMA = {
    "method", "views", "occlusion", "objects", "iou", "chamfer", "f1", "f2", "mmd", "cov", "free_space_violation",
    "observed_coverage", "seconds_per_object",
}  # fmt: skip
SHAPES = {
    "brick": (box((0.9, 0.6, 0.4)), "packaged_goods", "val", 0.15),
    "egg": (ellipsoid((0.45, 0.45, 0.3)), "procedural", "val", ""),
    "tube": (cylinder(0.2, 0.9), "can", "train", 0.2),
    "hat": (cone(0.4, 0.9), "procedural", "train", 0.2),
    "block": (box((0.9, 0.5, 0.5)), "packaged_goods", "train", 0.2),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("objects")
    meshes = [shape[0] for shape in SHAPES.values()]
    with (folder / "objects.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "category", "split", "scale_m", "shard", "index"])
        writer.writerows(
            [id, category, split, scale, "shard.npz", number]
            for number, (id, (_, category, split, scale)) in enumerate(SHAPES.items())
        )
    np.savez(
        folder / "shard.npz",
        vertices=np.concatenate([mesh.vertices for mesh in meshes]),
        faces=np.concatenate([mesh.faces for mesh in meshes]).astype(np.uint16),
        vertex_offsets=np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)]),
        face_offsets=np.cumsum([0, *(len(mesh.faces) for mesh in meshes)]),
    )
    return folder


@pytest.fixture(scope="module")
def table(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("out") / "rows.json"
    options = ["--views", "2", "--occlusion", "0.3", "--jobs", "1", "--baselines", "observed,hull,nearest"]
    code = main(["evaluate", "objects", str(data), *options, "--json", str(file)])
    assert code == 0
    return json.loads(file.read_text())


def test_the_schema(table):
    assert table["schema"] == 1
    assert table["command"] == "evaluate objects"
    assert table["objects"] == ["brick", "egg"]
    assert table["arguments"]["occlusion"] == [0.3]
    assert [row["method"] for row in table["rows"]][:3] == ["observed", "hull", "nearest"]
    for row in table["rows"]:
        assert set(row) >= SCHEMA
        assert (row["views"], row["occlusion"], row["objects"]) == (2, 0.3, 2)
        for name in SCHEMA - {"method"}:
            assert isinstance(row[name], (int, float)), name
            assert math.isfinite(row[name]), name
    assert set(table["groups"]) == {"procedural", "everyday"}
    assert all(row["objects"] == 1 for rows in table["groups"].values() for row in rows)


def test_the_figures_make_sense(table):
    rows = {row["method"]: row for row in table["rows"]}
    for row in rows.values():
        assert row["failed"] == row["skipped"] == 0
        assert 0 < row["f1"] < row["f2"] <= 1
        assert row["seen_error"] < row["unseen_error"]
        parts = [own for group in table["groups"].values() for own in group if own["method"] == row["method"]]
        assert row["f2"] == pytest.approx(np.mean([own["f2"] for own in parts]))
    assert rows["observed"]["observed_coverage"] > 0.95
    assert rows["observed"]["free_space_violation"] < 0.02
    assert rows["hull"]["iou"] > rows["observed"]["iou"]
    assert rows["nearest"]["unseen_error"] < rows["observed"]["unseen_error"]


def test_a_checkpoint_beside_a_baseline_with_pictures(data, tmp_path, capsys):
    """A network that finds nothing: what the views prove is left, and all figures."""
    import torch

    from gena3d_core.checkpoints.presets import random_bundle
    from gena3d_core.checkpoints.save import save_bundle

    bundle = random_bundle("tiny")
    with torch.no_grad():
        *_, weight, bias = bundle.modules["sparse_structure_decoder"].parameters()
        weight.zero_()
        bias.fill_(-2.0)
    save_bundle(bundle, tmp_path / "tiny")
    pooled = torch.nn.Sequential(torch.nn.AvgPool2d(100), torch.nn.Flatten())
    torch.jit.trace(pooled, torch.zeros(1, 3, 299, 299)).save(str(tmp_path / "pooled.pt"))
    options = [
        "--views",
        "1",
        "--occlusion",
        "0",
        "--objects",
        "egg",
        "--jobs",
        "1",
        "--baselines",
        "hull",
        "--draws",
        "2",
    ]
    options += ["--checkpoint", str(tmp_path / "tiny"), "--steps", "2", "--compare", f"again={tmp_path / 'tiny'}"]
    options += ["--inception", str(tmp_path / "pooled.pt"), "--json", str(tmp_path / "rows.json")]
    assert main(["evaluate", "objects", str(data), *options]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert list(rows) == ["hull", "edge", "again"]
    assert all(row["objects"] == 1 and row["fid"] >= 0 and math.isfinite(row["kid"]) for row in rows.values())
    edge = rows["edge"]
    assert edge["failed"] == 0
    assert edge["free_space_violation"] < 0.02
    assert edge["observed_coverage"] > 0.95
    assert 0 <= edge["ece"] <= 1
    assert edge["reliability"]
    assert rows["hull"]["ece"] is None
    assert "FID" in capsys.readouterr().out


def test_the_feed_forward_network_beside_a_baseline(data, tmp_path):
    from gena3d_core.checkpoints.presets import random_unet
    from gena3d_core.checkpoints.save import save_bundle

    save_bundle(random_unet("tiny"), tmp_path / "network")
    options = ["--views", "1", "--occlusion", "0", "--objects", "egg", "--jobs", "1"]
    options += ["--baselines", "hull", "--no-sets", "--draws", "2"]
    options += ["--compare", f"unet={tmp_path / 'network'}", "--json", str(tmp_path / "rows.json")]
    assert main(["evaluate", "objects", str(data), *options]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "rows.json").read_text())["rows"]}
    assert {"hull", "unet"} <= set(rows)
    unet = rows["unet"]
    assert unet["failed"] == unet["skipped"] == 0
    assert unet["objects"] == 1
    assert unet["free_space_violation"] < 0.02
    assert unet["observed_coverage"] > 0.95
    assert 0 <= unet["ece"] <= 1


class Perfect:
    """Knows the truth, or fails: stands for a generator of which the figures are known."""

    deterministic = True

    def __init__(self, fails):
        self.fails = fails

    def generate(self, observations, *, seed=0, hypotheses=1, progress=None, cancelled=None):
        if self.fails:
            raise ValueError("out of ideas")
        points = observations[0].points_m
        from gena3d_core.baselines.hull import convex_hull

        return [CompletedObject(observations[0].id, convex_hull(points), np.eye(4))]


def test_failures_count_as_empty_results(data):
    entries = ObjectDataset.open(data).select("val")
    plan = EvaluationPlan(data, entries, (Condition(1, 0.0),))
    results = ordered(list(evaluate(plan, {"good": lambda: Perfect(False), "bad": lambda: Perfect(True)})), plan)
    good, bad = add_sets(make_rows(results), results)
    assert (good.failed, bad.failed) == (0, 2)
    assert good.objects == bad.objects == 2
    assert bad.means["f2"] == 0.0
    assert bad.means["chamfer"] == 2.0
    assert bad.sets.cov == 0.0
    assert bad.as_json()["mmd"] is None
    assert good.means["f2"] > 0.2
    assert "out of ideas" in results[0].results[1].problem
    lines = markdown([good, bad]).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.slow
def test_processes_change_nothing(data):
    from functools import partial

    from gena3d_core.baselines import make_baseline

    entries = ObjectDataset.open(data).select("val")
    plan = EvaluationPlan(data, entries, (Condition(1, 0.3),))
    makers = {"hull": partial(make_baseline, "hull")}
    tables = []
    for processes in (1, 2):
        results = ordered(list(evaluate(plan, makers, processes)), plan)
        row = make_rows(results)[0].as_json()
        tables.append({key: value for key, value in row.items() if key != "seconds_per_object"})
    assert tables[0] == tables[1]


def test_views_are_nested_and_seeds_differ():
    one, two = Condition(1, 0.5), Condition(4, 0.5)
    assert example_seed(0, "mug", one) == example_seed(0, "mug", two)
    assert len({example_seed(s, i, Condition(1, o)) for s in (0, 1) for i in ("a", "b") for o in (0.2, 0.5)}) == 8
    surface, objects = example_settings("surface", two), example_settings("objects", two, ["image_width=200"])
    assert surface.coverage == (0.5, 0.5)
    assert surface.visible_share == (0.3, 0.7)
    assert surface.free_space_resolution == 64
    assert (objects.occlusion, objects.views, objects.image_width) == ("objects", 4, 200)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--baselines", "magic"], 2, "magic"),
        (["--baselines", "none"], 2, "no method"),
        (["--objects", "teapot"], 2, "teapot"),
        (["--split", "test"], 2, "test"),
        (["--protocol", "fog"], 2, "fog"),
        (["--setting", "colour=red"], 2, "colour"),
        (["--compare", "edge"], 2, "LABEL=CHECKPOINT"),
        (["--baselines", "hull", "--checkpoint", "absent"], 1, "absent"),
        (["--baselines", "hull", "--inception", "absent.pt"], 1, "TorchScript"),
    ],
)
def test_what_it_cannot_do(data, capsys, monkeypatch, options, code, message):
    monkeypatch.setattr("gena3d_core.checkpoints.locate.local_folder", lambda name: None)
    assert main(["evaluate", "objects", str(data), *options]) == code
    assert message in capsys.readouterr().err


def test_a_folder_without_objects(tmp_path, capsys):
    assert main(["evaluate", "objects", str(tmp_path)]) == 1
    assert "objects.csv" in capsys.readouterr().err
    with pytest.raises(SystemExit) as error:
        main(["evaluate", "objects", str(tmp_path), "--occlusion", "0.2,1.5"])
    assert error.value.code == 2
