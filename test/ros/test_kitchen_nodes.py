"""The real recording through the real nodes, each a process of its own, against the pipeline without ROS."""

import json

import numpy as np
import pytest
import rclpy
from action_msgs.msg import GoalStatus
from gena3d_ros.action import Reconstruct
from gena3d_ros.msg import ReconstructedScene, ViewSet
from rclpy.action import ActionClient

from gena3d_core.io import load_views
from gena3d_core.pipeline import Pipeline, PipelineConfig
from gena3d_ros import conversions, qos
from gena3d_ros.bringup import shared_memory_environment

WORLD = "kitchen"
MAX_FACES = 5_000


def parameters(**values):
    return [part for name, value in values.items() for part in ("-p", f"{name}:={json.dumps(value)}")]


@pytest.mark.slow
def test_player_accumulator_and_reconstruction_give_what_the_pipeline_gives(
    ros, wait_for, stop, kitchen_dir, monkeypatch
):
    sparse = json.loads((kitchen_dir / "annotations.json").read_text())["sparse_views"]
    frames = sorted(next(entry["frames"] for entry in sparse if entry["views"] == 2))

    view_sets, scenes, feedback = [], [], []
    node = rclpy.create_node("observer", context=ros.context)
    client = ActionClient(node, Reconstruct, "reconstruction/reconstruct")
    node.create_subscription(ViewSet, "view_set", view_sets.append, qos.latched(10))
    node.create_subscription(ReconstructedScene, "objects", scenes.append, qos.latched())
    ros.add(node)
    # As `bringup` starts them: without the profile a busy machine delays large images by seconds.
    for name, value in shared_memory_environment(nodes=3).items():
        monkeypatch.setenv(name, value)
    start = {"autostart": True}
    ros.spawn("gena3d_ros.reconstruction", ros_args=parameters(**start, auto_reconstruct=False, max_faces=MAX_FACES))
    ros.spawn("gena3d_ros.view_accumulator", ros_args=parameters(**start, world_frame=WORLD))
    assert client.wait_for_server(60)
    player = parameters(**start, path=str(kitchen_dir), frames=frames, rate_hz=4.0, loop=True, world_frame=WORLD)
    player_process = ros.spawn("gena3d_ros.rgbd_player", ros_args=player)

    def all_views():
        return view_sets and len(view_sets[-1].views) == len(frames)

    try:
        wait_for(all_views, 60, "a set of all views")
    except pytest.fail.Exception as failure:
        pytest.fail("\n".join([str(failure), *(stop(process)[1] for process in ros.processes)]))
    stop(player_process)

    def accepted_goal():
        """None until the node is active."""
        answer = client.send_goal_async(
            Reconstruct.Goal(), feedback_callback=lambda m: feedback.append(m.feedback.stage)
        )
        wait_for(answer.done, 60, "the answer to a goal")
        return answer.result() if answer.result().accepted else None

    result = wait_for(accepted_goal, 60, "an active reconstruction node").get_result_async()
    wait_for(result.done, 120, "the result")
    assert result.result().status == GoalStatus.STATUS_SUCCEEDED, result.result().result.message
    wait_for(lambda: scenes, 20, "the scene on its topic")
    assert {"views", "stereo", "segmentation", "generation"} <= set(feedback)

    views = conversions.view_set_from_msg(view_sets[-1])
    # The player's first frames may pass before a busy machine has connected everything: it plays in a loop.
    recorded = {view.T_world_camera.round(6).tobytes(): view for view in load_views(kitchen_dir, frames=frames)}
    expected_views = [recorded[view.T_world_camera.round(6).tobytes()] for view in views]
    for got, wanted in zip(views, expected_views, strict=True):
        np.testing.assert_array_equal(got.color, wanted.color)
        np.testing.assert_array_equal(got.depth_m, wanted.depth_m)
        assert got.intrinsics == wanted.intrinsics

    expected = Pipeline(PipelineConfig(max_faces=MAX_FACES)).run(expected_views).scene
    scene = conversions.scene_from_msg(scenes[-1])
    assert scene.frame_id == WORLD
    assert len(scene.objects) == len(expected.objects) > 0
    for got, wanted in zip(scene.objects, expected.objects, strict=True):
        np.testing.assert_allclose(got.T_world_object, wanted.T_world_object, atol=1e-3)
        np.testing.assert_allclose(got.size_m, wanted.size_m, atol=2e-3)
        assert len(got.mesh.faces) == pytest.approx(len(wanted.mesh.faces), rel=0.05)
