"""The stream behind the simulated and the replayed camera, and the messages that it carries."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gena3d_core.errors import InputError
from gena3d_ros import images
from gena3d_ros.camera_output import depth_to_millimetres, depth_to_msg, image_to_msg
from gena3d_ros.frame_stream import AHEAD, Frame, FrameStream


def run(frames, **options):
    """The payloads that came out, the errors, and whether the end was announced."""
    out, errors, ended = [], [], threading.Event()
    stream = FrameStream(frames, out.append, errors.append, on_end=ended.set, **options)
    stream.start()
    return stream, out, errors, ended


def test_frames_come_out_in_order_and_once():
    stream, out, errors, ended = run(Frame(0.001 * k, k) for k in range(50))
    assert ended.wait(20)
    stream.stop()
    assert out == list(range(50))
    assert not errors
    assert stream.published == 50


def test_late_frames_delay_the_rest_instead_of_bursting(wait_for):
    blocked = threading.Event()

    def frames():
        yield Frame(0.0, 0)
        blocked.wait(20)
        yield Frame(0.0, 1)
        yield Frame(0.02, 2)

    stream, out, _, ended = run(frames())
    wait_for(lambda: out)
    threading.Timer(0.1, blocked.set).start()
    assert ended.wait(20)
    assert out == [0, 1, 2]
    assert stream.late_s > 0.05


def test_it_prepares_only_a_little_ahead_and_stops_at_once(wait_for):
    made = []

    def frames():
        for k in range(10_000):
            made.append(k)
            yield Frame(1000.0 * k, k)

    stream, out, errors, ended = run(frames())
    wait_for(lambda: len(made) >= AHEAD)
    stream.stop()
    assert len(made) <= AHEAD + 3
    assert out == [0]
    assert not errors
    assert not ended.is_set()


def test_an_error_while_preparing_or_publishing_is_told(wait_for):
    def frames():
        yield Frame(0.0, 0)
        raise InputError("no more")

    stream, _, errors, ended = run(frames())
    wait_for(lambda: errors)
    stream.stop()
    assert str(errors[0]) == "no more"
    assert not ended.is_set()

    errors.clear()
    failing = FrameStream([Frame(0.0, 0)], lambda _: 1 / 0, errors.append)
    failing.start()
    wait_for(lambda: errors)
    failing.stop()
    assert isinstance(errors[0], ZeroDivisionError)


def test_nothing_is_published_before_somebody_listens(wait_for):
    listening = threading.Event()
    stream, out, _, ended = run([Frame(0.0, 0)], is_awaited=listening.is_set, start_timeout_s=100.0)
    assert not ended.wait(0.1)
    assert out == []
    listening.set()
    assert ended.wait(20)
    assert out == [0]
    stream.stop()
    stream, out, _, ended = run([Frame(0.0, 1)], is_awaited=lambda: False, start_timeout_s=0.05)
    assert ended.wait(20)
    assert out == [1]
    stream.stop()


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint16, shapes))
def test_whole_millimetres_survive_every_transport(millimetres):
    depth_m = np.where(millimetres == 0, np.nan, millimetres / np.float32(1000.0)).astype(np.float32)
    np.testing.assert_array_equal(depth_to_millimetres(depth_m), millimetres)
    for encoding, transport in (
        ("16UC1", "raw"),
        ("16UC1", "compressed"),
        ("16UC1", "compressedDepth"),
        ("32FC1", "raw"),
    ):
        message = depth_to_msg(depth_m, encoding, transport)
        np.testing.assert_array_equal(images.depth_from_msg("depth", message, 0.0, 100.0), depth_m)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, shapes, elements=st.floats(width=32)))
def test_any_depth_becomes_millimetres_or_nothing(depth_m):
    millimetres = depth_to_millimetres(depth_m)
    valid = millimetres > 0
    np.testing.assert_allclose(millimetres[valid] / 1000.0, depth_m[valid], atol=5.1e-4)
    assert not valid[~np.isfinite(depth_m)].any()
    assert valid[(depth_m > 0.001) & (depth_m < 65.5)].all()


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 6), st.integers(1, 6), st.just(3))))
def test_colour_survives(color):
    np.testing.assert_array_equal(images.color_from_msg("image", image_to_msg(color)), color)


def test_compressed_metres_are_refused():
    with pytest.raises(InputError, match="16UC1"):
        depth_to_msg(np.ones((2, 2), np.float32), "32FC1", "compressed")
