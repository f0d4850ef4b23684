"""One camera: its subscriptions, its calibration, the pairing of colour with depth, and what may be wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gena3d_core.errors import Gena3DError

from . import qos
from .diagnostics import OK, WARN, Health
from .frames import Frame, PendingFrames
from .images import CameraModel, camera_model_from_msg
from .message_fields import time_from_msg
from .parameter_table import ViewAccumulatorParameters
from .synchronizer import ColorDepthSynchronizer, SyncReport
from .transforms import JUMP_BACK_S, NS

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PENDING_PERIOD_S = 0.05
SILENCE_S = 2.0
"""A camera that sends nothing for so long is reported."""
PROBLEM_MEMORY_S = 3.0
"""A problem that has not come back for so long is no longer shown in the diagnostics."""


@dataclass(frozen=True)
class CameraTopics:
    """Name of a camera and of its topics; `depth` is None for a camera without."""

    name: str
    color: str
    color_type: type
    depth: str | None
    depth_type: type
    info: str


def camera_topics(p: ViewAccumulatorParameters) -> list[CameraTopics]:
    """The topics of every camera that the parameters name."""
    transports = zip(_spread(p.image_transport, p), _spread(p.depth_transport, p), strict=True)
    result = []
    for name, (color, depth) in zip(p.cameras, transports, strict=True):
        prefix = f"{name}/" if name else ""
        result.append(
            CameraTopics(
                name=name.replace("/", "_") or "camera",
                color=prefix + "image" + ("" if color == "raw" else f"/{color}"),
                color_type=Image if color == "raw" else CompressedImage,
                depth=prefix + "depth" + ("" if depth == "raw" else f"/{depth}") if p.use_depth else None,
                depth_type=Image if depth == "raw" else CompressedImage,
                info=f"{prefix}camera_info",
            )
        )
    return result


def _spread(values: tuple[str, ...], p: ViewAccumulatorParameters) -> tuple[str, ...]:
    return values * len(p.cameras) if len(values) == 1 else values


@dataclass
class Figures:
    """What happened to a camera's frames since activation."""

    frames: int = 0
    redundant: int = 0
    decoded: int = 0
    kept: int = 0
    unreadable: int = 0
    without_pose: int = 0
    overflowed: int = 0


@dataclass
class Problems:
    """Latest message of each kind of problem, forgotten when it does not come back."""

    seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, key: str, message: str) -> None:
        self.seen[key] = (message, time.monotonic())

    def current(self) -> list[str]:
        now = time.monotonic()
        return [text for text, at in list(self.seen.values()) if now - at < PROBLEM_MEMORY_S]


