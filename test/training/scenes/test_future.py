"""3D-FUTURE's scenes: models land where their poses say, in an upright world that the camera sees as published."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import project
from gena3d_core.geometry.mesh import transformed
from training.meshes import open_source
from training.scenes.source import open_scenes

PITCH_DEG = -25.0
CHAIR, SHELF = "1c0ad8d2", "77ee01ab"
R_CAMERA_ROOM = Rotation.from_euler("x", -PITCH_DEG, degrees=True).as_matrix()
"""The camera looks down: y up in the room, camera x right, y up, z backwards."""
YAWS_DEG, PLACES = {CHAIR: 35.0, SHELF: -70.0}, {CHAIR: (0.4, -1.2, -2.5), SHELF: (-0.9, -1.2, -3.5)}
"""In a room whose origin is the camera and whose floor is 1.2 m below."""


def raw_models():
    """y-up, metres, origin on the floor: a chair of two boxes, a shelf off its origin."""
    seat = trimesh.creation.box((0.5, 0.45, 0.5), trimesh.transformations.translation_matrix((0, 0.225, 0)))
    back = trimesh.creation.box((0.5, 0.55, 0.1), trimesh.transformations.translation_matrix((0, 0.70, -0.2)))
    shelf = trimesh.creation.box((0.8, 1.6, 0.3), trimesh.transformations.translation_matrix((0.1, 0.8, 0)))
    return {CHAIR: trimesh.util.concatenate([seat, back]), SHELF: shelf}


def T_camera_raw(id):
    R = R_CAMERA_ROOM @ Rotation.from_euler("y", YAWS_DEG[id], degrees=True).as_matrix()
    return transforms.rigid(R, R_CAMERA_ROOM @ np.array(PLACES[id]))


def pose(id):
    T = T_camera_raw(id)
    return {"translation": T[:3, 3].tolist(), "euler": Rotation.from_matrix(T[:3, :3]).as_euler("xyz", True).tolist()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("future")
    for id, model in raw_models().items():
        (root / "3D-FUTURE-model" / id).mkdir(parents=True)
        model.export(root / "3D-FUTURE-model" / id / "raw_model.obj")
    (root / "3D-FUTURE-scene" / "GT").mkdir(parents=True)
    common = {"image_id": 7, "fov": 1.0}
    annotations = [
        {**common, "model_id": CHAIR, "pose": pose(CHAIR)},
        {**common, "model_id": None, "pose": {"translation": None}},
        {**common, "model_id": SHELF, "pose": pose(SHELF)},
        {**common, "model_id": "not_there", "pose": pose(SHELF)},
        {"image_id": 8, "model_id": None},
    ]
    images = [{"id": id, "file_name": f"{id}", "width": 120, "height": 80} for id in (7, 8)]
    content = {"images": images, "annotations": annotations}
    (root / "3D-FUTURE-scene" / "GT" / "train_set.json").write_text(json.dumps(content))
    return root


def test_models_land_where_their_poses_say(folder):
    meshes = open_source(str(folder / "3D-FUTURE-model"))
    scenes = open_scenes(str(folder / "3D-FUTURE-scene"), meshes)
    assert list(scenes.ids()) == ["7"]
    layout = scenes.load("7")
    assert [item.mesh for item in layout.objects] == [CHAIR, SHELF]
    (camera,) = layout.cameras
    assert camera.intrinsics.fx == pytest.approx(60.0 / np.tan(0.5))
    for item in layout.objects:
        mesh = transformed(meshes.load(item.mesh).mesh, item.S_world_object)
        # z is up, and both stand on the floor, which is the support.
        assert mesh.vertices[:, 2].min() == pytest.approx(0.0, abs=2e-3)
        raw = raw_models()[item.mesh].vertices
        assert np.ptp(mesh.vertices[:, 2]) == pytest.approx(np.ptp(raw[:, 1]), abs=2e-3)
        # The camera sees the corners where the published pose puts them: x right, y up, -z ahead.
        opengl = transforms.apply(T_camera_raw(item.mesh), np.asarray(raw))
        expected, _ = project(opengl * (1.0, -1.0, -1.0), camera.intrinsics)
        seen = transforms.apply(transforms.inverse(camera.T_world_camera), mesh.vertices.astype(np.float64))
        found, depth = project(seen, camera.intrinsics)
        assert depth.min() > 0.5
        np.testing.assert_allclose(found.min(axis=0), expected.min(axis=0), atol=0.3)
        np.testing.assert_allclose(found.max(axis=0), expected.max(axis=0), atol=0.3)
    assert camera.T_world_camera[2, 3] == pytest.approx(1.2, abs=2e-3)
    # The camera looks along +y, PITCH_DEG down.
    np.testing.assert_allclose(
        camera.T_world_camera[:3, 2],
        [0.0, np.cos(np.deg2rad(PITCH_DEG)), np.sin(np.deg2rad(PITCH_DEG))],
        atol=1e-6,
    )


def test_what_is_not_as_published_is_named(folder, tmp_path):
    meshes = open_source(str(folder / "3D-FUTURE-model"))
    scene = folder / "3D-FUTURE-scene"
    with pytest.raises(InputError, match="no split 'test'"):
        open_scenes(f"{scene},split=test", meshes)
    with pytest.raises(InputError, match="need the folder of 3D-FUTURE-model"):
        open_scenes(str(scene), open_source("procedural:2"))
    with pytest.raises(InputError, match="no image '8'"):
        open_scenes(str(scene), meshes).load("8")
    (tmp_path / "GT").mkdir()
    file = tmp_path / "GT" / "train_set.json"
    file.write_text("{}")
    with pytest.raises(DataFormatError, match="not the annotations of 3D-FUTURE"):
        open_scenes(str(tmp_path), meshes)
    empty = {"images": [{"id": 1}], "annotations": []}
    file.write_text(json.dumps(empty))
    with pytest.raises(InputError, match="none of its models"):
        open_scenes(str(tmp_path), meshes)
    item = {"image_id": 1, "model_id": CHAIR, "pose": {"translation": [0, 0, 0], "euler": [0, 0]}}
    bad = {"images": [{"id": 1, "width": 8, "height": 8}], "annotations": [item]}
    file.write_text(json.dumps(bad))
    with pytest.raises(DataFormatError, match="annotation of image '1'"):
        open_scenes(str(tmp_path), meshes).load("1")
