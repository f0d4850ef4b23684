"""The simulated camera over DDS: topics, encodings, transforms, truth, faults."""

import numpy as np
import pytest
import yaml
from gena3d_ros.msg import ReconstructedScene
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from gena3d_core.geometry.transforms import inverse
from gena3d_core.simulation import Renderer, load_scene_spec
from gena3d_ros import conversions, images, qos
from gena3d_ros.camera_output import T_LINK_OPTICAL
from gena3d_ros.camera_sim import CameraSim, loop_poses, scaled
from gena3d_ros.message_fields import time_from_msg
from gena3d_ros.parameter_table import CameraSimParameters
from gena3d_ros.transforms import matrix_from_transform

SCENE = {
    "schema": 1,
    "objects": [{"name": "ball", "kind": "sphere", "params": {"radius_m": 0.06}, "position_m": [0.0, 0.0]}],
    "room": None,
    "noise": None,
    "intrinsics": {"width": 160, "height": 120, "fx": 130.0, "fy": 130.0, "cx": 79.5, "cy": 59.5},
    "camera_path": {"radius_m": 0.6, "elevation_deg": 35, "frames": 6},
}


@pytest.fixture
def scene_file(tmp_path):
    path = tmp_path / "ball.yaml"
    path.write_text(yaml.safe_dump(SCENE))
    return path


@pytest.fixture
def listen(ros):
    """Collects messages: `listen(type, topic, profile)` is a growing list."""
    node = ros.node("listener")

    def make(message_type, topic, profile=None):
        received = []
        node.create_subscription(message_type, topic, received.append, profile or qos.images())
        return received

    return make


def make_sim(ros, scene_file, namespace="", **parameters):
    given = {"path": str(scene_file), "shadow_samples": 0, "rate_hz": 20.0, **parameters}
    return ros.make(CameraSim, given, namespace=namespace)


def test_streams_match_the_renderer_and_the_transforms(ros, listen, wait_for, scene_file):
    colors, depths, infos = listen(Image, "/image"), listen(Image, "/depth"), listen(CameraInfo, "/camera_info")
    transforms, statics = listen(TFMessage, "/tf", qos.reliable(100)), listen(TFMessage, "/tf_static", qos.latched())
    assert make_sim(ros, scene_file).start()
    wait_for(lambda: min(map(len, (colors, depths, infos, transforms))) >= 6 and statics)
    static = statics[0].transforms[0]
    assert (static.header.frame_id, static.child_frame_id) == ("camera_link", "camera_optical_frame")
    np.testing.assert_allclose(matrix_from_transform(static.transform), T_LINK_OPTICAL, atol=1e-12)
    poses = {time_from_msg(t.header.stamp): t for m in transforms for t in m.transforms}
    spec = load_scene_spec(scene_file)
    renderer = Renderer(spec, shadow_samples=0)
    for color, depth, info in list(zip(colors, depths, infos, strict=False))[:6]:
        assert color.header == depth.header == info.header
        assert (color.encoding, depth.encoding, color.header.frame_id) == ("rgb8", "16UC1", "camera_optical_frame")
        assert conversions.intrinsics_from_msg("camera_info", info) == spec.intrinsics
        pose = poses[time_from_msg(color.header.stamp)]
        assert (pose.header.frame_id, pose.child_frame_id) == ("world", "camera_link")
        image = renderer.render(matrix_from_transform(pose.transform) @ T_LINK_OPTICAL)
        assert np.mean(images.color_from_msg("image", color) != image.color) < 0.01
        received = images.depth_from_msg("depth", depth, 0.0, 10.0)
        assert np.mean(np.isnan(received) == np.isnan(image.depth_m)) > 0.999
        np.testing.assert_allclose(np.nanmedian(np.abs(received - image.depth_m)), 0.0, atol=6e-4)
    stamps = [time_from_msg(c.header.stamp) for c in colors]
    assert stamps == sorted(set(stamps))


def test_compressed_forms_carry_the_same_images(ros, listen, wait_for, scene_file):
    profile = qos.images()
    raw, jpeg = listen(Image, "/left/image"), listen(CompressedImage, "/left/image/compressed", profile)
    depth = listen(Image, "/left/depth")
    pngs = [listen(CompressedImage, f"/left/depth/{form}") for form in ("compressed", "compressedDepth")]
    listen(CameraInfo, "/left/camera_info")
    listen(TFMessage, "/tf", qos.reliable(100))
    sim = make_sim(
        ros,
        scene_file,
        cameras=["left"],
        motion="hold",
        image_transport=["raw", "compressed"],
        depth_transport=["raw", "compressed", "compressedDepth"],
    )
    assert sim.start()
    wait_for(lambda: all((raw, jpeg, depth, *pngs)))
    plain = images.color_from_msg("raw", raw[0]).astype(int)
    assert np.abs(images.color_from_msg("jpeg", jpeg[0]).astype(int) - plain).mean() < 4
    expected = images.depth_from_msg("depth", depth[0], 0.0, 10.0)
    for png in pngs:
        np.testing.assert_array_equal(images.depth_from_msg("png", png[0], 0.0, 10.0), expected)
    assert raw[0].header.frame_id == "left_optical_frame"


