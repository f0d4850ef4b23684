"""What can go wrong while the node runs: each ends in a clear message, a living node, the last good scene kept."""

import pytest
from action_msgs.msg import GoalStatus
from gena3d_ros.msg import BoxPrompt

from gena3d_ros import conversions
from gena3d_ros.diagnostics import ERROR, OK, WARN

STAGES = ("stereo", "registration", "segmentation", "observation", "generation", "meshing", "layout")


def ids(scene):
    return [item.id for item in scene.objects]


def assert_alive_with_the_last_scene(client, pipeline, scenes):
    """The last good scene is still there, no other was published, and the next request works."""
    assert len(client.scenes) == scenes
    assert ids(client.get_objects().scene) == [1, 2]
    pipeline.fail_at = pipeline.crash_at = ""
    pipeline.release()
    client.send_views("afterwards")
    assert ids(client.scene(scenes + 1)) == [1, 2]
    client.status("reconstruction", OK, "idle")


@pytest.fixture
def busy(node, client, pipeline):
    """The node has made one good scene; `busy(stage)` has it work again and hold in that stage."""
    client.send_views("good")
    client.scene()

    def start(stage, **goal):
        pipeline.hold(stage)
        sent = client.goal(**goal)
        assert pipeline.reached[stage].wait(20)
        return sent

    return start


@pytest.mark.parametrize("stage", STAGES)
def test_goal_cancelled_in_each_stage(busy, client, pipeline, stage):
    goal = busy(stage)
    client.wait_for(lambda: any(f.stage == stage for f in goal.feedback), what="feedback of the stage")
    goal.handle.cancel_goal_async()
    response = goal.result()
    assert response.status == GoalStatus.STATUS_CANCELED
    assert not response.result.success
    assert "cancelled by the client" in response.result.message
    assert_alive_with_the_last_scene(client, pipeline, 1)


@pytest.mark.parametrize("stage", STAGES)
def test_failing_stage_is_named(node, client, pipeline, stage):
    client.send_views("good")
    client.scene()
    pipeline.fail_at = stage
    response = client.goal().result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert f"stage '{stage}' failed: told to fail" in response.result.message
    status = client.status("reconstruction", ERROR, f"stage '{stage}' failed")
    assert {v.key: v.value for v in status.values}["last_error_stage"] == stage
    assert_alive_with_the_last_scene(client, pipeline, 1)


def test_failure_of_automatic_work_is_reported(node, client, pipeline):
    client.send_views("good")
    client.scene()
    pipeline.fail_at = "meshing"
    client.send_views("bad")
    client.status("reconstruction", ERROR, "stage 'meshing' failed")
    assert_alive_with_the_last_scene(client, pipeline, 1)


def test_unforeseen_error_is_reported_with_its_traceback(node, client, pipeline):
    client.send_views("good")
    client.scene()
    pipeline.crash_at = "stereo"
    response = client.goal().result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "ZeroDivisionError: told to crash" in response.result.message
    client.status("reconstruction", ERROR, "ZeroDivisionError")
    assert_alive_with_the_last_scene(client, pipeline, 1)


def test_new_goal_takes_the_place_of_the_running_one(busy, client, pipeline):
    first = busy("generation")
    second = client.goal(seed=2)
    response = first.result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "newer request" in response.result.message
    pipeline.release()
    assert second.result().status == GoalStatus.STATUS_SUCCEEDED
    assert [call["seed"] for call in pipeline.calls][-1] == 2


def test_goals_in_quick_succession_end_all_and_the_newest_wins(busy, client, pipeline):
    goals = [busy("stereo"), *(client.goal(seed=n) for n in range(1, 8))]
    pipeline.release()
    statuses = [goal.result().status for goal in goals]
    assert statuses == [GoalStatus.STATUS_ABORTED] * 7 + [GoalStatus.STATUS_SUCCEEDED]


def test_goal_stops_automatic_work_and_new_views_wait_for_the_goal(node, client, pipeline):
    pipeline.hold("stereo")
    client.send_views("automatic")
    assert pipeline.reached["stereo"].wait(20)
    goal = client.goal(seed=5)
    client.wait_for(lambda: len(pipeline.calls) == 2)
    client.send_views("later")
    client.wait_for(lambda: node._view_set.views[0].name == "later")
    pipeline.release()
    assert goal.result().status == GoalStatus.STATUS_SUCCEEDED
    client.scene(2)
    assert [call["views"] for call in pipeline.calls] == [["automatic"], ["automatic"], ["later"]]