class CameraStream:
    """Subscribes to one camera; its callbacks never run at the same time.

    resolve(stream)         called when a frame joins `pending`, and every 50 ms while frames wait there
    on_time_jump(stamp_ns)  called when stamps go back
    """

    def __init__(
        self,
        node: Any,
        topics: CameraTopics,
        p: ViewAccumulatorParameters,
        resolve: Callable[[CameraStream], None],
        on_time_jump: Callable[[int], None],
    ) -> None:
        self._node, self._resolve, self._on_time_jump = node, resolve, on_time_jump
        self._rectified, self._slop_s = p.rectified, p.sync_slop_s
        self.name, self.topics = topics.name, topics
        self.color_topic = node.resolve_topic_name(topics.color)
        self.depth_topic = node.resolve_topic_name(topics.depth) if topics.depth else ""
        self.info_topic = node.resolve_topic_name(topics.info)
        self.model: CameraModel | None = None
        self.model_problem = f"no camera_info on {self.info_topic}"
        self.pending = PendingFrames(p.max_pending_views)
        self.figures, self.problems = Figures(), Problems()
        self.latest: tuple[Frame, Any] | None = None
        """The newest frame with a pose, and that pose."""
        self._info_key: tuple[Any, ...] | None = None
        self._newest_ns = 0
        self._color_count = 0
        self._color_at = self._counted_at = time.monotonic()
        self._synchronizer = ColorDepthSynchronizer(p.sync_slop_s, self._on_pair)
        self._group = MutuallyExclusiveCallbackGroup()
        self._timer = node.create_timer(
            PENDING_PERIOD_S, node.guarded(self._try_pending), callback_group=self._group, clock=node.steady_clock
        )
        self._timer.cancel()
        self._subscriptions = [self._subscribe(topics.info, CameraInfo, self._on_info, p)]
        if topics.depth:
            self._subscriptions.append(self._subscribe(topics.depth, topics.depth_type, self._on_depth, p))
        self._subscriptions.append(self._subscribe(topics.color, topics.color_type, self._on_color, p))

    def close(self) -> None:
        """Stop listening and forget what waits."""
        self._node.destroy_timer(self._timer)
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self.clear()
        self.latest = None

    def clear(self, newest_ns: int = 0) -> None:
        """Forget what waits for a partner or a pose; time runs from `newest_ns` again."""
        self._newest_ns = newest_ns
        self._synchronizer.clear()
        self.pending.clear()

    def report(self, key: str, message: str) -> None:
        """Log a problem, throttled, and show it in the diagnostics."""
        self.problems.add(key, message)
        self._node.warn(f"{self.name}:{key}", message)

    def health(self) -> Health:
        """State of the camera since the last call."""
        sync = self._synchronizer.report()
        elapsed_s, self._counted_at = time.monotonic() - self._counted_at, time.monotonic()
        colors, self._color_count = self._color_count, 0
        if time.monotonic() - self._color_at > SILENCE_S:
            publishers = self._node.count_publishers(self.color_topic)
            self.report("silent", f"no image on {self.color_topic} ({publishers} publishers)")
        elif self.model is None and colors:
            self.report("info", self.model_problem)
        self._check_synchronisation(sync)
        problems = self.problems.current()
        values: dict[str, Any] = {
            "image rate (Hz)": colors / max(elapsed_s, 1e-3),
            "waiting for a pose": len(self.pending),
            **{name.replace("_", " "): count for name, count in vars(self.figures).items()},
        }
        if self.topics.depth and sync.offset_s is not None:
            values["colour minus depth stamp (ms)"] = 1000 * sync.offset_s
        return Health(f"camera {self.name}", WARN if problems else OK, "; ".join(problems) or "OK", values)

    def _check_synchronisation(self, sync: SyncReport) -> None:
        if self.topics.depth:
            problem = sync.problem(self._slop_s, self.color_topic, self.depth_topic)
            if problem is not None:
                self.report("sync", problem)

    def _subscribe(self, topic: str, message_type: type, callback: Callable[[Any], None], p: Any) -> Any:
        resolved = self._node.resolve_topic_name(topic)

        def incompatible(_: Any) -> None:
            self.report(
                f"qos {topic}",
                f"a publisher of {resolved} offers less reliability than asked for: nothing arrives; "
                "set image_reliability to best_effort",
            )

        return self._node.create_subscription(
            message_type,
            topic,
            self._node.guarded(callback),
            qos.images(p.image_reliability),
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible, use_default_callbacks=False),
            qos_overriding_options=qos.overridable(),
        )

    def _on_info(self, info: CameraInfo) -> None:
        roi = info.roi
        key = (
            *(info.width, info.height, info.distortion_model, info.binning_x, info.binning_y),
            *(roi.x_offset, roi.y_offset, roi.width, roi.height),
            *(bytes(info.k), bytes(info.p), tuple(info.d)),
        )
        if key == self._info_key:
            return
        self._info_key = key
        try:
            self.model = camera_model_from_msg(self.info_topic, info, self._rectified)
        except Gena3DError as error:
            self.model, self.model_problem = None, str(error)
            self.report("info", self.model_problem)

    def _check_time(self, stamp_ns: int) -> None:
        if stamp_ns < self._newest_ns - JUMP_BACK_S * NS:
            self._on_time_jump(stamp_ns)
        self._newest_ns = max(self._newest_ns, stamp_ns)

    def _on_color(self, message: Any) -> None:
        self._check_time(time_from_msg(message.header.stamp))
        self._color_count += 1
        self._color_at = time.monotonic()
        if self.topics.depth:
            self._synchronizer.add_color(message)
        else:
            self._frame(message, None)

    def _on_depth(self, message: Any) -> None:
        self._check_time(time_from_msg(message.header.stamp))
        self._synchronizer.add_depth(message)

    def _on_pair(self, color: Any, depth: Any) -> None:
        if depth.header.frame_id != color.header.frame_id:
            self.report(
                "registration",
                f"{self.depth_topic} is in frame '{depth.header.frame_id}', {self.color_topic} in "
                f"'{color.header.frame_id}': use the depth stream that is registered to the colour camera",
            )
        self._frame(color, depth)

    def _frame(self, color: Any, depth: Any) -> None:
        self.figures.frames += 1
        stamp_ns = time_from_msg(color.header.stamp)
        frame = Frame(self.name, self.color_topic, self.depth_topic, color, depth, stamp_ns)
        if self.pending.add(frame) is not None:
            self.figures.overflowed += 1
            self.report("overflow", f"{self.color_topic}: more images wait for a pose than max_pending_views allows")
        self._try_pending()

    def _try_pending(self) -> None:
        self._resolve(self)
        # Every timer that fires costs a turn of the executor: it runs only while somebody waits.
        if len(self.pending) == 0:
            self._timer.cancel()
        elif self._timer.is_canceled():
            self._timer.reset()
