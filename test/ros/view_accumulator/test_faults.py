"""What goes wrong with cameras and TF: each ends in a clear message, a living node and the last good views kept."""

import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest

from gena3d_core.types import Intrinsics
from gena3d_ros.conversions import view_from_msg
from gena3d_ros.message_fields import time_to_msg, to_array
from gena3d_ros.transforms import StaticTransformBroadcaster, transform_to_msg


@pytest.fixture
def running(accumulator, driver, listen, wait_for):
    """`running(parameters)`: node, camera and listener, connected."""

    def make(parameters=None):
        node = accumulator(parameters)
        return node, driver().connect(wait_for), listen()

    return make


# Camera info.


def test_camera_info_missing_is_reported_and_late_is_waited_for(running):
    _, camera, heard = running({"tf_timeout_s": 20.0})
    camera.send(0, info=False)
    camera.send(1, info=False)
    assert "no camera_info on /camera_info" in heard.problem("camera_info")
    camera.publish("camera_info", camera.info())
    assert len(heard.views(2).views) == 2


def test_camera_info_missing_for_good_drops_images_and_says_so(running):
    _, camera, heard = running({"tf_timeout_s": 0.1})
    camera.send(0, info=False)
    heard.problem("dropped an image of /image without pose", "no camera_info on /camera_info")
    camera.send(1)
    heard.views(1)


def test_camera_info_of_another_size(running, wait_for):
    node, camera, heard = running()
    camera.publish("camera_info", camera.info(Intrinsics(32, 24, 30.0, 30.0, 15.5, 11.5)))
    camera.send(0, info=False)
    heard.problem("/image: the image is 64x48, camera_info says 32x24")
    assert node.is_active
    camera.send(1)
    heard.views(1)


def test_uncalibrated_camera(running):
    _, camera, heard = running()
    camera.publish("camera_info", camera.info(k=[0.0] * 9))
    camera.send(0, info=False)
    heard.problem("/camera_info: the camera is not calibrated")
    camera.send(1)
    heard.views(1)


def test_unknown_distortion_model(running):
    _, camera, heard = running()
    camera.publish("camera_info", camera.info(distortion_model="bent", d=[0.1, 0.2]))
    camera.send(0, info=False)
    heard.problem("distortion_model 'bent'")
    camera.send(1)
    heard.views(1)


def test_region_of_interest_and_binning(running):
    _, camera, heard = running()
    full = Intrinsics(200, 150, 120.0, 120.0, 99.5, 74.5)
    roi = RegionOfInterest(x_offset=20, y_offset=10, width=128, height=96)
    camera.publish("camera_info", camera.info(full, roi=roi, binning_x=2, binning_y=2))
    camera.send(0, info=False)
    intrinsics = view_from_msg(heard.views(1).views[0]).intrinsics
    assert (intrinsics.width, intrinsics.height, intrinsics.fx) == (64, 48, 60.0)
    # The pixel centres 79 and 80 of the region share the binned pixel 39.
    assert intrinsics.cx == pytest.approx((99.5 - 20 - 0.5) / 2)
    assert intrinsics.cy == pytest.approx((74.5 - 10 - 0.5) / 2)


# Encodings.


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8", "bgra8", "mono8"])
@pytest.mark.parametrize("padding", [0, 5])
def test_colour_encodings(running, tools, encoding, padding):
    _, camera, heard = running()
    rgb = tools.texture(0)
    alpha = np.full((*rgb.shape[:2], 1), 9, np.uint8)
    pixels = {
        "rgb8": rgb,
        "bgr8": rgb[..., ::-1],
        "rgba8": np.concatenate([rgb, alpha], axis=2),
        "bgra8": np.concatenate([rgb[..., ::-1], alpha], axis=2),
        "mono8": rgb[..., :1],
    }[encoding]
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(pixels, encoding, step_padding=padding))
    expected = rgb[..., :1].repeat(3, axis=2) if encoding == "mono8" else rgb
    np.testing.assert_array_equal(view_from_msg(heard.views(1).views[0]).color, expected)


@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_depth_encodings_and_invalid_depth(running, tools, encoding):
    _, camera, heard = running({"min_depth_m": 0.1, "max_depth_m": 5.0})
    metres = np.full((48, 64), 1.5, np.float32)
    metres[0, :4] = [0.0, 0.05, 6.0, 60.0]
    if encoding == "32FC1":
        metres[1, :5] = [np.nan, np.inf, -np.inf, -1.0, 1e30]
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    camera.publish("depth", camera.depth(metres, encoding))
    camera.publish("image", camera.color(tools.texture(0)))
    expected = metres.copy()
    expected[0, :4] = np.nan
    expected[1, :5] = np.nan if encoding == "32FC1" else 1.5
    np.testing.assert_array_equal(view_from_msg(heard.views(1).views[0]).depth_m, expected)


