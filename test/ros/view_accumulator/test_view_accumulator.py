"""The accumulator doing its work: real nodes, real messages over DDS."""

import threading

import cv2
import numpy as np
import pytest
import rclpy
from gena3d_ros.srv import CaptureView
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_srvs.srv import Trigger

from gena3d_ros import qos
from gena3d_ros.conversions import view_from_msg
from gena3d_ros.message_fields import time_to_msg


def test_new_poses_are_kept_exactly_and_repeats_are_not(accumulator, driver, listen, wait_for, tools):
    accumulator()
    camera, heard = driver().connect(wait_for), listen()
    for index in (0, 0, 1, 1, 2, 0):
        camera.send(index)
    message = heard.views(3)
    assert message.header.frame_id == "world"
    views = [view_from_msg(view) for view in message.views]
    assert len({view.name for view in views}) == 3
    assert [view.stamp_ns for view in views] == sorted(view.stamp_ns for view in views)
    for index, view in enumerate(views):
        np.testing.assert_array_equal(view.color, tools.texture(index))
        np.testing.assert_array_equal(view.depth_m, np.float32(1.0))
        np.testing.assert_allclose(view.T_world_camera, tools.pose(index), atol=1e-9)
        assert view.intrinsics == tools.intrinsics
        assert view.camera == "camera"


def test_view_set_is_published_on_change_only_and_latched(accumulator, driver, listen, wait_for, ros):
    node = accumulator()
    camera, heard = driver().connect(wait_for), listen()
    camera.send(0)
    first = heard.views(1)
    for _ in range(5):
        camera.send(0, seed=0)
    wait_for(lambda: node._streams[0].figures.frames >= 6)
    camera.send(1)
    second = heard.views(2)
    assert (first.revision, second.revision) == (1, 2)
    assert len(heard.sets) == 2
    latecomer = listen()
    assert latecomer.views(2).revision == 2


def test_colour_only_camera(accumulator, driver, listen, wait_for):
    accumulator({"use_depth": False})
    camera, heard = driver().connect(wait_for, ("image", Image), ("camera_info", CameraInfo)), listen()
    camera.send(0, depth=False)
    assert len(heard.views(1).views[0].depth.data) == 0


def test_jpeg_is_passed_through_and_compressed_depth_is_read(accumulator, driver, listen, wait_for, tools):
    accumulator({"image_transport": ["compressed"], "depth_transport": ["compressed"]})
    topics = ("image/compressed", CompressedImage), ("depth/compressed", CompressedImage), ("camera_info", CameraInfo)
    camera, heard = driver().connect(wait_for, *topics), listen()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    jpeg = camera.jpeg(tools.texture(0))
    metres = np.full((48, 64), 1.234, np.float32)
    depth = CompressedImage(header=jpeg.header, format="16UC1; png compressed ")
    depth.data = cv2.imencode(".png", (metres * 1000).round().astype(np.uint16))[1].tobytes()
    camera.publish("depth/compressed", depth)
    camera.publish("image/compressed", jpeg)
    message = heard.views(1).views[0]
    assert bytes(message.color.data) == bytes(jpeg.data)
    np.testing.assert_array_equal(view_from_msg(message).depth_m, metres)


def test_best_effort_camera(accumulator, driver, listen, wait_for):
    accumulator({"image_reliability": "best_effort"})
    camera, heard = driver(reliability="best_effort").connect(wait_for), listen()
    camera.send(0)
    heard.views(1)


def test_max_views_is_live_and_the_informative_set_stays(accumulator, driver, listen, wait_for):
    node = accumulator({"max_views": 5})
    camera, heard = driver().connect(wait_for), listen()
    for index in range(8):
        camera.send(index)
    heard.views(5)
    node.set_parameters([rclpy.Parameter("max_views", value=2)])
    assert len(heard.views(2).views) == 2


def test_max_age_drops_old_views(accumulator, driver, listen, wait_for):
    accumulator({"max_age_s": 5.0})
    camera, heard = driver().connect(wait_for), listen()
    camera.stamp_ns = rclpy.clock.Clock().now().nanoseconds
    camera.send(0)
    heard.views(1)
    camera.tick(10.0)
    camera.send(3)
    wait_for(lambda: [view.name for view in heard.sets[-1].views] == ["camera_0002"], what="a set of the new view")


def capture(ros, caller, camera="", name="/view_accumulator"):
    return ros.call(caller, CaptureView, f"{name}/capture_view", CaptureView.Request(camera=camera))


