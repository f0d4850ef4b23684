"""Publishes prepared frames on time: one thread prepares ahead, another publishes, the executor stays free."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

AHEAD = 4
"""Frames prepared ahead of time."""
POLL_S = 0.1


@dataclass(frozen=True)
class Frame:
    """due_s: seconds after the start at which to publish, ascending; payload: whatever the publisher takes."""

    due_s: float
    payload: Any


class FrameStream:
    """Runs from `start` to `stop`, which may be called from any thread but its own.

    frames      made lazily in the preparing thread; an exception there ends the stream and goes to on_error
    publish     called in the publishing thread with each payload
    is_awaited  publishing starts when it turns true, or after start_timeout_s seconds (0: at once)
    on_end      called when the frames have run out
    A frame that comes late delays all later ones: nothing is skipped and nothing is sent in bursts.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        publish: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
        *,
        on_end: Callable[[], None] = lambda: None,
        is_awaited: Callable[[], bool] = lambda: True,
        start_timeout_s: float = 0.0,
    ) -> None:
        self._frames, self._publish, self._on_error, self._on_end = frames, publish, on_error, on_end
        self._is_awaited, self._start_timeout_s = is_awaited, start_timeout_s
        self._queue: queue.Queue[Frame | None] = queue.Queue(maxsize=AHEAD)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._prepare_frames, self._publish_frames)
        ]
        self.published = 0
        self.late_s = 0.0
        """Seconds by which publishing lags behind the schedule, in all."""

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when nothing will be published any more."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _prepare_frames(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    return
        except Exception as error:
            self._on_error(error)
            return
        self._put(None)

    def _put(self, frame: Frame | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(frame, timeout=POLL_S)
                return True
            except queue.Full:
                continue
        return False

    def _publish_frames(self) -> None:
        try:
            self._await_listeners()
            start = time.monotonic()
            while not self._stop.is_set():
                try:
                    frame = self._queue.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if frame is None:
                    self._on_end()
                    return
                wait_s = start + self.late_s + frame.due_s - time.monotonic()
                if wait_s > 0 and self._stop.wait(wait_s):
                    return
                self.late_s += max(0.0, -wait_s)
                self._publish(frame.payload)
                self.published += 1
        except Exception as error:
            self._on_error(error)

    def _await_listeners(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not self._is_awaited() and time.monotonic() < deadline and not self._stop.is_set():
            self._stop.wait(0.02)