def test_depth_without_a_single_valid_pixel_still_gives_colour(running, tools):
    _, camera, heard = running()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    camera.publish("depth", camera.depth(0.0))
    camera.publish("image", camera.color(tools.texture(0)))
    assert np.isnan(view_from_msg(heard.views(1).views[0]).depth_m).all()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda m: setattr(m, "encoding", "hologram"), "encoding 'hologram'"),
        (lambda m: setattr(m, "data", to_array(np.zeros(0), np.uint8)), "/image: 0 bytes"),
        (lambda m: setattr(m, "data", m.data[:-100]), "do not hold a 64x48 image"),
        (lambda m: setattr(m, "step", 7), "step 7"),
        (lambda m: (setattr(m, "width", 0), setattr(m, "height", 0)), "0x0"),
    ],
    ids=["unknown encoding", "zero bytes", "truncated", "step", "no size"],
)
def test_broken_images_are_named_and_the_next_good_one_is_kept(running, tools, break_it, said):
    node, camera, heard = running()
    camera.send(0)
    heard.views(1)
    camera.tick()
    camera.tf(tools.pose(1))
    camera.publish("depth", camera.depth())
    message = camera.color(tools.texture(1))
    break_it(message)
    camera.publish("image", message)
    heard.problem("/image", said)
    assert node.is_active
    camera.send(2)
    assert heard.views(2).views[0].name == "camera_0001"


def test_depth_of_another_size(running, tools):
    _, camera, heard = running()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    camera.intrinsics = Intrinsics(32, 24, 30.0, 30.0, 15.5, 11.5)
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(tools.texture(0)))
    heard.problem("depth is 32x24, colour 64x48", "registered")


def test_depth_in_another_frame_is_reported(running, tools):
    _, camera, heard = running()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    depth = camera.depth()
    depth.header.frame_id = "depth_optical"
    camera.publish("depth", depth)
    camera.publish("image", camera.color(tools.texture(0)))
    heard.problem("/depth is in frame 'depth_optical', /image in 'camera_optical'")


@pytest.mark.parametrize("size", [0, 300])
def test_broken_jpeg(accumulator, driver, listen, wait_for, tools, size):
    accumulator({"image_transport": ["compressed"], "use_depth": False})
    topics = ("image/compressed", CompressedImage), ("camera_info", CameraInfo)
    camera, heard = driver().connect(wait_for, *topics), listen()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    jpeg = camera.jpeg(tools.texture(0))
    whole, jpeg.data = jpeg.data, jpeg.data[:size]
    camera.publish("image/compressed", jpeg)
    heard.problem("/image/compressed", "truncated")
    camera.tick()
    camera.tf(tools.pose(0))
    jpeg = camera.jpeg(tools.texture(0))
    assert jpeg.data == whole
    camera.publish("image/compressed", jpeg)
    heard.views(1)


# Synchronisation.


def test_never_synchronising_streams_are_reported_with_their_offset(running, tools, wait_for):
    _, camera, heard = running({"sync_slop_s": 0.01})
    camera.publish("camera_info", camera.info())
    for _ in range(12):
        camera.tick(0.1)
        camera.publish("depth", camera.depth(offset_s=-0.04))
        camera.publish("image", camera.color(tools.texture(0)))
    message = heard.problem("never synchronise")
    assert "+40.0 ms" in message
    assert "sync_slop_s allows 10.0 ms" in message
    camera.send(0)
    heard.views(1)


def test_missing_depth_is_reported(running):
    _, camera, heard = running()
    camera.send(0, depth=False)
    heard.problem("no depth on /depth", "use_depth")


def test_silent_camera_is_reported(running):
    _, _, heard = running()
    heard.problem("no image on /image (1 publishers)")


def test_publisher_with_less_reliability_is_reported(accumulator, driver, listen, ros):
    accumulator()
    camera, heard = driver(reliability="best_effort"), listen()
    camera.publisher("image", Image)
    heard.problem("/image", "image_reliability to best_effort")


# Poses.


def test_missing_tf_is_reported_and_nothing_is_kept(running):
    node, camera, heard = running()
    camera.send(0, tf=False)
    heard.problem("dropped an image of /image without pose", "unknown to TF", "known: none")
    assert not node._store.views
    camera.send(1)
    heard.views(1)


def test_unconnected_frames_are_reported(running, tools):
    _, camera, heard = running()
    camera.publish("camera_info", camera.info())
    camera.tf(tools.pose(0), parent="odom")
    camera.broadcaster.sendTransform(transform_to_msg("world", "table", np.eye(4), camera.stamp_ns))
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(tools.texture(0)))
    heard.problem("dropped an image", "connect")


def test_late_tf_is_waited_for_without_blocking(running, tools, wait_for):
    node, camera, heard = running({"tf_timeout_s": 20.0})
    stamps = []
    for index in range(3):
        camera.send(index, tf=False)
        stamps.append(camera.stamp_ns)
    wait_for(lambda: len(node._streams[0].pending) == 3, what="three waiting images")
    for index, stamp_ns in enumerate(stamps):
        camera.tf(tools.pose(index), stamp_ns)
    views = [view_from_msg(view) for view in heard.views(3).views]
    assert [view.stamp_ns for view in views] == stamps


def test_more_waiting_images_than_allowed(running, wait_for):
    node, camera, heard = running({"tf_timeout_s": 20.0, "max_pending_views": 2})
    for index in range(4):
        camera.send(index, tf=False)
    heard.problem("max_pending_views")
    assert len(node._streams[0].pending) == 2


