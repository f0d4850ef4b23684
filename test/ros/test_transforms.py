"""TF: one contract for tf2's buffer and our own, and the listener over DDS."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation, Slerp
from tf2_msgs.msg import TFMessage

from gena3d_core.errors import InputError
from gena3d_core.geometry.transform_tree import TransformLookupError
from gena3d_core.geometry.transforms import inverse, rigid
from gena3d_ros import qos, transforms
from gena3d_ros.transforms import (
    PlainBuffer,
    StaticTransformBroadcaster,
    Tf2Buffer,
    TransformBroadcaster,
    TransformListener,
    matrix_from_transform,
    transform_to_msg,
)

NS = 1_000_000_000
T0 = 1000 * NS
BUFFERS = [
    pytest.param(PlainBuffer, id="plain"),
    pytest.param(
        Tf2Buffer,
        id="tf2",
        marks=pytest.mark.skipif(transforms.tf2_ros is None, reason="tf2_ros is not installed"),
    ),
]

coordinates = st.floats(-5, 5, allow_nan=False)
poses = st.builds(
    lambda v, r: rigid(Rotation.from_rotvec(r).as_matrix(), np.array(v)),
    st.tuples(coordinates, coordinates, coordinates),
    st.tuples(*[st.floats(-1.7, 1.7, allow_nan=False)] * 3),
)


@pytest.fixture(params=BUFFERS)
def buffer(request):
    return request.param(10.0)


def put(buffer, parent, child, T, stamp_ns=T0, static=False):
    buffer.add(transform_to_msg(parent, child, T, stamp_ns), static)


@settings(max_examples=100)
@given(T=poses)
def test_message_round_trip(T):
    np.testing.assert_allclose(matrix_from_transform(transform_to_msg("a", "b", T, 1).transform), T, atol=1e-12)


@pytest.mark.parametrize("buffer_type", BUFFERS)
@settings(max_examples=50, deadline=None)
@given(T_world_base=poses, T_base_camera=poses, T_world_table=poses)
def test_chains_up_and_down_the_tree(buffer_type, T_world_base, T_base_camera, T_world_table):
    buffer = buffer_type(10.0)
    put(buffer, "world", "base", T_world_base)
    put(buffer, "base", "camera", T_base_camera, static=True)
    put(buffer, "world", "table", T_world_table)
    T_world_camera = T_world_base @ T_base_camera
    np.testing.assert_allclose(buffer.lookup("world", "camera", T0), T_world_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("table", "camera", T0), inverse(T_world_table) @ T_world_camera, atol=1e-9)
    np.testing.assert_allclose(buffer.lookup("camera", "camera", T0), np.eye(4), atol=1e-9)


@pytest.mark.parametrize("buffer_type", BUFFERS)
@settings(max_examples=50, deadline=None)
@given(T_a=poses, T_b=poses, fraction=st.floats(0, 1))
def test_interpolation_is_linear_and_spherical(buffer_type, T_a, T_b, fraction):
    buffer = buffer_type(10.0)
    put(buffer, "world", "camera", T_a)
    put(buffer, "world", "camera", T_b, T0 + NS)
    stamp_ns = T0 + round(fraction * NS)
    share = (stamp_ns - T0) / NS
    R = Slerp([0, 1], Rotation.from_matrix(np.stack([T_a[:3, :3], T_b[:3, :3]])))(share).as_matrix()
    expected = rigid(R, (1 - share) * T_a[:3, 3] + share * T_b[:3, 3])
    np.testing.assert_allclose(buffer.lookup("world", "camera", stamp_ns), expected, atol=1e-6)


def test_unknown_frame_names_those_that_are_known(buffer):
    put(buffer, "world", "base", np.eye(4))
    with pytest.raises(TransformLookupError, match=r"'camera'.*base.*world"):
        buffer.lookup("world", "camera", T0)


def test_frames_that_are_not_connected(buffer):
    put(buffer, "world", "base", np.eye(4))
    put(buffer, "map", "camera", np.eye(4))
    with pytest.raises(TransformLookupError, match="connected"):
        buffer.lookup("world", "camera", T0)


@pytest.mark.parametrize("offset_s", [-1.0, 2.0])
def test_no_extrapolation(buffer, offset_s):
    put(buffer, "world", "camera", np.eye(4))
    put(buffer, "world", "camera", np.eye(4), T0 + NS)
    with pytest.raises(TransformLookupError):
        buffer.lookup("world", "camera", T0 + round(offset_s * NS))


def test_static_transforms_hold_always(buffer):
    put(buffer, "world", "camera", np.eye(4), 0, static=True)
    np.testing.assert_allclose(buffer.lookup("world", "camera", T0 + 10**6 * NS), np.eye(4))


def test_out_of_order_arrival(buffer):
    for second in (2, 0, 1):
        T = rigid(t=np.array([float(second), 0, 0]))
        put(buffer, "world", "camera", T, T0 + second * NS)
    assert buffer.lookup("world", "camera", T0 + NS // 2)[0, 3] == pytest.approx(0.5)


def test_memory_is_bounded(buffer):
    for index in range(3000):
        put(buffer, "world", "camera", np.eye(4), T0 + index * NS // 100)
    with pytest.raises(TransformLookupError):
        buffer.lookup("world", "camera", T0 + NS)
    np.testing.assert_allclose(buffer.lookup("world", "camera", T0 + 29 * NS), np.eye(4))
    if isinstance(buffer, PlainBuffer):
        assert len(buffer._tree._edges["camera"].stamps_ns) <= 1101


def test_forgetting_the_future_keeps_static_transforms(buffer):
    put(buffer, "base", "camera", np.eye(4), 0, static=True)
    put(buffer, "world", "base", np.eye(4), T0 + 9 * NS)
    buffer.forget_after(T0)
    with pytest.raises(TransformLookupError):
        buffer.lookup("world", "camera", T0 + 9 * NS)
    put(buffer, "world", "base", np.eye(4), T0)
    np.testing.assert_allclose(buffer.lookup("world", "camera", T0), np.eye(4))


@pytest.mark.parametrize("broken", ["zero quaternion", "nan translation"])
def test_broken_transforms_are_refused(buffer, broken):
    stamped = transform_to_msg("world", "camera", np.eye(4), T0)
    if broken == "zero quaternion":
        stamped.transform.rotation.w = 0.0
    else:
        stamped.transform.translation.x = float("nan")
    with pytest.raises(InputError):
        buffer.add(stamped, False)


@pytest.fixture
def listener(ros):
    """A listener without DDS between: messages go straight into its subscriptions' callbacks."""
    errors = []
    heard = TransformListener(ros.node("listener"), 10.0, lambda key, message: errors.append(message))
    heard.errors = errors
    return heard


