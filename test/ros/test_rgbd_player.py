"""The player of recorded folders over DDS: what is published, when, and what happens with broken folders."""

import json

import cv2
import numpy as np
import pytest
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from gena3d_core.geometry.transforms import look_at
from gena3d_core.io.rgbd_folder import RgbdFolder
from gena3d_ros import images, qos
from gena3d_ros.camera_output import T_LINK_OPTICAL
from gena3d_ros.camera_source import CLOCK_START_NS
from gena3d_ros.message_fields import time_from_msg
from gena3d_ros.rgbd_player import RgbdPlayer, chosen_frames
from gena3d_ros.transforms import matrix_from_transform

WIDTH, HEIGHT = 64, 48


@pytest.fixture
def folder(tmp_path, rng):
    """Four frames, 0.1 s apart, with random pictures."""
    for part in ("color", "depth", "pose"):
        (tmp_path / part).mkdir()
    camera = {"width": WIDTH, "height": HEIGHT, "fx": 60.0, "fy": 60.0, "cx": 31.5, "cy": 23.5, "depth_unit_m": 0.001}
    (tmp_path / "camera.json").write_text(json.dumps(camera))
    rows = ["frame,stamp_s"]
    for index, frame in enumerate((0, 3, 6, 9)):
        smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        cv2.imwrite(str(tmp_path / f"color/{frame:06d}.jpg"), smooth)
        cv2.imwrite(str(tmp_path / f"depth/{frame:06d}.png"), rng.integers(0, 3000, (HEIGHT, WIDTH)).astype(np.uint16))
        np.savetxt(tmp_path / f"pose/{frame:06d}.txt", look_at((0.5 + 0.1 * index, 0.2, 0.4), (0, 0, 0)))
        rows.append(f"{frame},{0.1 * index:.4f}")
    (tmp_path / "frames.csv").write_text("\n".join(rows))
    return tmp_path


@pytest.fixture
def listen(ros):
    """Collects messages: `listen(type, topic, profile)` is a growing list."""
    node = ros.node("listener")

    def make(message_type, topic, profile=None):
        received = []
        node.create_subscription(message_type, topic, received.append, profile or qos.images())
        return received

    return make


def make_player(ros, path, **parameters):
    return ros.make(RgbdPlayer, {"path": str(path), **parameters})


def test_every_frame_arrives_as_recorded(ros, listen, wait_for, folder):
    colors, depths, infos = listen(Image, "image"), listen(Image, "depth"), listen(CameraInfo, "camera_info")
    transforms = listen(TFMessage, "/tf", qos.reliable(100))
    player = make_player(ros, folder, speed=2.0)
    assert player.start()
    wait_for(lambda: min(map(len, (colors, depths, infos, transforms))) >= 4)
    recorded = RgbdFolder.open(folder)
    poses = {
        time_from_msg(t.header.stamp): t.transform
        for m in transforms
        for t in m.transforms
        if t.child_frame_id == "camera_link"
    }
    for frame, color, depth, info in zip(recorded.frames, colors, depths, infos, strict=True):
        view = recorded.read(frame)
        assert color.header == depth.header == info.header
        np.testing.assert_array_equal(images.color_from_msg("image", color), view.color)
        np.testing.assert_allclose(images.depth_from_msg("depth", depth, 0.0, 10.0), view.depth_m, rtol=1e-6)
        T = matrix_from_transform(poses[time_from_msg(color.header.stamp)]) @ T_LINK_OPTICAL
        np.testing.assert_allclose(T, view.T_world_camera, atol=1e-9)


def test_frames_are_due_when_they_were_recorded(ros, folder):
    for parameters, due_s in (
        ({}, [0.0, 0.1, 0.2, 0.3]),
        ({"speed": 2.0}, [0.0, 0.05, 0.1, 0.15]),
        ({"rate_hz": 5.0, "frames": [6, 0]}, [0.0, 0.2]),
    ):
        player = make_player(ros, folder, **parameters)
        player.trigger_configure()
        np.testing.assert_allclose([frame.due_s for frame in player.frames()], due_s, atol=1e-9)
        ros.remove(player)


def test_jpeg_passes_through_unchanged(ros, listen, wait_for, folder):
    jpegs = listen(CompressedImage, "front/image/compressed")
    player = make_player(
        ros, folder, camera="front", frames=[9, 3], image_transport=["compressed"], start_timeout_s=30.0
    )
    listen(Image, "front/depth"), listen(CameraInfo, "front/camera_info"), listen(TFMessage, "/tf")
    assert player.start()
    wait_for(lambda: len(jpegs) == 2)
    for message, frame in zip(jpegs, (3, 9), strict=True):
        assert bytes(message.data) == (folder / f"color/{frame:06d}.jpg").read_bytes()
        assert message.header.frame_id == "front_optical_frame"