def test_pose_between_samples_is_interpolated(running, tools):
    _, camera, heard = running()
    T = np.eye(4)
    T[0, 3] = 1.0
    camera.publish("camera_info", camera.info())
    stamp_ns = camera.tick()
    camera.tf(np.eye(4), stamp_ns - 10_000_000)
    camera.tf(T, stamp_ns + 30_000_000)
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(tools.texture(0)))
    np.testing.assert_allclose(view_from_msg(heard.views(1).views[0]).T_world_camera[:3, 3], [0.25, 0, 0], atol=1e-9)


def test_camera_on_static_and_moving_frames(running, tools, ros):
    _, camera, heard = running()
    mount = np.eye(4)
    mount[2, 3] = 0.5
    static = StaticTransformBroadcaster(ros.node("mount"))
    static.sendTransform(transform_to_msg("base", camera.frame, mount, 0))
    camera.publish("camera_info", camera.info())
    base = transform_to_msg("world", "base", tools.pose(1), camera.stamp_ns)
    camera.broadcaster.sendTransform(base)
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(tools.texture(0)))
    T = view_from_msg(heard.views(1).views[0]).T_world_camera
    np.testing.assert_allclose(T, tools.pose(1) @ mount, atol=1e-9)


def test_jumping_pose_is_reported_and_views_stay(running, tools):
    node, camera, heard = running()
    camera.send(0)
    heard.views(1)
    jumped = tools.pose(1)
    jumped[:3, 3] += 50.0
    camera.tick(0.1)
    camera.tf(jumped)
    camera.publish("depth", camera.depth())
    camera.publish("image", camera.color(tools.texture(1)))
    heard.problem("jumped by", "clear_views")
    assert node._store.views[0].name == "camera_0001"


def test_broken_transform_is_refused_and_the_next_one_used(running, tools, wait_for):
    _, camera, heard = running()
    broken = transform_to_msg("world", camera.frame, np.eye(4), camera.stamp_ns)
    broken.transform.rotation.w = 0.0
    camera.broadcaster.sendTransform(broken)
    camera.send(0)
    heard.views(1)


@pytest.mark.parametrize("what", ["frame_id", "stamp"])
def test_images_without_frame_or_stamp(running, tools, what):
    _, camera, heard = running()
    camera.tf(tools.pose(0))
    camera.publish("camera_info", camera.info())
    color, depth = camera.color(tools.texture(0)), camera.depth()
    for message in (color, depth):
        if what == "frame_id":
            message.header.frame_id = ""
        else:
            message.header.stamp.sec = message.header.stamp.nanosec = 0
    camera.publish("depth", depth)
    camera.publish("image", color)
    heard.problem("no frame_id" if what == "frame_id" else "stamp is zero")


def test_time_going_back_keeps_the_views_and_goes_on(running, wait_for):
    """A recording in a loop: the second lap is seen as well as the first."""
    node, camera, heard = running()
    for index in range(3):
        camera.send(index)
    heard.views(3)
    start_ns = camera.stamp_ns
    camera.stamp_ns = start_ns - 5 * 10**9
    camera.send(5)
    camera.send(6)
    message = heard.views(5)
    assert {f"camera_{i:04d}" for i in (1, 2, 3)} <= {view.name for view in message.views}
    assert max(view.header.stamp.sec for view in message.views) * 10**9 <= start_ns
    assert node.is_active


def test_time_going_back_while_images_wait(running, wait_for):
    node, camera, heard = running({"tf_timeout_s": 20.0})
    camera.send(0, tf=False)
    wait_for(lambda: len(node._streams[0].pending) == 1)
    camera.stamp_ns -= 60 * 10**9
    camera.send(1)
    stamp_ns = camera.stamp_ns
    view = heard.views(1).views[0]
    assert view.header.stamp.sec * 10**9 + view.header.stamp.nanosec == stamp_ns
    assert len(node._streams[0].pending) == 0


def test_simulated_clock_going_back(accumulator, driver, listen, wait_for, ros):
    """A simulation that is reset, while an image waits for a transform that will never come."""
    node = accumulator({"use_sim_time": True, "tf_timeout_s": 20.0})
    clock = ros.node("clock").create_publisher(Clock, "/clock", 10)
    camera, heard = driver().connect(wait_for), listen()
    wait_for(clock.get_subscription_count, what="a listener on /clock")

    def set_clock(stamp_ns):
        clock.publish(Clock(clock=time_to_msg(stamp_ns)))
        wait_for(lambda: node.get_clock().now().nanoseconds == stamp_ns, what="the new time")

    set_clock(camera.stamp_ns)
    camera.send(0)
    heard.views(1)
    camera.send(1, tf=False)
    wait_for(lambda: len(node._streams[0].pending) == 1)
    camera.stamp_ns -= 500 * 10**9
    set_clock(camera.stamp_ns)
    wait_for(lambda: len(node._streams[0].pending) == 0, what="the end of waiting")
    camera.send(2)
    assert [view.name for view in heard.views(2).views][1] == "camera_0001"
