"""Scene files and random scenes: round trips, rest on the table, clear errors."""

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
import yaml

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import apply
from gena3d_core.simulation import Renderer, default_scene, find_scene, load_scene_spec, random_scene
from gena3d_core.simulation.scene import OrbitPath, PosePath, TableSpec, object_mesh
from gena3d_core.simulation.scene_library import SCENES_DIR
from gena3d_core.types import Intrinsics

BALL = {"name": "ball", "kind": "sphere", "params": {"radius_m": 0.05}}


def write(tmp_path, **changes):
    path = tmp_path / "scene.yaml"
    path.write_text(yaml.safe_dump({"schema": 1, "objects": [BALL], **changes}))
    return path


def world_mesh(item):
    mesh = object_mesh(item)
    return trimesh.Trimesh(apply(item.T_world_object, mesh.vertices.astype(np.float64)), mesh.faces, process=False)


def assert_rest_without_overlap(spec):
    bodies = [world_mesh(o) for o in spec.objects]
    for body in bodies:
        assert body.bounds[0, 2] == pytest.approx(0.0, abs=1e-6)
        assert (np.abs(body.bounds[:, :2]) < np.array(spec.table.size_m) / 2).all()
    for i, first in enumerate(bodies):
        for second in bodies[i + 1 :]:
            apart = (first.bounds[0] > second.bounds[1]) | (second.bounds[0] > first.bounds[1])
            if not apart.any():
                both = trimesh.boolean.intersection([first, second], engine="manifold")
                assert both.is_empty or both.volume < 1e-9


@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 6), (3, 40)])
def test_random_scenes_rest_on_the_table_without_overlap(seed, count):
    spec = random_scene(seed, count)
    assert len(spec.objects) == count
    assert_rest_without_overlap(spec)


def test_random_scenes_are_reproducible_and_differ_by_seed():
    first, again, other = random_scene(5, 6), random_scene(5, 6), random_scene(6, 6)
    for a, b in zip(first.objects, again.objects, strict=True):
        assert (a.name, a.kind, a.params, a.texture) == (b.name, b.kind, b.params, b.texture)
        np.testing.assert_array_equal(a.T_world_object, b.T_world_object)
    assert [o.kind for o in first.objects] != [o.kind for o in other.objects] or any(
        not np.array_equal(a.T_world_object, b.T_world_object)
        for a, b in zip(first.objects, other.objects, strict=True)
    )
    assert random_scene(0, 0).objects == ()
    with pytest.raises(InputError, match="0 to 40"):
        random_scene(0, 41)


def test_random_scenes_have_mutual_occlusion():
    spec = replace(random_scene(1, 6), room=None, intrinsics=Intrinsics(160, 120, 131.0, 131.0, 79.5, 59.5))
    bare = replace(spec, objects=(), table=TableSpec(size_m=(0.1, 0.1)))
    T = spec.camera_path.poses(8)[0]
    together = Renderer(spec, shadow_samples=0).render(T, antialias=False).instance_ids
    hidden = []
    for index, item in enumerate(spec.objects):
        alone = Renderer(replace(bare, objects=(item,)), shadow_samples=0).render(T, antialias=False).instance_ids == 1
        hidden.append((alone & (together != index + 1)).sum() / alone.sum())
    assert sum(share > 0.05 for share in hidden) >= 2
    assert max(hidden) < 1.0


def test_default_scene_is_cluttered_and_physically_plausible():
    spec = default_scene()
    assert 6 <= len(spec.objects) <= 8
    assert_rest_without_overlap(spec)
    assert all(object_mesh(o).vertex_colors is not None for o in spec.objects)


def test_every_packaged_scene_loads():
    names = [p.stem for p in SCENES_DIR.glob("*.yaml")]
    assert "default" in names
    assert all(find_scene(name).objects for name in names)


def test_find_scene_by_name_seed_or_path(tmp_path):
    assert find_scene("default").name == "default"
    assert find_scene("random:7:3").name == "random_7_3"
    assert find_scene(str(write(tmp_path))).objects[0].name == "ball"
    with pytest.raises(InputError, match="known: default"):
        find_scene("kitchen")
    with pytest.raises(InputError, match="random:SEED:COUNT"):
        find_scene("random:x")
    with pytest.raises(DataFormatError, match="cannot read"):
        find_scene(str(tmp_path / "absent.yaml"))