def test_looping_with_a_clock_jumps_back_like_a_bag(ros, listen, wait_for, folder):
    clocks, infos = listen(Clock, "/clock", qos.reliable(100)), listen(CameraInfo, "camera_info")
    assert make_player(ros, folder, loop=True, publish_clock=True, rate_hz=40.0, start_timeout_s=0.0).start()
    wait_for(lambda: len(clocks) >= 10)
    times = np.array([time_from_msg(m.clock) for m in clocks])
    start = int(np.flatnonzero(times == CLOCK_START_NS)[0])
    expected = CLOCK_START_NS + np.array([0, 100, 200, 300, 0, 100]) * 1_000_000
    np.testing.assert_array_equal(times[start : start + 6], expected[: len(times) - start])
    assert {time_from_msg(m.header.stamp) for m in infos} <= set(expected)


def test_a_folder_without_depth_plays_without_depth_topics(ros, listen, wait_for, folder):
    for path in (folder / "depth").iterdir():
        path.unlink()
    (folder / "depth").rmdir()
    colors = listen(Image, "image")
    player = make_player(ros, folder, start_timeout_s=0.0)
    assert player.start()
    wait_for(lambda: colors)
    assert not player.get_publishers_info_by_topic("/depth")


def test_bad_frames_are_skipped_and_reported(ros, listen, wait_for, folder):
    (folder / "color/000003.jpg").write_bytes(b"")
    cv2.imwrite(str(folder / "depth/000006.png"), np.ones((10, 10), np.uint16))
    colors, infos, depths = listen(Image, "image"), listen(CameraInfo, "camera_info"), listen(Image, "depth")
    listen(TFMessage, "/tf")
    player = make_player(ros, folder)
    assert player.start()
    wait_for(lambda: len(colors) == len(infos) == len(depths) == 2)
    report = wait_for(lambda: [h for h in player.health() if h.part == "recording"])[0]
    assert "frame 3 skipped" in report.message
    assert "frame 6 skipped" in report.message
    assert "10x10" in report.message
    assert player.state == "active"


def test_a_folder_without_one_good_frame_is_an_error_not_a_busy_loop(ros, wait_for, folder):
    for path in (folder / "color").iterdir():
        path.write_bytes(b"no picture")
    player = make_player(ros, folder, loop=True, start_timeout_s=0.0)
    assert player.start()
    report = wait_for(lambda: [h for h in player.health() if "none of its 4 frames" in h.message])[0]
    assert report.part == "stream"
    assert player.trigger_deactivate().name == "SUCCESS"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "camera.json").unlink(), "camera.json"),
        (lambda f: (f / "camera.json").write_text("{"), "camera.json"),
        (lambda f: [p.unlink() for p in (f / "pose").iterdir()], "no frame has both"),
        (lambda f: [p.unlink() for p in (f / "color").iterdir()], "no frame has both"),
        (lambda f: (f / "frames.csv").write_text("frame\nx"), "frames.csv"),
    ],
)
def test_a_broken_folder_refuses_configure_in_one_line(ros, folder, spoil, words):
    spoil(folder)
    player = make_player(ros, folder)
    assert not player.start()
    assert words in player._failure
    assert "\n" not in player._failure
    assert player.state == "unconfigured"


def test_path_and_frames_must_exist(ros, folder):
    player = ros.make(RgbdPlayer)
    assert not player.start()
    assert "path is empty" in player._failure
    player = make_player(ros, folder, frames=[0, 5])
    assert not player.start()
    assert "no frame 5" in player._failure
    assert chosen_frames(RgbdFolder.open(folder), (-1,)) == (0, 3, 6, 9)


def test_the_kitchen_recording_plays(ros, listen, wait_for, kitchen_dir):
    colors, depths = listen(Image, "image"), listen(Image, "depth")
    listen(CameraInfo, "camera_info"), listen(TFMessage, "/tf")
    frames = RgbdFolder.open(kitchen_dir).frames[:2]
    assert make_player(ros, kitchen_dir, frames=list(frames), rate_hz=5.0).start()
    wait_for(lambda: len(colors) == len(depths) == 2)
    view = RgbdFolder.open(kitchen_dir).read(frames[1])
    np.testing.assert_array_equal(images.color_from_msg("image", colors[1]), view.color)
    np.testing.assert_allclose(images.depth_from_msg("depth", depths[1], 0.0, 100.0), view.depth_m, rtol=1e-6)
