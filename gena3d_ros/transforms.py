"""TF: looking transforms up without ever waiting, and broadcasting them.

`tf2_ros` is used where it is installed; the plain classes below do the same with our own transform tree. Matrices are
`T_target_source` (4, 4) float64.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import Transform, TransformStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold
from rclpy.duration import Duration
from rclpy.qos import QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.geometry.transform_tree import TransformLookupError, TransformTree
from gena3d_core.geometry.transforms import matrix_from_quat_xyzw, quat_xyzw_from_matrix, rigid
from gena3d_core.types import Float64Array

from . import qos
from .message_fields import header_to_msg, time_from_msg

try:
    import tf2_ros
except ImportError:
    tf2_ros = None

NS = 1_000_000_000
JUMP_BACK_S = 0.5
"""A stamp so much older than the newest one of its link means that time has jumped back, not that messages crossed."""


SEEN_LIMIT = 4096
"""Transforms that are remembered in order not to take them in twice."""


class TransformBuffer(Protocol):
    """Transforms by frames and time; not thread safe."""

    def add(self, stamped: TransformStamped, static: bool) -> None:
        """Take in one transform; raises `InputError` for one that is broken."""
        ...

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        """`T_target_source` at that time; raises `TransformLookupError` that says what is missing."""
        ...

    def forget_after(self, stamp_ns: int) -> None:
        """Forget what is newer (tf2 can only forget everything); static transforms stay."""
        ...


class PlainBuffer:
    """`TransformBuffer` on our own transform tree."""

    def __init__(self, history_s: float) -> None:
        self._tree = TransformTree(history_s)

    def add(self, stamped: TransformStamped, static: bool) -> None:
        stamp_ns, T = time_from_msg(stamped.header.stamp), matrix_from_transform(stamped.transform)
        self._tree.add(stamped.header.frame_id, stamped.child_frame_id, T, stamp_ns, static)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        return self._tree.lookup(target, source, stamp_ns)

    def forget_after(self, stamp_ns: int) -> None:
        self._tree.forget_after(stamp_ns)


class Tf2Buffer:
    """`TransformBuffer` on `tf2_ros`."""

    def __init__(self, history_s: float) -> None:
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=history_s))
        self._frames: set[str] = set()

    def add(self, stamped: TransformStamped, static: bool) -> None:
        # tf2 ignores broken transforms without a word that reaches us.
        parent, child = stamped.header.frame_id, stamped.child_frame_id
        matrix_from_transform(stamped.transform)
        if not parent or not child or parent == child:
            raise InputError(f"a transform needs two different frames, got '{parent}' -> '{child}'")
        self._frames |= {parent, child}
        (self._buffer.set_transform_static if static else self._buffer.set_transform)(stamped, "gena3d")

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        unknown = {target, source} - self._frames
        if unknown:
            known = ", ".join(sorted(self._frames)) or "none"
            raise TransformLookupError(f"frame '{min(unknown)}' is unknown to TF (known: {known})")
        try:
            stamped = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except Exception as error:  # tf2's exceptions share no base in some distributions
            raise TransformLookupError(str(error)) from error
        return matrix_from_transform(stamped.transform)

    def forget_after(self, stamp_ns: int) -> None:
        self._buffer.clear()


def make_buffer(history_s: float) -> TransformBuffer:
    """The buffer of tf2 where it is installed, else our own."""
    return PlainBuffer(history_s) if tf2_ros is None else Tf2Buffer(history_s)


@dataclass
class _Stream:
    """One subscription to /tf: newest stamp of each frame, and how often time has gone back in it."""

    newest_ns: dict[str, int] = field(default_factory=dict)
    laps: int = 0


class TransformListener:
    """Hears /tf and /tf_static; lookups answer at once, they never wait. Thread safe.

    reliability: `reliable`, `best_effort` or `both`. When images fill the default transport of Fast DDS a reliable
    stream of transforms stands still for seconds, until what was lost is sent again, and an unreliable one has gaps:
    with both, gaps are interpolated at once and filled later. on_error(key, message) hears of refused transforms.
    """

    def __init__(
        self, node: Any, history_s: float, on_error: Callable[[str, str], None], reliability: str = "both"
    ) -> None:
        self._node, self._on_error = node, on_error
        self._buffer = make_buffer(history_s)
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int], None] = {}
        # A group of its own: transforms come in while another thread decodes an image.
        options: dict[str, Any] = {"callback_group": MutuallyExclusiveCallbackGroup()}
        kinds = ("reliable", "best_effort") if reliability == "both" else (reliability,)
        self._streams = [_Stream() for _ in kinds]
        self._subscriptions = [
            node.create_subscription(
                TFMessage,
                "/tf",
                partial(self._hear, stream),
                qos.transforms(kind),
                qos_overriding_options=qos.overridable(kind),
                **options,
            )
            for kind, stream in zip(kinds, self._streams, strict=True)
        ]
        self._subscriptions.append(
            node.create_subscription(
                TFMessage,
                "/tf_static",
                self._hear_static,
                qos.latched(100),
                qos_overriding_options=qos.overridable(),
                **options,
            )
        )

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        """`T_target_source` at that time; raises `TransformLookupError` that says what is missing."""
        if stamp_ns <= 0:  # tf2 would take it for 'the latest there is'
            raise TransformLookupError("the stamp is zero, so no pose belongs to it: set it in the camera driver")
        with self._lock:
            return self._buffer.lookup(target.lstrip("/"), source.lstrip("/"), stamp_ns)

    def time_jumped_back(self, stamp_ns: int) -> None:
        """Time runs from `stamp_ns` again: forget what was heard of later times."""
        with self._lock:
            # Transforms of the new time may be a little ahead of the image that told of it.
            newest_ns = max((t for s in self._streams for t in s.newest_ns.values()), default=0)
            if newest_ns > stamp_ns + JUMP_BACK_S * NS:
                self._forget_after(stamp_ns)

    def close(self) -> None:
        """Stop listening."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)

    def _hear_static(self, message: TFMessage) -> None:
        for stamped in message.transforms:
            with self._lock:
                self._add(stamped, static=True)

    def _hear(self, stream: _Stream, message: TFMessage) -> None:
        for stamped in message.transforms:
            child, stamp_ns = stamped.child_frame_id, time_from_msg(stamped.header.stamp)
            with self._lock:
                self._check_time(stream, child, stamp_ns)
                is_straggler = any(other.laps > stream.laps for other in self._streams)
                if not is_straggler and (child, stamp_ns) not in self._seen:
                    self._seen[(child, stamp_ns)] = None
                    if len(self._seen) > SEEN_LIMIT:
                        del self._seen[next(iter(self._seen))]
                    self._add(stamped, static=False)

    def _add(self, stamped: TransformStamped, static: bool) -> None:
        try:
            self._buffer.add(stamped, static)
        except Gena3DError as error:
            self._on_error(f"tf:{stamped.child_frame_id}", f"transform refused: {error}")

    def _check_time(self, stream: _Stream, child: str, stamp_ns: int) -> None:
        """Each stream keeps its order, but the reliable one may tell of a jump seconds after the other has."""
        if stream.newest_ns.get(child, 0) - stamp_ns > JUMP_BACK_S * NS:
            stream.laps += 1
            stream.newest_ns.clear()
            if all(stream.laps > other.laps for other in self._streams if other is not stream):
                self._forget_after(stamp_ns)
        stream.newest_ns[child] = max(stamp_ns, stream.newest_ns.get(child, 0))

    def _forget_after(self, stamp_ns: int) -> None:
        self._buffer.forget_after(stamp_ns)
        self._seen = {key: None for key in self._seen if key[1] <= stamp_ns} if tf2_ros is None else {}