def test_a_file_fills_in_every_part(tmp_path):
    matrix = np.eye(4)
    matrix[:3, 3] = (0.1, 0.2, 0.3)
    path = write(
        tmp_path,
        name="full",
        objects=[
            {**BALL, "position_m": [0.1, -0.2]},
            {**BALL, "name": "high", "position_m": [0, 0, 0.5], "rpy_deg": [0, 0, 90]},
            {**BALL, "name": "posed", "T_world_object": matrix.tolist()},
            {"name": "lying", "kind": "cylinder", "params": {"radius_m": 0.03, "height_m": 0.2}, "rpy_deg": [90, 0, 0]},
        ],
        table={"size_m": [1, 2], "thickness_m": 0.05, "texture": {"kind": "checker", "colors": [[0, 0, 0], [1, 1, 1]]}},
        room={"size_m": [4, 4, 3], "floor_z_m": -1},
        lights=[{"position_m": [0, 0, 2], "intensity": 3}],
        ambient=0.5,
        intrinsics={"width": 320, "height": 240, "fx": 260, "fy": 260, "cx": 159.5, "cy": 119.5},
        camera_path={"T_world_camera": [np.eye(4).tolist()]},
        noise={"dropout": 0.02, "color_sigma": 0},
    )
    spec = load_scene_spec(path)
    ball, high, posed, lying = spec.objects
    np.testing.assert_allclose(ball.T_world_object[:3, 3], (0.1, -0.2, 0.05), atol=1e-6)
    np.testing.assert_allclose(high.T_world_object[:3, :3] @ (1, 0, 0), (0, 1, 0), atol=1e-9)
    np.testing.assert_array_equal(posed.T_world_object, matrix)
    assert lying.T_world_object[2, 3] == pytest.approx(0.03, abs=1e-4)
    assert (spec.name, spec.table.size_m, spec.table.texture.kind) == ("full", (1, 2), "checker")
    assert (spec.room.floor_z_m, spec.lights[0].intensity, spec.ambient) == (-1, 3, 0.5)
    assert spec.intrinsics == Intrinsics(320, 240, 260, 260, 159.5, 119.5)
    assert isinstance(spec.camera_path, PosePath)
    assert (spec.noise.dropout, spec.noise.color_sigma) == (0.02, 0)
    as_json = tmp_path / "scene.json"
    as_json.write_text(json.dumps(yaml.safe_load(path.read_text())))
    np.testing.assert_array_equal(load_scene_spec(as_json).objects[3].T_world_object, lying.T_world_object)


def test_parts_may_be_switched_off(tmp_path):
    spec = load_scene_spec(write(tmp_path, room=None, noise=None, objects=[]))
    assert (spec.room, spec.noise, spec.objects) == (None, None, ())
    assert isinstance(spec.camera_path, OrbitPath)
    Renderer(spec, shadow_samples=0).render(spec.camera_path.poses(1)[0])


def test_mesh_paths_are_relative_to_the_file(tmp_path):
    trimesh.creation.box((0.1, 0.1, 0.2)).export(tmp_path / "part.stl")
    spec = load_scene_spec(write(tmp_path, objects=[{"name": "part", "mesh": "part.stl"}]))
    assert spec.objects[0].T_world_object[2, 3] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": 2}, "schema: expected 1, got 2"),
        ({"objects": {}}, "objects: expected a list"),
        ({"objekts": []}, "scene.objekts: unknown key"),
        ({"objects": [{"kind": "box"}]}, r"objects\[0\].name: missing"),
        ({"objects": [{"name": "a"}]}, "either kind"),
        ({"objects": [{**BALL, "colour": 1}]}, r"objects\[0\].colour: unknown key"),
        ({"objects": [{**BALL, "params": {"radius": 1}}]}, "no parameter 'radius'"),
        ({"objects": [{**BALL, "position_m": [0]}]}, "position_m"),
        ({"objects": [{**BALL, "position_m": [0, "left"]}]}, r"position_m\[1\]: expected a finite number"),
        ({"objects": [{**BALL, "rpy_deg": [0, 0]}]}, "rpy_deg: expected a list of 3 numbers"),
        ({"objects": [BALL, BALL]}, "several objects named ball"),
        ({"objects": [{**BALL, "texture": {"kind": "plaid"}}]}, "unknown texture kind"),
        ({"objects": [{**BALL, "T_world_object": [[1]]}]}, "4x4"),
        ({"objects": [{**BALL, "T_world_object": np.zeros((4, 4)).tolist()}]}, "not a rigid transform"),
        ({"objects": [{"name": "m", "mesh": "absent.ply"}]}, "absent.ply does not exist"),
        ({"table": {"size_m": [1]}}, "table.size_m"),
        ({"lights": [{"intensity": 1}]}, r"lights\[0\]"),
        ({"intrinsics": {"width": 640}}, "intrinsics"),
        ({"intrinsics": {"width": 0, "height": 1, "fx": 1, "fy": 1, "cx": 0, "cy": 0}}, "must be positive"),
        ({"camera_path": {"radius_m": -1}}, "positive radius"),
        ({"camera_path": {"frames": 2.5}}, "camera_path.frames: expected a whole number"),
        ({"noise": {"dropout": 7}}, r"noise: noise dropout must lie in \[0, 1\]"),
        ({"noise": {"grain": 7}}, "noise.grain: unknown key"),
    ],
)
def test_errors_name_the_file_the_key_and_the_fault(tmp_path, changes, words):
    path = write(tmp_path, **changes)
    with pytest.raises(DataFormatError, match=words) as caught:
        load_scene_spec(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "absent.ply" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n- 2", b"a: [", b"\xff\xfe\x00", b"just words"])
def test_files_that_are_no_scene_are_refused(tmp_path, content):
    path = tmp_path / "scene.yaml"
    path.write_bytes(content)
    with pytest.raises(DataFormatError, match=r"scene\.yaml"):
        load_scene_spec(path)
