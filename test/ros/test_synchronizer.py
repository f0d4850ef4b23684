"""Pairing of colour and depth: the same contract for message_filters and for our own class."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from gena3d_ros import synchronizer as sync
from gena3d_ros.message_fields import time_from_msg, time_to_msg

try:
    import message_filters
except ImportError:
    message_filters = None

MS = 1_000_000
IMPLEMENTATIONS = [
    pytest.param((sync.PlainApproximateTimeSynchronizer, sync.PlainFilter), id="plain"),
    pytest.param(
        (getattr(message_filters, "ApproximateTimeSynchronizer", None), getattr(message_filters, "SimpleFilter", None)),
        id="message_filters",
        marks=pytest.mark.skipif(message_filters is None, reason="message_filters is not installed"),
    ),
]


def stamped(stamp_ms: float) -> Image:
    return Image(header=Header(stamp=time_to_msg(round(stamp_ms * MS))))


def pairs_of(implementation, events, slop_s, queue_size=10):
    """Pairs (ms, ms) for events (stream, ms) in order of arrival."""
    synchronizer_type, filter_type = implementation
    sources, got = (filter_type(), filter_type()), []
    synchronizer = synchronizer_type(list(sources), queue_size, slop_s)
    synchronizer.registerCallback(lambda *m: got.append(tuple(time_from_msg(x.header.stamp) // MS for x in m)))
    for stream, stamp_ms in events:
        sources[stream].signalMessage(stamped(stamp_ms))
    return got


def reference_pairs(events, slop_ms, queue_size):
    """What message_filters is specified to do, written plainly."""
    queues, got = ({}, {}), []
    for stream, stamp in events:
        queues[stream][stamp] = None
        while len(queues[stream]) > queue_size:
            del queues[stream][min(queues[stream])]
        near = sorted((s for s in queues[1 - stream] if abs(s - stamp) <= slop_ms), key=lambda s: abs(s - stamp))
        for other in near:
            if abs(other - stamp) < slop_ms and stamp in queues[stream]:
                got.append((stamp, other) if stream == 0 else (other, stamp))
                del queues[stream][stamp], queues[1 - stream][other]
                break
    return got


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@settings(max_examples=60, deadline=None)
@given(
    events=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 400)), max_size=60),
    slop_ms=st.integers(1, 60),
    queue_size=st.integers(1, 12),
)
def test_pairs_are_those_of_the_specification(implementation, events, slop_ms, queue_size):
    got = pairs_of(implementation, events, slop_ms / 1000, queue_size)
    assert got == reference_pairs(events, slop_ms, queue_size)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_jittered_streams_pair_completely(implementation, rng):
    colors = [(0, round(33.3 * i)) for i in range(100)]
    depths = [(1, round(33.3 * i + j)) for i, j in enumerate(rng.integers(-8, 9, 100))]
    events = sorted(colors + depths, key=lambda e: e[1] + (20 if e[0] else 0))
    got = pairs_of(implementation, events, 0.02)
    assert len(got) == 100
    assert all(abs(c - d) <= 8 for c, d in got)


def feed(synchronizer, colors, depths):
    for color, depth in itertools.zip_longest(colors, depths):
        if color is not None:
            synchronizer.add_color(stamped(color))
        if depth is not None:
            synchronizer.add_depth(stamped(depth))


def test_report_of_streams_that_never_meet():
    got = []
    synchronizer = sync.ColorDepthSynchronizer(0.01, lambda *pair: got.append(pair))
    feed(synchronizer, range(1000, 2000, 100), range(960, 1960, 100))
    report = synchronizer.report()
    assert (report.colors, report.depths, report.pairs) == (10, 10, 0)
    assert report.offset_s == pytest.approx(0.04)
    problem = report.problem(0.01, "/image", "/depth")
    assert problem is not None
    assert "differ by +40.0 ms" in problem
    assert not got
    assert synchronizer.report().problem(0.01, "/image", "/depth") is None


@pytest.mark.parametrize(
    ("colors", "depths", "said"), [([1000], [], "no depth on /depth"), ([], [1000], "no colour on /image")]
)
def test_report_of_a_missing_stream(colors, depths, said):
    synchronizer = sync.ColorDepthSynchronizer(0.01, lambda *pair: None)
    feed(synchronizer, colors, depths)
    problem = synchronizer.report().problem(0.01, "/image", "/depth")
    assert problem is not None
    assert said in problem


def test_report_of_streams_that_meet():
    synchronizer = sync.ColorDepthSynchronizer(0.02, lambda *pair: None)
    feed(synchronizer, [1000, 1033], [1005, 1038])
    report = synchronizer.report()
    assert report.pairs == 2
    assert report.offset_s == pytest.approx(-0.005)
    assert report.problem(0.02, "/image", "/depth") is None


def test_clearing_lets_older_stamps_pair_again():
    got = []
    synchronizer = sync.ColorDepthSynchronizer(0.01, lambda *pair: got.append(pair), queue_size=3)
    feed(synchronizer, [], range(5000, 5400, 100))
    synchronizer.clear()
    feed(synchronizer, [1000], [1000])
    assert len(got) == 1


def test_memory_is_bounded():
    queue = sync._Queue(5)
    for stamp in range(1000):
        queue.add(stamp, object())
    assert len(queue.messages) == len(queue.stamps) == 5