def on_clock_jump_back(node: Any, callback: Callable[[int], None]) -> Any:
    """Call `callback(now_ns)` when the node's (simulated) clock goes back; keep the returned handle alive."""
    threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
    clock = node.get_clock()
    return clock.create_jump_callback(threshold, post_callback=lambda jump: callback(clock.now().nanoseconds))


class PlainTransformBroadcaster:
    """Publishes transforms on /tf; `pub_tf` is its publisher, as in `tf2_ros`."""

    def __init__(self, node: Any) -> None:
        self.pub_tf = node.create_publisher(
            TFMessage, "/tf", QoSProfile(depth=100), qos_overriding_options=qos.overridable()
        )

    def sendTransform(self, transforms: TransformStamped | list[TransformStamped]) -> None:
        self.pub_tf.publish(TFMessage(transforms=_as_list(transforms)))


class PlainStaticTransformBroadcaster:
    """Publishes transforms that never change on /tf_static; latecomers hear all of them."""

    def __init__(self, node: Any) -> None:
        self._transforms: dict[str, TransformStamped] = {}
        self._publisher = node.create_publisher(
            TFMessage, "/tf_static", qos.latched(), qos_overriding_options=qos.overridable()
        )

    def sendTransform(self, transforms: TransformStamped | list[TransformStamped]) -> None:
        self._transforms.update({t.child_frame_id: t for t in _as_list(transforms)})
        self._publisher.publish(TFMessage(transforms=list(self._transforms.values())))


TransformBroadcaster = PlainTransformBroadcaster if tf2_ros is None else tf2_ros.TransformBroadcaster
StaticTransformBroadcaster = PlainStaticTransformBroadcaster if tf2_ros is None else tf2_ros.StaticTransformBroadcaster


def matrix_from_transform(transform: Transform) -> Float64Array:
    """(4, 4) of a message; raises `InputError` for non-finite numbers or a quaternion without direction."""
    t, q = transform.translation, transform.rotation
    if not np.isfinite([t.x, t.y, t.z]).all():
        raise InputError(f"translation holds NaN or infinity: {[t.x, t.y, t.z]}")
    return rigid(matrix_from_quat_xyzw(np.array([q.x, q.y, q.z, q.w])), np.array([t.x, t.y, t.z]))


def transform_to_msg(parent: str, child: str, T_parent_child: np.ndarray, stamp_ns: int) -> TransformStamped:
    """Message that places frame `child` in frame `parent`."""
    stamped = TransformStamped(header=header_to_msg(parent, stamp_ns), child_frame_id=child)
    t, r = stamped.transform.translation, stamped.transform.rotation
    t.x, t.y, t.z = (float(v) for v in T_parent_child[:3, 3])
    r.x, r.y, r.z, r.w = (float(v) for v in quat_xyzw_from_matrix(T_parent_child[:3, :3]))
    return stamped


def _as_list(transforms: TransformStamped | list[TransformStamped]) -> list[TransformStamped]:
    return transforms if isinstance(transforms, list) else [transforms]
