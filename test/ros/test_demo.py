"""The demonstration: simulated cameras, every node in a process of its own, files at the end."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.io import load_scene
from gena3d_core.types import Intrinsics, ReconstructedObject, Scene, View
from gena3d_ros.demo import with_silhouettes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_simulated_cameras_become_files(ros, tmp_path):
    small = ("-p", "width:=320", "-p", "shadow_samples:=0", "-p", "max_faces:=4000")
    process = ros.spawn("gena3d_ros.demo", "--out", str(tmp_path), "--views", "5", "--", *small)
    output, _ = process.communicate(timeout=540)
    assert process.returncode == 0, output
    assert "simulated truth: " in output
    content = json.loads((tmp_path / "scene.json").read_text())
    assert content["objects"]
    assert all((tmp_path / entry["files"]["mesh"]).is_file() for entry in content["objects"])
    assert cv2.imread(str(tmp_path / "overview.png")).shape[0] > 200
    scene = load_scene(tmp_path)
    assert all(np.isfinite(entry.mesh.vertices).all() and len(entry.mesh.faces) for entry in scene.objects)
    assert 2 <= len(scene.view_names) <= 5


@pytest.mark.slow
def test_a_broken_recording_ends_with_one_clear_line(ros, tmp_path):
    process = ros.spawn("gena3d_ros.demo", "--out", str(tmp_path / "out"), "--recording", str(tmp_path / "absent"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "demo failed: the nodes ended early" in output
    assert "rgbd_player" in output
    assert not (tmp_path / "out/scene.json").exists()


@pytest.mark.slow
def test_an_interrupt_ends_the_nodes_too(ros, tmp_path, wait_for, stop):
    process = ros.spawn("gena3d_ros.demo", "--out", str(tmp_path))
    nodes = wait_for(lambda: len(found := descendants(process.pid)) >= 4 and found, 90, "bringup and the nodes")
    code, output = stop(process, timeout_s=60)
    assert code == 1
    assert "demo was interrupted" in output
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in nodes), what="the end of the nodes")


def descendants(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text().split()] if path.is_file() else []
    return children + [grandchild for child in children for grandchild in descendants(child)]


def test_silhouettes_of_the_meshes_stand_for_masks():
    box = trimesh.creation.box(extents=(0.2, 0.2, 0.2))
    mesh = make_mesh(box.vertices, box.faces)
    intrinsics = Intrinsics(100, 80, 100.0, 100.0, 49.5, 39.5)
    view = View(
        name="a", color=np.zeros((80, 100, 3), np.uint8), depth_m=None, intrinsics=intrinsics, T_world_camera=np.eye(4)
    )
    poses = [np.eye(4), np.eye(4)]
    poses[0][:3, 3], poses[1][:3, 3] = (0.0, 0.0, 1.1), (0.0, 0.0, 3.1)  # the second hides behind the first
    objects = tuple(
        ReconstructedObject(id=number, label="", score=1.0, mesh=mesh, T_world_object=pose, size_m=np.full(3, 0.2))
        for number, pose in enumerate(poses)
    )
    result = with_silhouettes(Scene(objects=objects, frame_id="world", stamp_ns=0), [view])
    front, behind = (observation.visible_masks[0] for observation in result.observations)
    assert front.sum() == pytest.approx(400, abs=45)  # 0.2 m at 1.0 m with 100 px focal length: 20 x 20 px
    assert not behind.any()
