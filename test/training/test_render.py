"""Shards made from meshes: reproducible, resumable, with bad objects left out."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import make_mesh
from training import render
from training.mesh_source import TrainingMesh
from training.render import RenderJob, list_jobs, main, render_example, render_shards
from training.shards import open_shards

SMALL = {"views": (1, 2), "settings": ("image_width=64", "image_height=48"), "image_size": 28, "resolution": 32}


class Shapes:
    """Three solids and, as "open", one that is none."""

    name, split = "shapes", "all"

    def __init__(self) -> None:
        solids = {
            "ball": trimesh.creation.icosphere(subdivisions=2, radius=0.49),
            "box": trimesh.creation.box((0.98, 0.5, 0.4)),
            "ring": trimesh.creation.torus(0.38, 0.11),
        }
        self.meshes = {name: make_mesh(shape.vertices, shape.faces) for name, shape in solids.items()}
        self.meshes["open"] = make_mesh(solids["ball"].vertices, solids["ball"].faces[:-3])

    def ids(self):
        return list(self.meshes)

    def load(self, id):
        return TrainingMesh(id, "test", self.meshes[id], 0.1 if id == "box" else None)


@pytest.fixture
def shapes(monkeypatch):
    source = Shapes()
    monkeypatch.setattr(render, "open_source", lambda text, cache=None: source)
    for cached in (render._source, render._load):
        cached.cache_clear()
    yield source
    for cached in (render._source, render._load):
        cached.cache_clear()


def test_an_example_holds_what_its_mesh_holds(shapes):
    example = render_example(RenderJob("shapes", "ball", 0, 0, **SMALL))
    assert example.occupancy.shape == (32, 32, 32)
    assert example.crops.shape == (len(example.visibility), 5, 28, 28)
    assert example.crops[:, 3:].max() == 1
    assert example.crops[:, :3].max() > 20
    side_m = example.S_world_grid[0, 0]
    volume = example.occupancy.astype(float).sum() / 255.0 * (side_m / 32) ** 3
    assert volume > 0
    # Partial clouds lie where the object is: at most some voxels of noise away from it.
    from scipy.ndimage import binary_dilation

    near = binary_dilation(example.occupancy > 0, iterations=3)
    assert near[example.cloud].mean() > 0.8
    assert example.info["object"] == "ball"
    json.dumps(example.info)


def test_jobs_travel_as_json_and_give_the_same_example(shapes):
    job = RenderJob("shapes", "ring", 2, 7, **SMALL)
    again = RenderJob.from_dict(json.loads(json.dumps(asdict(job))))
    assert again == job
    one, same = render_example(job), render_example(again)
    for name in ("occupancy", "cloud", "crops", "visibility", "S_world_grid"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert job.example_seed != RenderJob("shapes", "ring", 3, 7, **SMALL).example_seed


def test_every_object_and_number_has_one_job(shapes):
    jobs = list_jobs("shapes", 6, 3, **SMALL)
    assert len({(job.object, job.number) for job in jobs}) == len(jobs) == 24
    assert jobs == list_jobs("shapes", 6, 3, **SMALL)
    assert jobs != list_jobs("shapes", 6, 4, **SMALL)
    assert len(list_jobs("shapes", 6, 3, objects=2, **SMALL)) == 12


def test_a_broken_run_goes_on_and_ends_as_one_piece(shapes, tmp_path, capsys):
    jobs = list_jobs("shapes", 2, 0, **SMALL)
    report = render_shards(jobs, tmp_path / "whole", 3)
    assert (report["examples"], report["failed"], report["shards"]) == (6, 2, 3)
    reasons = [json.loads(line) for line in (tmp_path / "whole" / "failed.jsonl").read_text().splitlines()]
    assert {entry["object"] for entry in reasons} == {"open"}
    assert "close it" in reasons[0]["reason"]

    real, count = render._attempt, 0

    def dying(job):
        nonlocal count
        count += 1
        if count > 4:
            raise KeyboardInterrupt
        return real(job)

    render._attempt = dying
    try:
        with pytest.raises(KeyboardInterrupt):
            render_shards(jobs, tmp_path / "parts", 3)
    finally:
        render._attempt = real
    assert len(open_shards(tmp_path / "parts")) == 1
    rest = render_shards(jobs, tmp_path / "parts", 3)
    assert rest["shards_before"] == 1
    for a, b in zip(open_shards(tmp_path / "whole"), open_shards(tmp_path / "parts"), strict=True):
        assert a.info == b.info
        for name in ("occupancy", "crops", "visibility", "view_offsets"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert render_shards(jobs, tmp_path / "parts", 3)["examples"] == 0


def test_a_folder_of_other_examples_is_left_alone(shapes, tmp_path):
    render_shards(list_jobs("shapes", 1, 0, objects=1, **SMALL), tmp_path, 4)
    with pytest.raises(InputError, match="choose another folder"):
        render_shards(list_jobs("shapes", 1, 1, objects=1, **SMALL), tmp_path, 4)


@pytest.mark.slow
def test_workers_make_the_same_examples(tmp_path):
    options = ["--meshes", "procedural:2", "--examples-per-object", "1", "--image-size", "28", "--resolution", "16",
               "--settings", "image_width=64", "image_height=48"]  # fmt: skip
    assert main([*options, "--out", str(tmp_path / "one")]) == 0
    assert main([*options, "--out", str(tmp_path / "two"), "--workers", "2"]) == 0
    (one,), (two,) = open_shards(tmp_path / "one"), open_shards(tmp_path / "two")
    assert one.info == two.info
    np.testing.assert_array_equal(one.crops, two.crops)
    np.testing.assert_array_equal(one.occupancy, two.occupancy)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--meshes", "/no/such/folder"], "no folder"),
        (["--meshes", "procedural:2", "--settings", "colour=red"], "no setting 'colour'"),
        (["--meshes", "procedural:2", "--shard-size", "0"], "at least 1"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("shard_*"))


def test_views_are_a_number_or_a_range(capsys):
    assert render.parse_views("3") == (3, 3)
    assert render.parse_views("1..4") == (1, 4)
    for text in ("0", "4..2", "many"):
        with pytest.raises(SystemExit):
            main(["--meshes", "procedural:2", "--out", "x", "--views", text])


def test_rays_of_torch_make_the_same_example(shapes):
    job = RenderJob("shapes", "ring", 0, 2, **SMALL)
    expected, found = render_example(job), render_example(replace(job, rays="cpu"))
    np.testing.assert_array_equal(found.occupancy, expected.occupancy)
    assert found.crops.shape == expected.crops.shape
    assert (found.crops != expected.crops).mean() < 0.005
    assert (found.cloud != expected.cloud).sum() <= 0.02 * expected.cloud.sum()