@pytest.mark.parametrize("stubborn", [False, True])
def test_deactivate_during_work_ends_the_goal_at_once(busy, node, client, pipeline, stubborn):
    goal = busy("segmentation")
    pipeline.stubborn = stubborn
    assert str(node.trigger_deactivate()).endswith("SUCCESS")
    response = goal.result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "deactivated" in response.result.message
    assert client.refused()
    assert ids(client.get_objects().scene) == [1, 2], "an inactive node still answers queries"
    pipeline.release()
    assert str(node.trigger_activate()).endswith("SUCCESS")
    again = client.goal().result()
    assert again.status == GoalStatus.STATUS_SUCCEEDED, again.result.message
    assert ids(again.result.scene) == [1, 2]


@pytest.mark.parametrize("stubborn", [False, True])
def test_cleanup_and_reconfigure_during_work(busy, node, client, pipeline, stubborn):
    goal = busy("generation")
    pipeline.stubborn = stubborn
    assert str(node.trigger_deactivate()).endswith("SUCCESS")
    assert str(node.trigger_cleanup()).endswith("SUCCESS")
    assert goal.result().status == GoalStatus.STATUS_ABORTED
    assert "no scene yet" in client.get_objects().message, "cleanup forgets the scene"
    for _ in range(3):
        assert node.start()
        assert str(node.trigger_deactivate()).endswith("SUCCESS")
        assert str(node.trigger_cleanup()).endswith("SUCCESS")
    assert node.start()
    pipeline.release()
    client.send_views("anew")
    client.wait_for(lambda: any(list(scene.view_names) == ["anew"] for scene in client.scenes), what="a new scene")


def test_configure_that_fails_leaves_the_node_unconfigured_and_repeatable(ros, client):
    from gena3d_core.errors import InputError
    from gena3d_ros.reconstruction import ReconstructionNode

    def factory(parameters):
        if parameters.segmenter != "good":
            raise InputError(f"no segmenter is called '{parameters.segmenter}'")
        return object()

    node = ros.make(ReconstructionNode, {"segmenter": "nonsense"}, pipeline_factory=factory)
    assert not node.start()
    assert node.state == "unconfigured"
    client.status("lifecycle", ERROR, "no segmenter is called 'nonsense'")
    import rclpy

    node.set_parameters([rclpy.Parameter("segmenter", value="good")])
    assert node.start()


def test_empty_view_set_is_said_and_nothing_is_lost(node, client, pipeline):
    client.send_views("good")
    client.scene()
    client.send_views()
    client.status("views", WARN, "the view set is empty")
    response = client.goal().result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "stage 'views' failed: the view set is empty" in response.result.message
    assert_alive_with_the_last_scene(client, pipeline, 1)


def test_goal_before_any_view_set(make_node, client):
    node = make_node(view_set_timeout_s=0.2)
    assert node.start()
    client.status("views", WARN, "no view set yet on '/view_set'")
    response = client.goal().result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "no view set has come yet on '/view_set'" in response.result.message
    client.status("reconstruction", ERROR, "no view set has come yet")


def test_goal_that_comes_a_little_before_the_views_waits_for_them(make_node, client):
    node = make_node(view_set_timeout_s=60.0, auto_reconstruct=False)
    assert node.start()
    goal = client.goal()
    client.send_views("a")
    assert goal.result().status == GoalStatus.STATUS_SUCCEEDED


def test_goal_that_waits_for_views_can_be_cancelled_or_ended_by_deactivation(make_node, client):
    node = make_node(view_set_timeout_s=60.0)
    assert node.start()
    goal = client.goal()
    goal.handle.cancel_goal_async()
    assert goal.result().status == GoalStatus.STATUS_CANCELED
    goal = client.goal()
    assert str(node.trigger_deactivate()).endswith("SUCCESS")
    assert goal.result().status == GoalStatus.STATUS_ABORTED


def truncate_color(view_set):
    view_set.views[1].color.data = view_set.views[1].color.data[:-100]


def zero_quaternion(view_set):
    view_set.views[1].pose.orientation.w = 0.0
    view_set.views[1].pose.orientation.x = 0.0
    view_set.views[1].pose.orientation.y = 0.0
    view_set.views[1].pose.orientation.z = 0.0


def other_size(view_set):
    view_set.views[1].camera_info.width = 640


