"""Layout files: read as they are written, faults named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import look_at, rigid
from gena3d_core.io.scene_layouts import layout_json, open_layout_folder, read_layout
from gena3d_core.simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from gena3d_core.types import Intrinsics, SupportPlane

CAMERA = Intrinsics(64, 48, 52.0, 53.0, 31.0, 23.5)
BACK = np.array([0.0, 3.0, 1.0])


def similarity(rng):
    R = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    return rigid(rng.uniform(0.01, 3.0) * R, rng.normal(0, 1, 3))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 2))
def test_what_is_written_is_read(tmp_path_factory, seed, count, cameras):
    rng = np.random.default_rng(seed)
    layout = SceneLayout(
        "kitchen",
        tuple(SceneObject(f"thing_{k}", similarity(rng)) for k in range(count)),
        SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0),
        tuple(
            SceneCamera(look_at(rng.normal(0, 1, 3) + np.array([0, 3, 1]), np.zeros(3)), CAMERA) for _ in range(cameras)
        ),
        count - 1,
    )
    path = tmp_path_factory.mktemp("layouts") / "kitchen.json"
    path.write_text(json.dumps(layout_json(layout)))
    found = read_layout(path)
    assert (found.id, found.query, len(found.cameras)) == ("kitchen", count - 1, cameras)
    for a, b in zip(found.objects, layout.objects, strict=True):
        assert a.mesh == b.mesh
        np.testing.assert_allclose(a.S_world_object, b.S_world_object, atol=1e-9)
    for c, d in zip(found.cameras, layout.cameras, strict=True):
        assert c.intrinsics == d.intrinsics
        np.testing.assert_allclose(c.T_world_camera, d.T_world_camera)


def content(**changes):
    thing = {"object_id": "mug", "translation_m": [1, 2, 3], "quat_wxyz": [0.5**0.5, 0, 0, 0.5**0.5], "scale_m": 2.0}
    return {"schema": 1, "id": "a", "split": "val", "support_plane": "z = 0", "objects": [thing], **changes}


def test_points_go_where_the_formula_says(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content()))
    S = open_layout_folder(tmp_path, "val").load("a").objects[0].S_world_object
    np.testing.assert_allclose(S @ [0.5, 0.0, 0.25, 1.0], [1.0, 3.0, 3.5, 1.0], atol=1e-12)


def test_splits_are_apart(tmp_path):
    for name, split in (("a", "train"), ("b", "val"), ("c", "train")):
        (tmp_path / f"{name}.json").write_text(json.dumps(content(id=name, split=split)))
    assert list(open_layout_folder(tmp_path).ids()) == ["a", "c"]
    with pytest.raises(InputError, match="no scene 'b' in split 'train'"):
        open_layout_folder(tmp_path).load("b")
    with pytest.raises(InputError, match="no scene of split 'test'; its scenes are of train, val"):
        open_layout_folder(tmp_path, "test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "no layout"),
        ({"objects": []}, "has no object"),
        ({"query": 1}, "query 1 is none"),
        ({"support_plane": "y = 0"}, "support_plane must be"),
        ({"objects": [{"object_id": "mug"}]}, "'quat_wxyz' is missing"),
        ({"objects": [{**content()["objects"][0], "quat_wxyz": [0, 0, 0, 0]}]}, "no direction"),
        ({"objects": [{**content()["objects"][0], "scale_m": -1}]}, "positive scale"),
        ({"T_world_camera": [np.eye(4).tolist()]}, "'intrinsics' is missing"),
    ],
)
def test_faults_are_named(tmp_path, changes, message):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content(**changes)))
    with pytest.raises(DataFormatError, match=message) as error:
        read_layout(path)
    assert "a.json" in str(error.value)


def test_a_file_has_one_camera_model(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(content()))
    layout = open_layout_folder(tmp_path, "val").load("a")
    other = Intrinsics(32, 48, 52.0, 53.0, 31.0, 23.5)
    cameras = (SceneCamera(np.eye(4), CAMERA), SceneCamera(np.eye(4), other))
    with pytest.raises(InputError, match="one camera's intrinsics, got 2"):
        layout_json(SceneLayout("a", layout.objects, layout.support, cameras))