def test_float_depth_is_nan_where_there_is_nothing(ros, listen, wait_for, scene_file):
    depths = listen(Image, "/depth")
    assert make_sim(ros, scene_file, depth_encoding="32FC1", start_timeout_s=0.0).start()
    message = wait_for(lambda: depths and depths[0])
    depth_m = np.frombuffer(message.data, np.float32).reshape(message.height, message.width)
    assert message.encoding == "32FC1"
    assert np.isnan(depth_m[0, 0])
    assert 0.4 < np.nanmin(depth_m) < 0.6


def test_ground_truth_reaches_those_who_come_late(ros, listen, wait_for, scene_file):
    assert make_sim(ros, scene_file, start_timeout_s=0.0).start()
    truths = listen(ReconstructedScene, "/camera_sim/ground_truth", qos.latched())
    scene = conversions.scene_from_msg(wait_for(lambda: truths and truths[0]))
    (ball,) = scene.objects
    assert (ball.id, ball.label, scene.frame_id) == (1, "ball", "world")
    np.testing.assert_allclose(ball.T_world_object[:3, 3], (0, 0, 0.06), atol=1e-6)
    np.testing.assert_allclose(ball.size_m, 0.12, atol=1e-4)


def test_simulated_clock_runs_with_the_stamps(ros, listen, wait_for, scene_file):
    clocks, infos = listen(Clock, "/clock", qos.reliable(100)), listen(CameraInfo, "/camera_info")
    assert make_sim(ros, scene_file, publish_clock=True, start_timeout_s=0.0).start()
    wait_for(lambda: len(clocks) > 8 and len(infos) > 8)
    times = [time_from_msg(m.clock) for m in clocks]
    assert (np.diff(times) == 50_000_000).all()
    assert {time_from_msg(m.header.stamp) for m in infos[:8]} <= set(times)


def test_two_namespaced_cameras_do_not_share_frames(ros, listen, wait_for, scene_file):
    infos = [listen(CameraInfo, f"/{ns}/camera_info") for ns in ("a", "b")]
    for namespace in ("a", "b"):
        assert make_sim(ros, scene_file, namespace=namespace, start_timeout_s=0.0).start()
    wait_for(lambda: all(infos))
    assert [m[0].header.frame_id for m in infos] == ["a/camera_optical_frame", "b/camera_optical_frame"]


def test_several_cameras_look_from_different_places_at_the_same_time(ros, listen, wait_for, scene_file):
    transforms = listen(TFMessage, "/tf", qos.reliable(100))
    assert make_sim(ros, scene_file, cameras=["left", "right"], start_timeout_s=0.0).start()
    left, right = wait_for(lambda: transforms and transforms[0]).transforms
    assert left.header.stamp == right.header.stamp
    assert (left.child_frame_id, right.child_frame_id) == ("left_link", "right_link")
    apart = matrix_from_transform(left.transform)[:3, 3] - matrix_from_transform(right.transform)[:3, 3]
    assert np.linalg.norm(apart) > 0.9


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot read scene file"),
        ("schema: 1\nobjects: [", "not valid yaml"),
        ("schema: 1\nobjects: [{name: a, kind: teapot}]", "unknown primitive 'teapot'"),
        ("schema: 1\nobjects: [{name: a, kind: box, size: 3}]", "objects[0].size: unknown key"),
    ],
)
def test_broken_scene_file_refuses_configure_and_can_be_mended(ros, wait_for, tmp_path, text, words):
    path = tmp_path / "scene.yaml"
    if text is not None:
        path.write_text(text)
    sim = make_sim(ros, path)
    assert not sim.start()
    assert sim.state == "unconfigured"
    parts = list(sim.health())
    assert words in sim._failure, parts
    assert "\n" not in sim._failure
    path.write_text(yaml.safe_dump(SCENE))
    assert sim.start()


def test_deactivate_stops_and_activate_resumes(ros, listen, wait_for, scene_file):
    infos = listen(CameraInfo, "/camera_info")
    sim = make_sim(ros, scene_file, start_timeout_s=0.0)
    assert sim.start()
    wait_for(lambda: infos)
    sim.trigger_deactivate()
    published = sim._stream
    assert published is None
    assert not any(h.message == "streaming" for h in sim.health())
    wait_for(lambda: len(infos) >= 1)
    count = len(infos)
    sim.trigger_cleanup()
    assert sim.start()
    wait_for(lambda: len(infos) > count)


def test_motions_and_scaling(scene_file):
    spec = load_scene_spec(scene_file)
    hold = loop_poses(spec, CameraSimParameters(motion="hold"))
    assert (hold == hold[0]).all()
    orbit = loop_poses(spec, CameraSimParameters(loop_frames=12))
    assert len(orbit) == 12
    arc = loop_poses(spec, CameraSimParameters(motion="arc", loop_frames=20, arc_fraction=0.5))
    steps = np.linalg.norm(np.diff(arc[:, :3, 3], axis=0, append=arc[:1, :3, 3]), axis=1)
    assert steps.max() < 0.65  # never jumps across the circle
    small = scaled(spec.intrinsics, 80)
    assert (small.width, small.height) == (80, 60)
    assert (small.cx, small.cy) == pytest.approx((39.5, 29.5))
    corner = [(-0.5 - i.cx) / i.fx for i in (spec.intrinsics, small)]
    assert corner[0] == pytest.approx(corner[1])


def test_body_frame_looks_along_x():
    np.testing.assert_allclose(inverse(T_LINK_OPTICAL)[:3, :3] @ (1, 0, 0), (0, 0, 1))
    np.testing.assert_allclose(T_LINK_OPTICAL[:3, :3] @ (0, -1, 0), (0, 0, 1))
