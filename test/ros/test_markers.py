"""Scenes as markers, point clouds and shape meshes."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from visualization_msgs.msg import Marker

from gena3d_core.geometry.transforms import look_at
from gena3d_core.types import Mesh, ReconstructedObject, Scene
from gena3d_ros import exports, markers, point_clouds


def sphere_object(id=1, label="ball", subdivisions=4, attributes=True):
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.05)
    count = len(ball.vertices)
    mesh = Mesh(
        vertices=ball.vertices.astype(np.float32),
        faces=ball.faces.astype(np.int32),
        vertex_colors=np.tile(np.array([255, 128, 0], np.uint8), (count, 1)) if attributes else None,
        vertex_confidence=np.linspace(0, 1, count, dtype=np.float32) if attributes else None,
        vertex_observed=np.arange(count) % 2 == 0 if attributes else None,
    )
    T = look_at([0.3, 0.2, 0.5], [0, 0, 0])
    return ReconstructedObject(id, label, 0.75, mesh, T_world_object=T, size_m=np.full(3, 0.1))


def scene(*objects):
    return Scene(objects=objects or (sphere_object(1), sphere_object(7, "", 2, attributes=False)), frame_id="map")


def by_name(array):
    return {(m.ns, m.id): m for m in array.markers if m.action == Marker.ADD}


def test_markers_replace_those_before_and_have_the_objects_ids():
    array = markers.scene_markers(scene(), max_faces=1000)
    assert array.markers[0].action == Marker.DELETEALL
    assert set(by_name(array)) == {(ns, id) for ns in ("mesh", "box", "label") for id in (1, 7)}
    assert all(m.header.frame_id == "map" for m in array.markers)


def test_mesh_markers_keep_the_budget_and_lie_on_the_object():
    array = markers.scene_markers(scene(), max_faces=1000)
    meshes = [by_name(array)["mesh", id] for id in (1, 7)]
    assert sum(len(m.points) // 3 for m in meshes) <= 1000
    for marker in meshes:
        points = np.array([[p.x, p.y, p.z] for p in marker.points])
        radius = np.linalg.norm(points, axis=1)
        assert 0.04 < radius.min() <= radius.max() < 0.055
        assert len(marker.colors) == len(marker.points)
    tint = meshes[0].colors[0]
    assert (tint.r, tint.g, tint.b) == pytest.approx((1.0, 128 / 255, 0.0))


def test_label_stands_above_the_object_in_the_world():
    item = sphere_object(3, "mug")
    label = by_name(markers.scene_markers(scene(item), max_faces=100))["label", 3]
    assert label.text == "3 mug (75%)"
    assert label.pose.position.z > item.T_world_object[2, 3] + 0.05


def test_box_has_twelve_edges_of_the_objects_size():
    item = replace(sphere_object(), size_m=np.array([0.1, 0.2, 0.3]))
    box = by_name(markers.scene_markers(scene(item), max_faces=100))["box", 1]
    ends = np.array([[p.x, p.y, p.z] for p in box.points]).reshape(12, 2, 3)
    lengths = np.sort(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1))
    np.testing.assert_allclose(lengths, [0.1] * 4 + [0.2] * 4 + [0.3] * 4)


@pytest.mark.parametrize("color_by", markers.COLORINGS)
def test_colourings_stay_in_range_and_survive_missing_attributes(color_by):
    for item in scene().objects:
        colors = markers.COLORINGS[color_by](item.mesh)
        assert colors.shape == (len(item.mesh.vertices), 3)
        assert 0 <= colors.min() <= colors.max() <= 1


def test_confidence_runs_from_red_to_green():
    colors = markers.confidence_colors(sphere_object().mesh)
    np.testing.assert_allclose(colors[[0, -1]], [markers.LOW, markers.HIGH])


def test_forty_objects_keep_the_common_budget():
    many = scene(*(sphere_object(i) for i in range(40)))
    budgets = markers.face_budgets(many, 8000)
    assert sum(budgets) <= 8000
    assert min(budgets) > 50


def test_an_empty_scene_clears_the_display():
    array = markers.scene_markers(Scene(objects=()), max_faces=100)
    assert [m.action for m in array.markers] == [Marker.DELETEALL]


def test_cloud_holds_every_vertex_in_the_world_with_colour_confidence_and_id():
    given = scene()
    cloud = point_clouds.scene_cloud(given)
    dtype = np.dtype(
        {
            "names": [f.name for f in cloud.fields],
            "formats": [{"rgb": "<u4", "object_id": "<i4"}.get(f.name, "<f4") for f in cloud.fields],
            "offsets": [f.offset for f in cloud.fields],
            "itemsize": cloud.point_step,
        }
    )
    points = np.frombuffer(cloud.data, dtype)
    assert cloud.width == len(points) == sum(len(o.mesh.vertices) for o in given.objects)
    assert cloud.row_step == len(cloud.data)
    ball, bare = given.objects
    first, second = points[points["object_id"] == 1], points[points["object_id"] == 7]
    homogeneous = np.c_[ball.mesh.vertices, np.ones(len(ball.mesh.vertices))]
    expected = (ball.T_world_object @ homogeneous.T).T[:, :3]
    np.testing.assert_allclose(np.c_[first["x"], first["y"], first["z"]], expected, atol=1e-6)
    np.testing.assert_array_equal(first["confidence"], ball.mesh.vertex_confidence)
    assert set(first["rgb"]) == {0xFF8000}
    assert len(second) == len(bare.mesh.vertices)
    assert set(second["confidence"]) == {1.0}


def test_cloud_of_an_empty_scene_is_empty():
    cloud = point_clouds.scene_cloud(Scene(objects=()))
    assert cloud.width == 0
    assert not cloud.data


def test_shape_mesh_is_decimated_and_closed():
    message = exports.shape_mesh(sphere_object(subdivisions=5).mesh, 500)
    faces = np.array([t.vertex_indices for t in message.triangles])
    vertices = np.array([[p.x, p.y, p.z] for p in message.vertices])
    assert 100 < len(faces) <= 500
    ball = trimesh.Trimesh(vertices, faces)
    assert ball.is_watertight
    assert ball.volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.03)


def test_packages_that_are_not_installed_are_none():
    assert exports.optional_messages("no_such_msgs") is None
    assert exports.optional_messages("geometry_msgs").Point().x == 0.0


def test_detections_hold_box_label_and_score():
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    given = scene()
    message = exports.detections_3d(given, vision_msgs)
    assert [d.id for d in message.detections] == ["1", "7"]
    first = message.detections[0]
    assert (first.results[0].hypothesis.class_id, first.results[0].hypothesis.score) == ("ball", 0.75)
    assert first.bbox.center == first.results[0].pose.pose
    assert (first.bbox.size.x, first.bbox.size.y, first.bbox.size.z) == (0.1, 0.1, 0.1)
    assert message.detections[1].results[0].hypothesis.class_id == "object"


def test_planning_scene_adds_what_is_there_and_removes_what_is_gone():
    moveit_msgs = pytest.importorskip("moveit_msgs.msg")
    message = exports.planning_scene(scene(), {"object_1", "object_4"}, 200, moveit_msgs)
    assert message.is_diff
    assert message.robot_state.is_diff
    operations = {o.id: o.operation for o in message.world.collision_objects}
    add, remove = moveit_msgs.CollisionObject.ADD, moveit_msgs.CollisionObject.REMOVE
    assert operations == {"object_4": remove, "object_1": add, "object_7": add}
    assert all(len(o.meshes[0].triangles) <= 200 for o in message.world.collision_objects if o.operation == add)
