"""The node as a process of its own, with the real pipeline."""

import pytest

from gena3d_core.simulation import find_scene, views_from_scene
from gena3d_ros import conversions
from gena3d_ros.diagnostics import ERROR, OK, WARN

START = ["-p", "autostart:=true", "-p", "settle_s:=0.0", "-p", "max_faces:=3000"]


@pytest.fixture(scope="module")
def view_messages():
    views = views_from_scene(find_scene("default"), 2)
    return [conversions.view_to_msg(view, "map") for view in views]


@pytest.mark.slow
def test_real_pipeline_ends_cleanly_when_interrupted_during_work(ros, client, stop, view_messages):
    process = ros.spawn("gena3d_ros.reconstruction", ros_args=START)
    client.send(conversions.view_set_to_msg(view_messages, "map", 1))
    client.status("reconstruction", OK, "working: ")
    code, output = stop(process)
    assert code == 0, output
    assert "reconstruction stopped: the node was deactivated" in output
    assert "Traceback" not in output
    assert not client.scenes


@pytest.mark.slow
def test_real_pipeline_over_dds_with_an_empty_table_and_a_view_without_depth(ros, client, stop, view_messages):
    process = ros.spawn("gena3d_ros.reconstruction", ros_args=START)
    client.send(conversions.view_set_to_msg(view_messages, "map", 1))
    client.wait_for(lambda: client.scenes, 120, "the first scene")
    found = {item.id for item in client.scenes[0].objects}
    assert len(found) >= 3

    empty = find_scene("default")
    empty = type(empty)(**{**vars(empty), "objects": ()})
    bare = [conversions.view_to_msg(view, "map") for view in views_from_scene(empty, 2)]
    client.send(conversions.view_set_to_msg(bare, "map", 2))
    client.wait_for(lambda: len(client.scenes) == 2 or client.statuses["reconstruction"].level == ERROR, 120)
    assert not client.scenes[-1].objects, "an empty table is an empty scene, not an error"
    client.status("scene", WARN, "no objects found")

    one = view_messages[0]
    one.depth.data = []
    one.depth.format = ""
    client.send(conversions.view_set_to_msg([one], "map", 3))
    status = client.status("reconstruction", ERROR, "stage 'stereo' failed")
    assert "plane" in status.message or "views" in status.message
    assert len(client.scenes) == 2
    assert stop(process)[0] == 0
