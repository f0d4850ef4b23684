"""A scene whose mesh has 100k faces passes DDS between two processes, bit for bit."""

import hashlib

import numpy as np
from gena3d_ros.msg import ReconstructedScene

from gena3d_core.types import Mesh, ReconstructedObject, Scene
from gena3d_ros import conversions, qos

FACES = 100_000
ECHO = f"""
import sys
import rclpy
from gena3d_ros import conversions, qos
from gena3d_ros.msg import ReconstructedScene

rclpy.init()
node = rclpy.create_node("echo")
publisher = node.create_publisher(ReconstructedScene, "back", qos.latched())

def answer(message):
    scene = conversions.scene_from_msg(message)
    assert len(scene.objects[0].mesh.faces) == {FACES}
    publisher.publish(conversions.scene_to_msg(scene))

node.create_subscription(ReconstructedScene, "there", answer, qos.latched())
rclpy.spin(node)
"""


def digest(mesh):
    names = ("vertices", "faces", "vertex_colors", "vertex_confidence", "vertex_observed")
    return [hashlib.sha256(getattr(mesh, name).tobytes()).hexdigest() for name in names]


def test_hundred_thousand_faces_there_and_back(ros, rng, wait_for, tmp_path, monkeypatch):
    count = FACES // 2
    mesh = Mesh(
        vertices=rng.normal(size=(count, 3)).astype(np.float32),
        faces=rng.integers(0, count, (FACES, 3)).astype(np.int32),
        vertex_colors=rng.integers(0, 256, (count, 3), dtype=np.uint8),
        vertex_confidence=rng.random(count, dtype=np.float32),
        vertex_observed=rng.random(count) > 0.5,
    )
    scene = Scene(objects=(ReconstructedObject(1, "big", 1.0, mesh, np.eye(4), np.ones(3)),), frame_id="map")
    (tmp_path / "echo_process.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    node, back = ros.node("sender"), []
    node.create_subscription(ReconstructedScene, "back", back.append, qos.latched())
    publisher = node.create_publisher(ReconstructedScene, "there", qos.latched())
    process = ros.spawn("echo_process")
    publisher.publish(conversions.scene_to_msg(scene))
    wait_for(lambda: back or process.poll() is not None, 60, "the scene from the other process")
    assert back, process.communicate()[0]
    assert digest(conversions.scene_from_msg(back[0]).objects[0].mesh) == digest(mesh)