def message_at(stamp_s: float, x: float = 0.0) -> TFMessage:
    T = rigid(t=np.array([x, 0, 0]))
    return TFMessage(transforms=[transform_to_msg("world", "camera", T, T0 + round(stamp_s * NS))])


def x_at(listener, stamp_s: float) -> float:
    return float(listener.lookup("world", "camera", T0 + round(stamp_s * NS))[0, 3])


def test_each_transform_is_taken_in_once(listener):
    for stream in listener._streams:
        listener._hear(stream, message_at(0, x=1.0))
    assert len(listener._seen) == 1
    assert x_at(listener, 0) == 1.0


def test_lagging_reliable_stream_fills_gaps_and_is_no_jump(listener):
    reliable, best_effort = listener._streams
    for stamp_s in (0, 1, 2, 3):
        listener._hear(best_effort, message_at(stamp_s, x=stamp_s))
    listener._hear(reliable, message_at(0, x=0))
    listener._hear(reliable, message_at(0.5, x=7.0))
    assert x_at(listener, 0.5) == 7.0
    assert x_at(listener, 3) == 3.0


def test_time_jump_in_both_streams_one_after_the_other(listener):
    reliable, best_effort = listener._streams
    for stream in listener._streams:
        listener._hear(stream, message_at(60, x=60.0))
    listener._hear(best_effort, message_at(0, x=1.0))
    listener._hear(best_effort, message_at(1, x=2.0))
    listener._hear(reliable, message_at(61, x=61.0))  # a straggler of the old time
    listener._hear(reliable, message_at(0, x=1.0))
    assert x_at(listener, 0.5) == pytest.approx(1.5)
    with pytest.raises(TransformLookupError):
        x_at(listener, 60.5)


def test_time_told_by_images(listener):
    reliable, _ = listener._streams
    listener._hear(reliable, message_at(60))
    listener.time_jumped_back(T0 + 59 * NS + NS * 9 // 10)
    assert x_at(listener, 60) == 0.0, "messages that cross are no jump"
    listener.time_jumped_back(T0)
    with pytest.raises(TransformLookupError):
        x_at(listener, 60)


def test_zero_stamp_is_refused(listener):
    listener._hear(listener._streams[0], message_at(0))
    with pytest.raises(TransformLookupError, match="stamp is zero"):
        listener.lookup("world", "camera", 0)


def test_bad_transform_is_reported_and_others_of_its_message_count(listener):
    message = message_at(0, x=1.0)
    bad = transform_to_msg("world", "world", np.eye(4), T0)
    message.transforms.insert(0, bad)
    listener._hear(listener._streams[0], message)
    assert x_at(listener, 0) == 1.0
    assert any("refused" in error for error in listener.errors)


def test_over_dds_with_a_latecomer_to_static_transforms(ros, wait_for):
    sender = ros.node("sender")
    static, moving = StaticTransformBroadcaster(sender), TransformBroadcaster(sender)
    static.sendTransform(transform_to_msg("base", "camera", rigid(t=np.array([0, 0, 1.0])), 0))
    static.sendTransform([transform_to_msg("base", "lidar", rigid(t=np.array([0, 0, 2.0])), 0)])
    node = ros.node("receiver")
    heard = TransformListener(node, 10.0, lambda key, message: pytest.fail(message))
    wait_for(lambda: moving.pub_tf.get_subscription_count() >= 2)
    moving.sendTransform(transform_to_msg("world", "base", rigid(t=np.array([5.0, 0, 0])), T0))

    def look(frame):
        try:
            return heard.lookup("world", frame, T0)
        except TransformLookupError:
            return None

    for frame, z in (("camera", 1.0), ("lidar", 2.0)):
        T = wait_for(lambda frame=frame: None if look(frame) is None else (look(frame),), what=frame)[0]
        np.testing.assert_allclose(T[:3, 3], [5, 0, z])
    heard.close()
    wait_for(lambda: moving.pub_tf.get_subscription_count() == 0)


def test_reliability_can_be_chosen(ros):
    node = ros.node("receiver")
    TransformListener(node, 10.0, lambda *_: None, "best_effort")
    assert len(node.get_subscriptions_info_by_topic("/tf")) == 1
    assert qos.transforms("best_effort") != qos.transforms("reliable")