def same_name(view_set):
    view_set.views[1].name = view_set.views[0].name


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_color, "color"),
        (zero_quaternion, "pose.orientation is not a unit quaternion"),
        (other_size, "camera_info 640x24"),
        (same_name, "unique"),
    ],
)
def test_malformed_view_set_is_refused_by_field(node, client, pipeline, damage, message):
    client.send_views("good")
    client.scene()
    view_set = conversions.view_set_to_msg(client.send_views("x", "y").views, "map", 9)
    client.scene(2)
    damage(view_set)
    client.send(view_set)
    status = client.status("reconstruction", ERROR, message)
    assert status.message.startswith("stage 'views' failed: view_set.views")
    assert_alive_with_the_last_scene(client, pipeline, 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"view_names": ["nowhere"]}, "views ['nowhere'] are not in the view set"),
        ({"boxes": [BoxPrompt(view="good", x_min=5.0, x_max=1.0)]}, "boxes[0]"),
    ],
)
def test_goal_that_makes_no_sense_is_aborted_with_the_reason(node, client, pipeline, fields, message):
    client.send_views("good")
    client.scene()
    response = client.goal(**fields).result()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert message in response.result.message
    assert_alive_with_the_last_scene(client, pipeline, 1)


def test_save_scene_outside_its_directory_is_refused(node, client, tmp_path):
    client.send_views("good")
    client.scene()
    outside, root = tmp_path / "outside", tmp_path / "scenes"
    outside.mkdir()
    root.mkdir()
    (root / "link").symlink_to(outside)
    (root / "file").write_text("mine")
    names = ["../outside", "..", "/absolute", "a/b", "a\\b", ".hidden", " padded", "new\nline", "link", "file"]
    answers = {name: client.save_scene(name) for name in [*names, "x" * 300]}
    assert not any(answer.success or answer.path for answer in answers.values())
    assert all("refused" in answers[name].message for name in names)
    assert "1 to 128 bytes" in answers["x" * 300].message
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "link", "outside", "scenes"]
    assert (root / "file").read_text() == "mine"
    assert client.save_scene("fine").success


def test_save_scene_into_a_directory_that_cannot_be_made(make_node, client, tmp_path):
    (tmp_path / "occupied").write_text("")
    node = make_node(output_directory=str(tmp_path / "occupied" / "below"))
    assert node.start()
    client.send_views("good")
    client.scene()
    answer = client.save_scene("a")
    assert not answer.success
    assert "occupied" in answer.message
    client.send_views("next")
    client.scene(2)


def test_forty_objects(node, client, pipeline, make_object):
    pipeline.objects = [make_object(i, (0.2 * (i % 8), 0.2 * (i // 8), 0.03)) for i in range(40)]
    client.send_views("a")
    assert ids(client.scene()) == list(range(1, 41))
    pipeline.objects = pipeline.objects[::-1]
    client.send_views("b")
    assert ids(client.scene(2)) == list(range(40, 0, -1))
    client.status("scene", OK, "40 objects")


def test_two_namespaced_instances_do_not_mix(ros, make_node, make_client, make_pipeline):
    from tf2_msgs.msg import TFMessage

    frames: set[str] = set()
    ros.node("tf_listener").create_subscription(
        TFMessage, "/tf", lambda m: frames.update(t.child_frame_id for t in m.transforms), 100
    )
    sides = {}
    for side in ("left", "right"):
        pipeline = make_pipeline()
        assert make_node(pipeline, namespace=f"/{side}").start()
        sides[side] = make_client(f"/{side}"), pipeline
    left, pipeline = sides["left"]
    right, other_pipeline = sides["right"]
    left.send_views("a", frame_id="left_map")
    assert left.scene().header.frame_id == "left_map"
    right.send_views("b", "c", frame_id="right_map")
    assert list(right.scene().view_names) == ["b", "c"]
    other_pipeline.fail_at = "stereo"
    assert right.goal().result().status == GoalStatus.STATUS_ABORTED
    assert left.goal().result().status == GoalStatus.STATUS_SUCCEEDED
    left.wait_for(lambda: frames >= {"left/object_1", "right/object_1"}, what=f"frames of both, have {frames}")
    assert {call["views"][0] for call in pipeline.calls} == {"a"}
    assert len(left.scenes) == 2
    assert len(right.scenes) == 1


def test_destroying_a_working_node_ends_its_goal_and_leaves_no_thread(ros, busy, node, client, pipeline):
    busy("generation")
    worker = node._worker._thread
    ros.remove(node)
    assert not worker.is_alive()
    assert not node._action._in_progress
