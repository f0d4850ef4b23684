"""Prompts of goals and clicks in RViz: what reaches the pipeline, what becomes of the other objects, switching off."""

import re

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from gena3d_ros.msg import BoxPrompt as BoxMessage
from gena3d_ros.msg import PointPrompt as PointMessage
from geometry_msgs.msg import Point, PointStamped, TransformStamped
from rclpy.parameter import Parameter
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from gena3d_core.simulation import find_scene, views_from_scene
from gena3d_core.types import PointPrompt
from gena3d_ros import conversions, qos
from gena3d_ros.diagnostics import ERROR
from gena3d_ros.reconstruction_request import make_pipeline

SEEN = (0.0, 0.0, 0.0)
"""The views of `make_view` look at this place from 0.8 m."""


def ids(scene):
    return [item.id for item in scene.objects]


def clicked(place, frame_id="map", stamp_s=0):
    header = Header(frame_id=frame_id)
    header.stamp.sec = stamp_s
    return PointStamped(header=header, point=Point(**dict(zip("xyz", map(float, place), strict=True))))


@pytest.fixture
def click(ros, client):
    """`click(message)`: publishes as RViz does, once somebody listens."""
    publisher = client.node.create_publisher(PointStamped, "/clicked_point", 10)

    def send(message):
        client.wait_for(lambda: publisher.get_subscription_count() > 0, what="a listener to clicks")
        publisher.publish(message)

    return send


def test_boxes_clicks_and_words_of_a_goal_reach_the_pipeline(node, client, pipeline):
    client.send_views("a", "bb")
    client.scene()
    points = PointMessage(view="bb", x=[3.0, 4.0], y=[5.0, 6.0], on_object=[True, False], label="mug")
    box = BoxMessage(view="a", x_min=1.0, y_min=2.0, x_max=9.0, y_max=8.0, label="pan")
    goal = client.goal(boxes=[box], points=[points], clicked_points=[clicked(SEEN)], text_prompts=["cup"])
    assert goal.result().status == GoalStatus.STATUS_SUCCEEDED
    call, given = pipeline.calls[-1], pipeline.points[-1]
    assert [prompt.label for prompt in call["boxes"]] == ["pan"]
    assert tuple(call["prompts"]) == ("cup",)
    assert given[0] == PointPrompt("bb", ((3.0, 5.0), (4.0, 6.0)), (True, False), "mug")
    # The clicked place lies where the optical axes meet.
    assert len(given) == 2
    np.testing.assert_allclose(given[1].points_xy, [(15.5, 11.5)], atol=1e-3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"points": [PointMessage(view="a", x=[1.0], y=[])]}, "as many x as y"),
        ({"points": [PointMessage(view="a", x=[1.0], y=[1.0], on_object=[False])]}, "one point on the object"),
        ({"points": [PointMessage(view="a", x=[float("nan")], y=[1.0])]}, "finite"),
        ({"clicked_points": [clicked((9.0, 9.0, 9.0))]}, "no view sees the clicked point"),
        ({"clicked_points": [clicked(SEEN, frame_id="")]}, "no header.frame_id"),
        ({"clicked_points": [clicked(SEEN, frame_id="gripper")]}, "gripper"),
        ({"object_ids": [99]}, r"objects \[99\] are not in the last scene"),
    ],
)
def test_prompts_that_make_no_sense_end_the_goal_with_the_reason(node, client, pipeline, fields, message):
    client.send_views("a")
    client.scene()
    ended = client.goal(**fields).result()
    assert ended.status == GoalStatus.STATUS_ABORTED
    assert re.search(message, ended.result.message), ended.result.message
    assert len(pipeline.calls) == 1
    assert client.goal().result().status == GoalStatus.STATUS_SUCCEEDED


def test_a_clicked_point_comes_through_tf(node, client, pipeline):
    client.send_views("a")
    client.scene()
    publisher = client.node.create_publisher(TFMessage, "/tf_static", qos.latched(10))
    moved = TransformStamped(header=Header(frame_id="map"), child_frame_id="gripper")
    moved.transform.translation.z, moved.transform.rotation.w = 0.5, 1.0
    publisher.publish(TFMessage(transforms=[moved]))

    def done():
        goal = client.goal(clicked_points=[clicked((0.0, 0.0, -0.5), "gripper")])
        return goal.result().status == GoalStatus.STATUS_SUCCEEDED

    client.wait_for(done, what="a goal with a point of the gripper's frame")
    np.testing.assert_allclose(pipeline.points[-1][0].points_xy, [(15.5, 11.5)], atol=1e-3)


def test_a_click_renews_one_object_and_the_others_stay(node, client, pipeline, make_object, click):
    client.send_views("a")
    assert ids(client.scene()) == [1, 2]
    pipeline.objects = [make_object(1, (0.02, 0, 0.03), label="renewed")]
    click(clicked(SEEN))
    scene = client.scene(2)
    assert [(item.id, item.label) for item in scene.objects] == [(1, "renewed"), (2, "")]
    assert len(pipeline.points[-1]) == 1
    pipeline.objects = [make_object(1, (-0.5, 0, 0.03), label="new")]
    click(clicked(SEEN))
    assert [(item.id, item.label) for item in client.scene(3).objects] == [(1, "renewed"), (2, ""), (3, "new")]
    assert len(client.get_objects().scene.objects) == 3