def test_capture_view_keeps_what_the_rules_refuse(accumulator, driver, listen, wait_for, ros):
    node = accumulator({"accumulate": False})
    camera, heard, caller = driver().connect(wait_for), listen(), ros.node("caller")
    response = capture(ros, caller)
    assert not response.success
    assert "no posed image yet" in response.message
    camera.send(0)
    wait_for(lambda: node._streams[0].latest)
    for count in (1, 2):
        response = capture(ros, caller)
        assert response.success, response.message
        assert len(response.view_names) == 1
        assert response.view_names[0] in {view.name for view in heard.views(count).views}
    response = capture(ros, caller, camera="side")
    assert not response.success
    assert "no camera 'side', there are camera" in response.message
    node.trigger_deactivate()
    response = capture(ros, caller)
    assert not response.success
    assert "inactive" in response.message


def test_clear_views(accumulator, driver, listen, wait_for, ros):
    accumulator()
    camera, heard, caller = driver().connect(wait_for), listen(), ros.node("caller")
    camera.send(0)
    camera.send(1)
    heard.views(2)
    response = ros.call(caller, Trigger, "/view_accumulator/clear_views", Trigger.Request())
    assert response.success
    assert "2 views" in response.message
    heard.views(0)
    camera.send(0)
    heard.views(1)


def test_several_cameras_share_one_set(accumulator, driver, listen, wait_for):
    accumulator({"cameras": ["front", "arm/wrist"]})
    front = driver("front/", frame="front_optical").connect(wait_for)
    wrist, heard = driver("arm/wrist/", frame="wrist_optical").connect(wait_for), listen()
    front.send(0)
    wrist.send(3)
    cameras = {view.camera: view.name for view in heard.views(2).views}
    assert cameras == {"front": "front_0001", "arm_wrist": "arm_wrist_0001"}


def test_two_namespaces_side_by_side(accumulator, driver, listen, wait_for):
    accumulator(namespace="/left")
    accumulator(namespace="/right")
    left, right = driver("/left/", frame="left_optical"), driver("/right/", frame="right_optical")
    heard_left, heard_right = listen("/left/view_set"), listen("/right/view_set")
    left.connect(wait_for).send(0, seed=10)
    right.connect(wait_for).send(1, seed=11)
    right.send(2, seed=12)
    assert heard_right.views(2).views[0].pose != heard_left.views(1).views[0].pose


def test_deactivate_reactivate_cleanup(accumulator, driver, listen, wait_for):
    node = accumulator()
    camera, heard = driver().connect(wait_for), listen()
    camera.send(0)
    heard.views(1)
    node.trigger_deactivate()
    wait_for(lambda: camera.publishers["image"].get_subscription_count() == 0, what="the end of listening")
    camera.send(1)
    node.trigger_activate()
    camera.connect(wait_for)
    camera.send(2)
    assert [view.name for view in heard.views(2).views] == ["camera_0001", "camera_0002"]
    node.trigger_deactivate()
    node.trigger_cleanup()
    heard.sets.clear()
    assert node.start()
    camera.connect(wait_for)
    camera.send(4)
    assert heard.views(1).revision == 1


def test_many_lives_leave_nothing_behind(accumulator, driver, listen, wait_for):
    node = accumulator()
    counts = lambda: (len(list(node.subscriptions)), len(list(node.publishers)), len(list(node.timers)))  # noqa: E731
    before, threads = counts(), threading.active_count()
    for _ in range(5):
        node.trigger_deactivate()
        node.trigger_cleanup()
        assert node.start()
    assert counts() == before
    assert threading.active_count() <= threads
    camera, heard = driver().connect(wait_for), listen()
    camera.send(0)
    heard.views(1)


def test_preview_only_for_subscribers(accumulator, driver, listen, wait_for, ros):
    node = accumulator()
    camera, heard = driver().connect(wait_for), listen()
    camera.send(0)
    heard.views(1)
    pictures = []
    ros.node("viewer").create_subscription(Image, "/view_accumulator/keyframes", pictures.append, qos.reliable(1))
    picture = wait_for(lambda: pictures and pictures[-1], what="a preview")
    assert picture.encoding == "rgb8"
    assert len(picture.data) == picture.step * picture.height
    assert node.is_active


def test_simulated_time(accumulator, driver, listen, wait_for, ros):
    node = accumulator({"use_sim_time": True})
    clock = ros.node("clock").create_publisher(Clock, "/clock", 10)
    camera, heard = driver().connect(wait_for), listen()
    wait_for(clock.get_subscription_count, what="a listener on /clock")
    clock.publish(Clock(clock=time_to_msg(camera.stamp_ns)))
    camera.send(0)
    heard.views(1)
    wait_for(lambda: node.get_clock().now().nanoseconds == 1000 * 10**9)


@pytest.mark.parametrize("options", [(), ("-p", "cameras:=[front]")])
def test_as_a_process(ros, driver, listen, wait_for, stop, options):
    process = ros.spawn("gena3d_ros.view_accumulator", ros_args=("-p", "autostart:=true", *options))
    camera, heard = driver("front/" if options else "").connect(wait_for), listen()
    camera.send(0)
    assert heard.views(1).views[0].camera == ("front" if options else "camera")
    code, output = stop(process)
    assert code == 0, output
    assert "Traceback" not in output
