"""TF: looking transforms up without ever waiting, and broadcasting them.

`tf2_ros` is used where it is installed; the plain classes below do the same with our own transform tree. Matrices are
`T_target_source` (4, 4) float64.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
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


class TransformSource(Protocol):
    """Transforms heard on /tf and /tf_static."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        """`T_target_source` at that time, at once; raises `TransformLookupError` that says what is missing."""
        ...

    def time_jumped_back(self, stamp_ns: int) -> None:
        """Time runs from `stamp_ns` again: forget what was heard of later times."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


class PlainTransformListener:
    """`TransformSource` on our own transform tree; thread safe.

    on_error(key, message) hears of transforms that are refused.
    """

    def __init__(self, node: Any, history_s: float, on_error: Callable[[str, str], None]) -> None:
        self._node, self._on_error = node, on_error
        self._tree = TransformTree(history_s)
        self._lock = threading.Lock()
        # A group of its own: transforms come in while another thread decodes an image.
        group = MutuallyExclusiveCallbackGroup()
        subscribe = node.create_subscription
        options: dict[str, Any] = {"callback_group": group, "qos_overriding_options": qos.overridable()}
        self._subscriptions = [
            subscribe(TFMessage, "/tf", lambda m: self._hear(m, static=False), qos.transforms(), **options),
            subscribe(TFMessage, "/tf_static", lambda m: self._hear(m, static=True), qos.latched(100), **options),
        ]

    def _hear(self, message: TFMessage, static: bool) -> None:
        for stamped in message.transforms:
            try:
                self.add(stamped, static)
            except Gena3DError as error:
                self._on_error(f"tf:{stamped.child_frame_id}", f"transform refused: {error}")

    def add(self, stamped: TransformStamped, static: bool = False) -> None:
        """Take in one transform; raises `InputError` for one that is not rigid or not between two frames."""
        stamp_ns = time_from_msg(stamped.header.stamp)
        T = matrix_from_transform(stamped.transform)
        with self._lock:
            newest_ns = self._tree.newest_ns(stamped.child_frame_id)
            if not static and newest_ns is not None and newest_ns - stamp_ns > JUMP_BACK_S * NS:
                self._tree.forget_after(stamp_ns)
            self._tree.add(stamped.header.frame_id, stamped.child_frame_id, T, stamp_ns, static)

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        require_stamp(stamp_ns)
        with self._lock:
            return self._tree.lookup(target, source, stamp_ns)

    def time_jumped_back(self, stamp_ns: int) -> None:
        with self._lock:
            # Transforms of the new time may be a little ahead of the image that told of it.
            self._tree.forget_after(stamp_ns + round(JUMP_BACK_S * NS))

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


class Tf2TransformListener:
    """`TransformSource` on `tf2_ros`."""

    def __init__(self, node: Any, history_s: float, on_error: Callable[[str, str], None]) -> None:
        self._node = node
        self._buffer = tf2_ros.Buffer(cache_time=Duration(seconds=history_s))
        self._listener = tf2_ros.TransformListener(self._buffer, node, spin_thread=False, qos=qos.transforms())

    def lookup(self, target: str, source: str, stamp_ns: int) -> Float64Array:
        require_stamp(stamp_ns)
        try:
            stamped = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except Exception as error:  # tf2's exceptions share no base in some distributions
            frames = sorted(set(self._buffer._getFrameStrings())) if hasattr(self._buffer, "_getFrameStrings") else []
            known = f" (known: {', '.join(frames) or 'none'})" if hasattr(self._buffer, "_getFrameStrings") else ""
            raise TransformLookupError(f"{error}{known}") from error
        return matrix_from_transform(stamped.transform)

    def time_jumped_back(self, stamp_ns: int) -> None:
        self._buffer.clear()

    def close(self) -> None:
        self._listener.unregister()


TransformListener = PlainTransformListener if tf2_ros is None else Tf2TransformListener


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


def require_stamp(stamp_ns: int) -> None:
    """Raise `TransformLookupError` for the time zero, which tf2 would take for 'the latest there is'."""
    if stamp_ns <= 0:
        raise TransformLookupError("the stamp is zero, so no pose belongs to it: set it in the camera driver")


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