def test_clicks_that_fail_are_told_and_the_scene_stays(make_node, client, pipeline, click):
    node = make_node(auto_reconstruct=False)
    assert node.start()
    click(clicked(SEEN))
    client.status("reconstruction", ERROR, "no view set has come yet")
    client.send_views("a")
    client.wait_for(lambda: node.view_set is not None)
    click(clicked((9.0, 9.0, 9.0)))
    client.status("reconstruction", ERROR, "no view sees the clicked point")
    assert pipeline.calls == []
    node.set_parameters([Parameter("clicked_points", value=False)])
    click(clicked(SEEN))
    assert client.goal().result().status == GoalStatus.STATUS_SUCCEEDED
    assert len(pipeline.calls) == 1


def test_objects_are_asked_for_again_by_their_ids(node, client, pipeline, make_object):
    pipeline.objects = [make_object(0, (0, 0, 0), 0.1, "cube"), make_object(1, (0.4, 0, 0), 0.1)]
    client.send_views("a")
    assert ids(client.scene()) == [1, 2]
    # What is found for the object has its id, however little it looks like before.
    pipeline.objects = [make_object(1, (3.0, 0, 0), 0.5, "other")]
    assert client.goal(object_ids=[1]).result().status == GoalStatus.STATUS_SUCCEEDED
    box = pipeline.calls[-1]["boxes"][0]
    assert (box.view, box.label) == ("a", "cube")
    x_min, y_min, x_max, y_max = box.box_xyxy
    assert x_min < 15.5 < x_max
    assert y_min < 11.5 < y_max
    assert [(item.id, item.label) for item in client.scene(2).objects] == [(1, "other"), (2, "")]


def test_the_others_stay_when_a_goal_says_so(node, client, pipeline, make_object):
    client.send_views("a")
    assert ids(client.scene()) == [1, 2]
    pipeline.objects = [make_object(1, (-0.5, 0, 0.03))]
    client.goal(keep_others=True).result()
    assert ids(client.scene(2)) == [1, 2, 3]
    client.goal().result()
    assert ids(client.scene(3)) == [3]


def test_disabled_at_run_time_and_enabled_again(node, client, pipeline):
    client.send_views("a")
    client.scene()
    pipeline.hold("stereo")
    goal = client.goal()
    assert pipeline.reached["stereo"].wait(20)
    assert node.set_parameters([Parameter("enabled", value=False)])[0].successful
    assert goal.result().status == GoalStatus.STATUS_ABORTED
    pipeline.release()
    assert client.refused()
    client.send_views("a", "bb")
    calls = len(pipeline.calls)
    client.wait_for(lambda: node.view_set is not None and len(node.view_set.views) == 2)
    assert len(pipeline.calls) == calls
    assert node.set_parameters([Parameter("enabled", value=True)])[0].successful
    # The views that came meanwhile are worked on.
    assert list(client.scene(2).view_names) == ["a", "bb"]
    assert client.goal().result().status == GoalStatus.STATUS_SUCCEEDED


def test_words_of_automatic_work_are_a_parameter(make_node, client, pipeline):
    assert make_node(text_prompts=["mug", "pan"]).start()
    client.send_views("a")
    client.scene()
    assert pipeline.calls[0]["prompts"] == ("mug", "pan")


@pytest.fixture
def make_real_node(ros, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    from gena3d_ros.reconstruction import ReconstructionNode

    def make(**parameters):
        given = {"generator": "observed", "settle_s": 0.0, "output_directory": str(tmp_path / "scenes")}
        return ros.make(ReconstructionNode, {**given, **parameters}, pipeline_factory=make_pipeline)

    return make


def test_a_click_with_no_weights_at_all(make_real_node, client, click):
    node = make_real_node(auto_reconstruct=False)
    assert node.start()
    views = views_from_scene(find_scene("default"), 3)
    client.send(conversions.view_set_to_msg([conversions.view_to_msg(view, "map") for view in views], "map", 1))
    client.wait_for(lambda: node.view_set is not None)
    whole = client.goal().result().result.scene
    assert len(whole.objects) >= 3
    top = whole.objects[1]
    place = (top.pose.position.x, top.pose.position.y, top.pose.position.z + top.size.z / 2)
    click(clicked(place))
    again = client.scene(2)
    assert sorted(ids(again)) == sorted(ids(whole))
    assert list(again.stage_names) == list(whole.stage_names)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"stereo": "pi3"}, "hf download yyfz233/Pi3 model.safetensors"),
        ({"stereo": "pi3x"}, "hf download yyfz233/Pi3X model.safetensors"),
        ({"stereo": "vggt"}, "facebookresearch/vggt"),
        ({"segmenter": "sam"}, "sam"),
        ({"segmenter": "sam2"}, "sam2"),
        ({"segmenter": "grounded"}, "grounded|florence-2"),
        ({"segmenter": "seer"}, "unknown segmenter 'seer'"),
        ({"segmenter": "sam", "segmenter_checkpoint": "/nowhere/sam.pth"}, "sam"),
    ],
)
def test_what_is_absent_is_said_at_configure_time_and_the_rest_stays_usable(make_real_node, client, parameters, words):
    node = make_real_node(**parameters)
    assert not node.start()
    assert node.state == "unconfigured"
    status = client.status("lifecycle", ERROR, "configure failed")
    # Without the package that is what is absent, with it the weights.
    assert any(word in status.message for word in words.split("|"))
    assert "Traceback" not in status.message
    assert client.refused()
    node.set_parameters(
        [Parameter(name, value={"stereo": "auto", "segmenter": "tabletop"}.get(name, "")) for name in parameters]
    )
    assert node.start()
