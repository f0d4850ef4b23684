"""Scenes on disk: they come back as they were, and an interrupted save leaves the old one."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import rigid
from gena3d_core.io import load_scene, mesh_files, save_scene
from gena3d_core.types import Mesh, ReconstructedObject, Reconstruction, Scene, SupportPlane


def make_object(identifier: int, rng: np.random.Generator, attributes: bool = True) -> ReconstructedObject:
    box = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    vertices = box.vertices.astype(np.float32) * (1.0, 1.5, 2.0)
    count = len(vertices)
    extra = {
        "vertex_colors": rng.integers(0, 256, (count, 3), dtype=np.uint8),
        "vertex_confidence": rng.random(count, dtype=np.float32),
        "vertex_observed": rng.random(count) > 0.5,
    }
    mesh = Mesh(vertices.astype(np.float32), box.faces.astype(np.int32), **(extra if attributes else {}))
    angle = rng.random()
    R = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return ReconstructedObject(
        identifier,
        f"Tasse [ 1, {identifier} ]\nä",
        0.75,
        mesh,
        rigid(R, rng.random(3)),
        np.ptp(mesh.vertices, axis=0).astype(np.float64),
        0.4,
        {"registration_rmse_m": 0.003, "unknown": math.nan},
    )


@pytest.fixture
def scene(rng):
    return Scene(
        objects=(make_object(1, rng), make_object(7, rng, attributes=False)),
        frame_id="map",
        stamp_ns=1_700_000_000_123_456_789,
        support=SupportPlane(np.array([0.0, 0.0, 1.0]), -0.7),
        view_names=("000000", "000010"),
        timings_s={"stereo": 0.1, "total": 0.3},
        residuals={"pose_rmse_m": 0.001},
        warnings=("one warning",),
    )


def test_scene_comes_back(scene, tmp_path):
    path = save_scene(scene, tmp_path / "deep" / "scene")
    loaded = load_scene(path)
    for name in ("frame_id", "stamp_ns", "view_names", "timings_s", "residuals", "warnings"):
        assert getattr(loaded, name) == getattr(scene, name)
    np.testing.assert_array_equal(loaded.support.normal, scene.support.normal)
    assert loaded.support.offset_m == scene.support.offset_m
    for before, after in zip(scene.objects, loaded.objects, strict=True):
        for name in ("id", "label", "score", "observed_fraction"):
            assert getattr(after, name) == getattr(before, name)
        assert after.residuals["registration_rmse_m"] == 0.003
        assert math.isnan(after.residuals["unknown"])
        np.testing.assert_allclose(after.T_world_object, before.T_world_object, atol=1e-12)
        np.testing.assert_array_equal(after.size_m, before.size_m)
        for name in ("vertices", "faces", "vertex_colors", "vertex_confidence", "vertex_observed"):
            wanted, got = getattr(before.mesh, name), getattr(after.mesh, name)
            assert (wanted is None) == (got is None), name
            if wanted is not None:
                np.testing.assert_array_equal(got, wanted)
                assert got.dtype == wanted.dtype


def test_schema_that_scripts_rely_on(scene, tmp_path):
    content = json.loads((save_scene(scene, tmp_path / "s") / "scene.json").read_text())
    assert content["schema"] == 1
    assert content["timings_s"] == {"stereo": 0.1, "total": 0.3}
    first = content["objects"][0]
    assert {"id", "label", "T_world_object", "size_m", "score", "files", "observed_fraction"} <= first.keys()
    assert np.array(first["T_world_object"]).shape == (4, 4)
    assert (tmp_path / "s" / first["files"]["mesh"]).is_file()


def test_other_readers_apply_the_pose_directly(scene, tmp_path):
    """No y-up turn: what trimesh reads times T_world_object is the world."""
    save_scene(scene, tmp_path / "s")
    entry = scene.objects[0]
    content = json.loads((tmp_path / "s/scene.json").read_text())["objects"][0]
    world = trimesh.load(tmp_path / "s" / content["files"]["mesh"], force="mesh")
    world.apply_transform(np.array(content["T_world_object"]))
    wanted = entry.mesh.vertices @ entry.T_world_object[:3, :3].T + entry.T_world_object[:3, 3]
    np.testing.assert_allclose(world.bounds, [wanted.min(axis=0), wanted.max(axis=0)], atol=1e-5)


def test_reconstruction_tells_its_views(scene, views, tmp_path):
    picture = np.full((4, 6, 3), 200, np.uint8)
    save_scene(Reconstruction(scene, tuple(views), ()), tmp_path / "s", {"overview": picture})
    content = json.loads((tmp_path / "s/scene.json").read_text())
    assert content["files"] == {"overview": "overview.png"}
    assert (tmp_path / "s/overview.png").stat().st_size > 0
    np.testing.assert_allclose(content["views"][2]["T_world_camera"], views[2].T_world_camera)
    assert content["views"][2]["intrinsics"]["fx"] == views[2].intrinsics.fx


def test_second_save_replaces_the_first_and_leaves_no_rubbish(scene, tmp_path):
    save_scene(scene, tmp_path / "s")
    save_scene(replace(scene, objects=scene.objects[:1]), tmp_path / "s")
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["object_001.glb", "scene.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    assert len(load_scene(tmp_path / "s").objects) == 1


def test_files_of_others_survive(scene, tmp_path):
    save_scene(scene, tmp_path)
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "object_099.glb").write_text("not ours")
    save_scene(replace(scene, objects=scene.objects[:1]), tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "object_001.glb",
        "object_099.glb",
        "scene.json",
        "thesis.tex",
    ]


@pytest.mark.parametrize("foreign_file", [False, True])
def test_a_save_that_fails_leaves_the_old_scene(scene, tmp_path, monkeypatch, foreign_file):
    save_scene(scene, tmp_path / "s")
    if foreign_file:
        (tmp_path / "s/note").write_text("x")
    before = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()}

    def broken(path, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gena3d_core.io.scene.cv2.imencode", broken)
    with pytest.raises(InputError, match="No space left"):
        save_scene(replace(scene, objects=()), tmp_path / "s", {"overview": np.zeros((2, 2, 3), np.uint8)})
    assert {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_places_that_cannot_be_written(scene, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file, not a folder"):
        save_scene(scene, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        save_scene(scene, tmp_path / "file" / "below")
    with pytest.raises(InputError, match="distinct ids"):
        save_scene(replace(scene, objects=(scene.objects[0], scene.objects[0])), tmp_path / "s")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=99), "schema is 99"),
        (lambda c: c.pop("objects"), "lacks the field 'objects'"),
        (lambda c: c["objects"][0].pop("T_world_object"), "lacks the field 'T_world_object'"),
        (lambda c: c["objects"][0].update(T_world_object=[[1]]), "object 1: the pose must be a 4x4"),
        (lambda c: c["objects"][0].update(score="high"), "wrong kind"),
        (lambda c: c["objects"][0]["files"].update(mesh="../../etc/passwd"), "outside its folder"),
        (lambda c: c["objects"][0]["files"].update(mesh="absent.glb"), r"absent\.glb: no such file"),
    ],
)
def test_broken_scene_files(scene, tmp_path, change, message):
    save_scene(scene, tmp_path / "s")
    path = tmp_path / "s/scene.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=message):
        load_scene(tmp_path / "s")


def test_broken_meshes_and_missing_scene(scene, tmp_path):
    with pytest.raises(DataFormatError, match=r"scene\.json: cannot be read"):
        load_scene(tmp_path)
    save_scene(scene, tmp_path / "s")
    data = (tmp_path / "s/object_001.glb").read_bytes()
    (tmp_path / "s/object_001.glb").write_bytes(data[: len(data) // 3])
    with pytest.raises(DataFormatError, match=r"object_001\.glb: not a readable"):
        load_scene(tmp_path / "s")


def test_large_meshes_keep_their_vertex_order(rng, tmp_path):
    vertices = rng.random((70_000, 3), dtype=np.float32)  # more than 16-bit indices can name
    faces = rng.permutation(69_999).reshape(-1, 3).astype(np.int32)
    mesh = Mesh(vertices, faces)
    (tmp_path / "m.glb").write_bytes(mesh_files.mesh_to_glb(mesh))
    loaded = mesh_files.mesh_from_glb(tmp_path / "m.glb")
    np.testing.assert_array_equal(loaded.vertices, vertices)
    np.testing.assert_array_equal(loaded.faces, faces)
