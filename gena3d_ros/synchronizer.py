"""Pairs of colour and depth whose stamps are close, and a report for the case that none ever are.

`message_filters` does the pairing where it is installed; the class below has its interface and gives the same pairs.
"""

from __future__ import annotations

import itertools
import statistics
import threading
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .message_fields import time_from_msg

NS = 1_000_000_000
QUEUE_SIZE = 15
"""Messages of each stream that wait for a partner: half a second at 30 Hz."""


class PlainFilter:
    """Source of messages: what is given to `signalMessage` goes to every registered callback."""

    def __init__(self) -> None:
        self.callbacks: dict[int, tuple[Callable[..., Any], tuple[Any, ...]]] = {}

    def registerCallback(self, callback: Callable[..., Any], *args: Any) -> int:
        key = len(self.callbacks)
        self.callbacks[key] = (callback, args)
        return key

    def signalMessage(self, *messages: Any) -> None:
        for callback, args in self.callbacks.values():
            callback(*messages, *args)


class _Queue:
    """Newest messages of one stream by stamp; the one with the oldest stamp leaves first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.stamps: list[int] = []
        self.messages: dict[int, Any] = {}

    def add(self, stamp_ns: int, message: Any) -> None:
        if stamp_ns not in self.messages:
            insort(self.stamps, stamp_ns)
        self.messages[stamp_ns] = message
        while len(self.stamps) > self.size:
            del self.messages[self.stamps.pop(0)]

    def pop(self, stamp_ns: int) -> Any:
        self.stamps.pop(bisect_left(self.stamps, stamp_ns))
        return self.messages.pop(stamp_ns)

    def near(self, stamp_ns: int, slop_ns: int) -> list[int]:
        """Stamps within `slop_ns`, nearest first; of two equally near the one that arrived first."""
        window = self.stamps[
            bisect_left(self.stamps, stamp_ns - slop_ns) : bisect_right(self.stamps, stamp_ns + slop_ns)
        ]
        if len(window) > 1:
            arrival = {stamp: i for i, stamp in enumerate(self.messages)}
            window.sort(key=lambda s: (abs(s - stamp_ns), arrival[s]))
        return window


class PlainApproximateTimeSynchronizer(PlainFilter):
    """Calls back with one message of each source whose stamps span less than `slop` seconds, each message once."""

    def __init__(self, sources: Sequence[PlainFilter], queue_size: int, slop: float) -> None:
        super().__init__()
        self._slop_ns = round(slop * NS)
        self._lock = threading.Lock()
        self._queues = [_Queue(queue_size) for _ in sources]
        for index, source in enumerate(sources):
            source.registerCallback(self.add, index)

    def add(self, message: Any, index: int) -> None:
        stamp_ns = time_from_msg(message.header.stamp)
        with self._lock:
            self._queues[index].add(stamp_ns, message)
            if stamp_ns not in self._queues[index].messages:
                return
            choices = [
                [stamp_ns] if i == index else q.near(stamp_ns, self._slop_ns) for i, q in enumerate(self._queues)
            ]
            fits = (s for s in itertools.product(*choices) if max(s) - min(s) < self._slop_ns)
            stamps = next(fits, None)
            if stamps is None:
                return
            messages = [queue.pop(stamp) for queue, stamp in zip(self._queues, stamps, strict=True)]
        self.signalMessage(*messages)


try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    ApproximateTimeSynchronizer, SimpleFilter = PlainApproximateTimeSynchronizer, PlainFilter


@dataclass(frozen=True)
class SyncReport:
    """Messages since the last report; offset_s is the median of colour minus nearest depth stamp, None if unknown."""

    colors: int
    depths: int
    pairs: int
    offset_s: float | None

    def problem(self, slop_s: float, color_topic: str, depth_topic: str) -> str | None:
        """One line that tells why no pairs come, or None while they do or nothing arrives at all."""
        if self.pairs or not (self.colors or self.depths):
            return None
        if not self.depths:
            return f"no depth on {depth_topic} to go with {color_topic}: check the topic, or set use_depth to false"
        if not self.colors:
            return f"no colour on {color_topic} to go with {depth_topic}: check the topic"
        offset = "" if self.offset_s is None else f": their stamps differ by {1000 * self.offset_s:+.1f} ms"
        return (
            f"{color_topic} and {depth_topic} never synchronise{offset}, sync_slop_s allows {1000 * slop_s:.1f} ms; "
            "raise it or set the camera to synchronise its streams"
        )


class ColorDepthSynchronizer:
    """Calls `on_pair(color, depth)` for images whose stamps differ by less than `slop_s`. Thread safe."""

    def __init__(self, slop_s: float, on_pair: Callable[[Any, Any], None], queue_size: int = QUEUE_SIZE) -> None:
        self._slop_s, self._on_pair, self._queue_size = slop_s, on_pair, queue_size
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Forget what waits; needed when stamps go back, since the old, newer stamps would crowd out the new."""
        with self._lock:
            self._sources = SimpleFilter(), SimpleFilter()
            self._recent: tuple[deque[int], deque[int]] = deque(maxlen=self._queue_size), deque(maxlen=self._queue_size)
            self._counts = [0, 0, 0]
            synchronizer = ApproximateTimeSynchronizer(list(self._sources), self._queue_size, self._slop_s)
            synchronizer.registerCallback(self._pair)

    def add_color(self, message: Any) -> None:
        self._add(0, message)

    def add_depth(self, message: Any) -> None:
        self._add(1, message)

    def report(self) -> SyncReport:
        """What came since the last report."""
        with self._lock:
            colors, depths, pairs = self._counts
            self._counts = [0, 0, 0]
            color_stamps, depth_stamps = list(self._recent[0]), list(self._recent[1])
        nearest = [min((c - d for d in depth_stamps), key=abs) for c in color_stamps] if depth_stamps else []
        return SyncReport(colors, depths, pairs, statistics.median(nearest) / NS if nearest else None)

    def _add(self, index: int, message: Any) -> None:
        with self._lock:
            self._counts[index] += 1
            self._recent[index].append(time_from_msg(message.header.stamp))
            source = self._sources[index]
        source.signalMessage(message)

    def _pair(self, color: Any, depth: Any) -> None:
        with self._lock:
            self._counts[2] += 1
        self._on_pair(color, depth)
