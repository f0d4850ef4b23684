"""The reconstruction node at work: topics, action, services, TF."""

import json

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from sensor_msgs.msg import PointCloud2
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from gena3d_core.types import BoxPrompt
from gena3d_ros import conversions, qos
from gena3d_ros.diagnostics import OK, WARN


def ids(scene):
    return [item.id for item in scene.objects]


def test_a_view_set_becomes_a_scene(node, client, pipeline):
    client.send_views("a", "b")
    scene = client.scene()
    assert pipeline.calls == [{"views": ["a", "b"], "boxes": (), "prompts": (), "seed": 0, "n": 4}]
    assert scene.header.frame_id == "map"
    assert scene.header.stamp.sec == 5
    assert list(scene.view_names) == ["a", "b"]
    assert scene.stage_names[0] == "views"
    back = conversions.scene_from_msg(scene)
    np.testing.assert_allclose(back.objects[1].T_world_object, pipeline.objects[1].T_world_object, atol=1e-12)
    np.testing.assert_array_equal(back.objects[0].mesh.vertices, pipeline.objects[0].mesh.vertices)
    client.status("reconstruction", OK, "idle")
    client.status("scene", OK, "2 objects")
    client.status("views", OK, "2 views")


def test_scene_and_view_set_reach_those_who_come_late(make_node, make_client):
    first = make_client()
    first.send_views("a")
    node = make_node()
    assert node.start()
    first.scene()
    late = make_client("/late")
    late.node.create_subscription(type(first.scenes[0]), "/objects", late.scenes.append, qos.latched())
    assert ids(late.scene()) == [1, 2]


def test_ids_stay_with_their_objects(node, client, pipeline):
    client.send_views("a")
    assert ids(client.scene()) == [1, 2]
    pipeline.objects.reverse()
    client.send_views("a", "b")
    assert ids(client.scene(2)) == [2, 1]


def test_values_of_automatic_work_are_parameters(make_node, client, pipeline):
    node = make_node(hypotheses=3, seed=17)
    assert node.start()
    client.send_views("a")
    client.scene()
    assert (pipeline.calls[0]["n"], pipeline.calls[0]["seed"]) == (3, 17)


def test_without_auto_reconstruct_only_goals_work(make_node, client, pipeline):
    node = make_node(auto_reconstruct=False)
    assert node.start()
    client.send_views("a")
    client.status("views", OK, "1 views")
    assert not pipeline.calls
    assert client.goal().result().result.success
    client.scene()


def test_a_goal_has_its_say_and_feedback(make_node, client, pipeline):
    node = make_node(auto_reconstruct=False)
    assert node.start()
    client.send_views("a", "b", "c")
    client.status("views", OK, "3 views")
    pipeline.hold("layout")
    box = BoxPrompt("b", (1.0, 2.0, 8.0, 9.0), "mug")
    goal = client.goal(
        view_names=["c", "b"], boxes=[conversions.box_to_msg(box)], text_prompts=["mug"], hypotheses=4, seed=9
    )
    expected = ["views", "stereo", "registration", "segmentation", "observation", "generation", "meshing", "layout"]
    client.wait_for(lambda: [f.stage for f in goal.feedback] == expected, what="feedback of every stage")
    fractions = [f.fraction for f in goal.feedback]
    assert fractions == sorted(fractions)
    pipeline.release()
    response = goal.result()
    assert response.status == GoalStatus.STATUS_SUCCEEDED
    assert response.result.success
    assert ids(response.result.scene) == [1, 2]
    assert "2 objects" in response.result.message
    assert pipeline.calls == [{"views": ["b", "c"], "boxes": (box,), "prompts": ("mug",), "seed": 9, "n": 4}]
    assert ids(client.scene()) == [1, 2], "the result of a goal is published too"


def test_automatic_work_takes_the_newest_views_only(make_node, client, pipeline):
    node = make_node(max_restarts=0)
    assert node.start()
    pipeline.hold("generation")
    client.send_views("first")
    assert pipeline.reached["generation"].wait(20)
    for name in ("second", "third", "fourth"):
        client.send_views(name)
    client.wait_for(lambda: node._view_set.views[0].name == "fourth")
    pipeline.release()
    assert list(client.scene(2).view_names) == ["fourth"]
    assert [call["views"] for call in pipeline.calls] == [["first"], ["fourth"]]


