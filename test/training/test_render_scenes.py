"""Scene examples: pictures, shapes and places agree; runs resume; both frames are what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import project
from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.geometry.scene_poses import relative_poses, similarities_from_poses
from gena3d_core.io.scene_layouts import layout_json
from gena3d_core.simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from gena3d_core.types import Intrinsics, SupportPlane
from training import render_scenes
from training.mesh_source import TrainingMesh
from training.render_scenes import SceneJob, list_scene_jobs, main, render_scene, render_scene_shards, upright_grid
from training.scene_shards import PER_ASSET, PER_PAIR, PER_VIEW, open_scene_shards

SMALL = {"image_width": 96, "image_height": 72, "image_size": 28, "geometry_size": 56, "resolution": 32}


class Solids:
    name, split = "solids", "all"

    def __init__(self) -> None:
        made = {
            "box": trimesh.creation.box((0.98, 0.6, 0.4)),
            "ball": trimesh.creation.icosphere(subdivisions=2, radius=0.49),
            "pole": trimesh.creation.box((0.2, 0.2, 0.98)),
        }
        self.meshes = {name: make_mesh(shape.vertices, shape.faces) for name, shape in made.items()}

    def ids(self):
        return list(self.meshes)

    def load(self, id):
        if id not in self.meshes:
            raise InputError(f"no mesh '{id}'")
        return TrainingMesh(id, "test", self.meshes[id], 0.15)


@pytest.fixture(autouse=True)
def solids(monkeypatch):
    source = Solids()
    monkeypatch.setattr(render_scenes, "open_source", lambda text, cache=None: source)
    render_scenes._sources.cache_clear()
    yield source
    render_scenes._sources.cache_clear()


@pytest.fixture
def layouts(tmp_path):
    """Two scenes: a box, a ball and a pole in the open; a pole behind a box."""
    T = transforms.look_at(np.array([0.1, -0.9, 0.5]), np.array([0.0, 0.0, 0.08]))
    camera = SceneCamera(T, Intrinsics(192, 144, 200.0, 200.0, 95.5, 71.5))
    support = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
    still = np.eye(3)
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

    def item(mesh, scale, x, y, R):
        height = -Solids().meshes[mesh].vertices[:, 2].min() * scale
        return SceneObject(mesh, transforms.rigid(scale * R, np.array([x, y, height])))

    open_one = (
        item("box", 0.2, -0.2, 0.0, still),
        item("ball", 0.1, 0.0, 0.0, still),
        item("pole", 0.3, 0.2, 0.1, turn),
    )
    folder = tmp_path / "layouts"
    folder.mkdir()
    for name, objects in {"a": open_one, "b": (*open_one, SceneObject("gone", np.eye(4)))}.items():
        layout = SceneLayout(name, objects, support, (camera,))
        (folder / f"{name}.json").write_text(json.dumps(layout_json(layout)))
    return folder


def job(layouts, **changes):
    return SceneJob("solids", str(layouts), "a", 0, 0, **SMALL, **changes)


@pytest.mark.parametrize("frame", ["canonical", "observed"])
def test_pictures_shapes_and_places_agree(layouts, frame):
    example = render_scene(job(layouts, frame=frame))
    assert example.info["objects"] == ["box", "ball", "pole"]
    fx, fy, cx, cy = example.intrinsics[0]
    camera = Intrinsics(56, 56, fx, fy, cx, cy)
    axis = (np.arange(32) + 0.5) / 32 - 0.5
    centres = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    volumes = (0.2**3 * 0.98 * 0.6 * 0.4, 0.1**3 * 4 / 3 * np.pi * 0.49**3, 0.3**3 * 0.2 * 0.2 * 0.98)
    for k, volume in enumerate(volumes):
        side = float(np.cbrt(np.linalg.det(example.grid[k][:3, :3])))
        filled = example.occupancy[k].astype(float).sum() / 255.0 * (side / 32) ** 3
        assert filled == pytest.approx(volume, rel=0.08)
        # Its voxels, placed by its grid, are seen where its pixels are.
        points = transforms.apply(example.grid[k], centres[example.occupancy[k] > 127])
        pixels, _ = project(transforms.apply(transforms.inverse(example.cameras[0]), points), camera)
        rows, columns = np.nonzero(example.instances[0] == k + 1)
        np.testing.assert_allclose(pixels.min(axis=0), [columns.min(), rows.min()], atol=2.0)
        np.testing.assert_allclose(pixels.max(axis=0), [columns.max(), rows.max()], atol=2.0)
        near = example.depth[0][example.instances[0] == k + 1].astype(float)
        distance = np.linalg.norm(example.grid[k][:3, 3] - example.cameras[0][:3, 3])
        assert abs(np.median(near) - distance) < 0.2
        assert example.crops[0, k, 3].max() == 1
        assert example.masks[0, k].any()
    assert (example.visibility > 0.9).all()
    np.testing.assert_array_equal(example.support, [0, 0, 1, 0])


def test_grids_of_both_frames_place_the_same_scene(layouts, solids):
    canonical, observed = (render_scene(job(layouts, frame=frame)) for frame in ("canonical", "observed"))
    np.testing.assert_array_equal(canonical.scene, observed.scene)
    scales = np.cbrt(np.linalg.det(canonical.grid[:, :3, :3]))
    np.testing.assert_allclose(scales, [0.2, 0.1, 0.3])
    # Upright grids are all turned alike: ahead is where the camera looks.
    poses = relative_poses(observed.grid)
    np.testing.assert_allclose(poses[:, 3:7], np.tile([1.0, 0, 0, 0], (3, 1)), atol=1e-9)
    ahead = observed.cameras[0][:3, 2] * (1, 1, 0)
    side = np.cbrt(np.linalg.det(observed.grid[0][:3, :3]))
    np.testing.assert_allclose(observed.grid[0][:3, 1] / side, ahead / np.linalg.norm(ahead), atol=1e-9)
    np.testing.assert_allclose(observed.grid[:, 2, 2], np.cbrt(np.linalg.det(observed.grid[:, :3, :3])))
    for query in range(3):
        back = canonical.grid[query] @ similarities_from_poses(relative_poses(canonical.grid, query))
        np.testing.assert_allclose(back, canonical.grid, atol=1e-9)
    down = upright_grid(solids.meshes["pole"], transforms.look_at(np.array([0, 1e-3, 1.0]), np.zeros(3)))
    assert np.isfinite(down).all()


def test_scenes_are_functions_of_their_jobs_and_runs_resume(layouts, tmp_path):
    jobs = list_scene_jobs(job(layouts), 2)
    assert len({(j.scene, j.number) for j in jobs}) == 4
    report = render_scene_shards(jobs, tmp_path / "whole", 2)
    assert (report["examples"], report["failed"]) == (2, 2)
    assert "no mesh 'gone'" in (tmp_path / "whole" / "failed.jsonl").read_text()
    real, count = render_scenes._attempt, 0

    def dying(one):
        nonlocal count
        count += 1
        if count > 3:
            raise KeyboardInterrupt
        return real(one)

    render_scenes._attempt = dying
    try:
        with pytest.raises(KeyboardInterrupt):
            render_scene_shards(jobs, tmp_path / "parts", 2)
    finally:
        render_scenes._attempt = real
    render_scene_shards(jobs, tmp_path / "parts", 2)
    for a, b in zip(open_scene_shards(tmp_path / "whole"), open_scene_shards(tmp_path / "parts"), strict=True):
        for row in range(len(a)):
            for name in (*PER_ASSET, *PER_VIEW, *PER_PAIR):
                np.testing.assert_array_equal(getattr(a.example(row), name), getattr(b.example(row), name))
    with pytest.raises(InputError, match="choose another folder"):
        render_scene_shards([replace(j, seed=1) for j in jobs], tmp_path / "whole", 2)


def test_a_sampled_scene_from_several_sides(tmp_path):
    options = ["--meshes", "solids", "--scenes", "procedural:2:5,objects=2..3", "--out", str(tmp_path / "out")]
    sizes = ["--image-width", "96", "--image-height", "72", "--image-size", "28", "--resolution", "16"]
    assert main([*options, *sizes, "--geometry-size", "56", "--views", "3", "--frame", "canonical"]) == 0
    (shard,) = open_scene_shards(tmp_path / "out")
    assert len(shard) == 2
    for row in range(2):
        example = shard.example(row)
        assert example.scene.shape == (3, 3, 28, 28)
        assert 2 <= len(example.grid) + example.info["hidden"] <= 3
        ahead = example.cameras[:, :3, 2]
        assert (ahead @ ahead.T)[0, 1] < 0.9
        assert example.pixels.max(axis=0).min() >= 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--scenes", "/no/such"], "no folder"), (["--scenes", "procedural:2", "--views", "0"], "at least 1")],
)
def test_wrong_arguments_are_named(tmp_path, capsys, arguments, message):
    assert main(["--meshes", "solids", *arguments, "--out", str(tmp_path / "out")]) == 1
    assert message in capsys.readouterr().err


def test_a_scene_of_which_nothing_is_seen_is_an_error(layouts, monkeypatch):
    monkeypatch.setattr(render_scenes, "MIN_PIXELS", 10**6)
    with pytest.raises(InputError, match="no object takes"):
        render_scene(job(layouts))
