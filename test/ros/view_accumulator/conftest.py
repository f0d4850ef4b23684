"""A camera driver under the test's control, and a listener to what the accumulator says."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray
from gena3d_ros.msg import ViewSet
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gena3d_core.geometry.transforms import look_at
from gena3d_core.types import Intrinsics
from gena3d_ros import qos
from gena3d_ros.conversions import intrinsics_to_msg
from gena3d_ros.message_fields import header_to_msg, to_array
from gena3d_ros.transforms import TransformBroadcaster, transform_to_msg
from gena3d_ros.view_accumulator import ViewAccumulator

NS = 1_000_000_000
INTRINSICS = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5)


def texture(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A sharp, well exposed picture."""
    return np.random.default_rng(seed).integers(20, 230, (height, width, 3), dtype=np.uint8)


def image_msg(header: Any, encoding: str, pixels: np.ndarray, step_padding: int = 0) -> Image:
    rows = np.ascontiguousarray(pixels).view(np.uint8).reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, step_padding)), constant_values=77)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, step=rows.shape[1])
    message.data = to_array(rows, np.uint8)
    return message


def pose(index: float) -> np.ndarray:
    """`T_world_camera` on a circle around the origin, 0.2 m and 0.2 rad apart: each one is a new view."""
    angle = 0.2 * index
    return look_at(np.array([np.cos(angle), np.sin(angle), 0.6]), np.zeros(3))


class Driver:
    """Publishes colour, depth, camera_info and TF; every part of it can be changed or left out."""

    def __init__(self, node: Any, prefix: str = "", frame: str = "camera_optical", reliability: str = "reliable"):
        self.node, self.prefix, self.frame = node, prefix, frame
        self.profile = qos.images(reliability)
        self.publishers: dict[str, Any] = {}
        self.broadcaster = TransformBroadcaster(node)
        self.stamp_ns = 1000 * NS
        self.intrinsics = INTRINSICS

    def publish(self, topic: str, message: Any) -> None:
        self.publisher(topic, type(message)).publish(message)

    def publisher(self, topic: str, message_type: type) -> Any:
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(message_type, self.prefix + topic, self.profile)
        return self.publishers[topic]

    def connect(self, wait_for: Callable[..., Any], *topics: tuple[str, type]) -> "Driver":
        """Wait until somebody listens to each topic (default: raw colour, depth and camera_info) and to TF."""
        for topic, message_type in topics or (("image", Image), ("depth", Image), ("camera_info", CameraInfo)):
            publisher = self.publisher(topic, message_type)
            wait_for(publisher.get_subscription_count, what=f"a listener on {topic}")
        wait_for(self.broadcaster.pub_tf.get_subscription_count, what="a listener on /tf")
        return self

    def tick(self, seconds: float = 0.2) -> int:
        self.stamp_ns += round(seconds * NS)
        return self.stamp_ns

    def tf(self, T: np.ndarray, stamp_ns: int | None = None, parent: str = "world") -> None:
        stamp_ns = self.stamp_ns if stamp_ns is None else stamp_ns
        self.broadcaster.sendTransform(transform_to_msg(parent, self.frame, T, stamp_ns))

    def info(self, intrinsics: Intrinsics | None = None, **changes: Any) -> CameraInfo:
        message = intrinsics_to_msg(intrinsics or self.intrinsics, header_to_msg(self.frame, self.stamp_ns))
        for name, value in changes.items():
            setattr(message, name, value)
        return message

    def color(self, pixels: np.ndarray, encoding: str = "rgb8", **options: Any) -> Image:
        return image_msg(header_to_msg(self.frame, self.stamp_ns), encoding, pixels, **options)

    def jpeg(self, pixels: np.ndarray) -> CompressedImage:
        data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))[1]
        message = CompressedImage(header=header_to_msg(self.frame, self.stamp_ns), format="bgr8; jpeg compressed bgr8")
        message.data = to_array(data, np.uint8)
        return message

    def depth(self, metres: np.ndarray | float = 1.0, encoding: str = "16UC1", offset_s: float = 0.0) -> Image:
        pixels = np.broadcast_to(np.asarray(metres, dtype=np.float32), (self.intrinsics.height, self.intrinsics.width))
        if encoding != "32FC1":
            pixels = (pixels * 1000).round().astype(np.uint16)
        return image_msg(header_to_msg(self.frame, self.stamp_ns + round(offset_s * NS)), encoding, pixels)

    def send(self, index: float, *, seed: int | None = None, depth: bool = True, tf: bool = True, info: bool = True):
        """One exposure from pose `index` at a new time: TF, camera_info, depth, colour."""
        self.tick()
        if tf:
            self.tf(pose(index))
        if info:
            self.publish("camera_info", self.info())
        if depth:
            self.publish("depth", self.depth())
        self.publish("image", self.color(texture(int(index) if seed is None else seed)))


class Listener:
    """Collects view sets and diagnostics."""

    def __init__(self, node: Any, wait_for: Callable[..., Any], view_set: str = "view_set") -> None:
        self._wait_for = wait_for
        self.sets: list[ViewSet] = []
        self.statuses: dict[str, Any] = {}
        node.create_subscription(ViewSet, view_set, self.sets.append, qos.latched(10))
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses.update({status.name: status for status in message.status})

    def views(self, count: int) -> ViewSet:
        """The first set of `count` views."""
        got = lambda: [s for s in list(self.sets) if len(s.views) == count]  # noqa: E731
        return self._wait_for(got, what=f"a set of {count} views")[-1]

    def problem(self, *words: str, part: str = "camera", level: bytes = b"\x01") -> str:
        """The message of the first status of `part` at `level` that holds every word."""

        def search() -> Any:
            found = [s for name, s in list(self.statuses.items()) if f": {part}" in name and s.level == level]
            return next((s.message for s in found if all(word in s.message for word in words)), None)

        return self._wait_for(search, what=f"{words} in the diagnostics")

    def value(self, key: str, part: str = "camera") -> float:
        for name, status in list(self.statuses.items()):
            if f": {part}" in name:
                return float({v.key: v.value for v in status.values}.get(key, "nan"))
        return float("nan")


@pytest.fixture
def driver(ros) -> Callable[..., Driver]:
    """`driver(prefix='', frame='camera_optical', reliability='reliable')`: a fake camera driver."""
    node = ros.node("driver")
    return lambda *args, **kwargs: Driver(node, *args, **kwargs)


@pytest.fixture
def listen(ros, wait_for) -> Callable[..., Listener]:
    """`listen(view_set='view_set')`: collects view sets and diagnostics."""
    node = ros.node("listener")
    return lambda *args, **kwargs: Listener(node, wait_for, *args, **kwargs)


@pytest.fixture
def accumulator(ros) -> Callable[..., ViewAccumulator]:
    """`accumulator(parameters={}, **kwargs)`: an active node."""

    def make(parameters: dict[str, Any] | None = None, **kwargs: Any) -> ViewAccumulator:
        quick = {"publish_period_s": 0.02, "tf_timeout_s": 0.5, "recheck_interval_s": 0.0}
        node = ros.make(ViewAccumulator, {**quick, **(parameters or {})}, **kwargs)
        assert node.start()
        return node

    return make


@pytest.fixture
def tools() -> Any:
    """`texture(seed)`, `pose(index)`, `image_msg(header, encoding, pixels)`, `intrinsics`."""
    return type("Tools", (), {"texture": staticmethod(texture), "pose": staticmethod(pose), "intrinsics": INTRINSICS})