def test_new_views_restart_automatic_work_but_not_for_ever(make_node, client, pipeline):
    node = make_node(max_restarts=2)
    assert node.start()
    pipeline.hold("generation")
    client.send_views("view 0")
    for count in (1, 2):
        client.wait_for(lambda count=count: len(pipeline.calls) == count)
        client.send_views(f"view {count}")
    client.wait_for(lambda: len(pipeline.calls) == 3)
    client.send_views("view 3")
    client.wait_for(lambda: node._view_set.views[0].name == "view 3")
    assert len(pipeline.calls) == 3, "after two restarts the work is let finish"
    pipeline.release()
    assert list(client.scene().view_names) == ["view 2"]
    assert list(client.scene(2).view_names) == ["view 3"]
    pipeline.hold("generation")
    client.send_views("view 4")
    client.wait_for(lambda: len(pipeline.calls) == 5)
    client.send_views("view 5")
    client.wait_for(lambda: len(pipeline.calls) == 6, what="a restart, allowed again after a scene")


def test_get_objects(node, client):
    answer = client.get_objects()
    assert not answer.success
    assert "no scene yet" in answer.message
    client.send_views("a")
    client.scene()
    everything, one = client.get_objects(), client.get_objects(ids=[2], include_meshes=False)
    assert everything.success
    assert ids(everything.scene) == [1, 2]
    assert len(everything.scene.objects[0].triangles) == 36
    assert ids(one.scene) == [2]
    assert not one.scene.objects[0].triangles
    unknown = client.get_objects(ids=[7])
    assert not unknown.success
    assert "no objects [7]" in unknown.message


def test_save_scene_writes_below_the_output_directory(node, client, tmp_path):
    assert not client.save_scene("early").success
    client.send_views("a")
    client.scene()
    for name, folder in (("kitchen", "kitchen"), ("", "scene_19700101T000005_000")):
        answer = client.save_scene(name)
        assert answer.success, answer.message
        assert answer.path == str(tmp_path / "scenes" / folder)
        content = json.loads((tmp_path / "scenes" / folder / "scene.json").read_text())
        assert [item["id"] for item in content["objects"]] == [1, 2]
        assert all((tmp_path / "scenes" / folder / item["files"]["mesh"]).is_file() for item in content["objects"])
    assert client.save_scene("kitchen").success, "saving again replaces the folder"


def test_object_frames_are_sent_and_sent_again(node, client):
    heard = []
    client.node.create_subscription(TFMessage, "/tf", heard.append, 100)
    client.send_views("a")
    client.wait_for(lambda: len(heard) > 5)
    frames = {t.child_frame_id: t for t in heard[-1].transforms}
    assert set(frames) == {"object_1", "object_2"}
    assert frames["object_2"].header.frame_id == "map"
    assert frames["object_2"].transform.translation.x == pytest.approx(0.3)


def test_markers_and_points_are_made_for_listeners_only(node, client, monkeypatch):
    from gena3d_ros import markers, scene_outputs

    made = []
    original = markers.scene_markers
    monkeypatch.setattr(scene_outputs.markers, "scene_markers", lambda *a, **k: made.append(1) or original(*a, **k))
    client.send_views("a")
    client.scene()
    assert not made
    arrays, clouds = [], []
    client.node.create_subscription(MarkerArray, "/markers", arrays.append, 10)
    client.node.create_subscription(PointCloud2, "/points", clouds.append, 10)
    client.wait_for(lambda: arrays and clouds, what="markers and points for one who came late, without durability")
    assert arrays[0].markers[0].action == Marker.DELETEALL
    assert {m.id for m in arrays[0].markers[1:]} == {1, 2}
    assert clouds[0].width == 16
    client.send_views("a", "b")
    client.wait_for(lambda: len(arrays) >= 2 and len(clouds) >= 2)


def test_detections_and_planning_scene_where_their_packages_are_installed(node, client, pipeline):
    vision_msgs = pytest.importorskip("vision_msgs.msg")
    moveit_msgs = pytest.importorskip("moveit_msgs.msg")
    detections, planning = [], []
    client.node.create_subscription(vision_msgs.Detection3DArray, "/detections", detections.append, qos.latched())
    client.node.create_subscription(moveit_msgs.PlanningScene, "/planning_scene", planning.append, qos.latched())
    client.send_views("a")
    client.wait_for(lambda: detections and planning)
    assert [d.id for d in detections[-1].detections] == ["1", "2"]
    assert {o.id: o.operation for o in planning[-1].world.collision_objects} == {"object_1": b"\0", "object_2": b"\0"}
    del pipeline.objects[0]
    client.send_views("b")
    client.wait_for(lambda: [d.id for d in detections[-1].detections] == ["2"])
    client.wait_for(lambda: {o.id: o.operation for o in planning[-1].world.collision_objects}["object_1"] == b"\1")


def test_a_scene_without_objects_is_published_and_said(node, client, pipeline):
    pipeline.objects, pipeline.warnings = [], ("no cluster stands on the table",)
    client.send_views("a")
    assert not client.scene().objects
    status = client.status("scene", WARN, "no objects found")
    assert "no cluster" in status.message
