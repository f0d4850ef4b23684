"""Time from the last view published to the objects received, stage by stage, with the real nodes as processes."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

from gena3d_core.errors import Gena3DError
from gena3d_core.types import View

from .parameter_table import ReconstructionParameters

NS = 1_000_000_000
WORLD, CAMERA = "world", "camera_optical_frame"
START_TIMEOUT_S, STEP_TIMEOUT_S = 60.0, 180.0


@dataclass(frozen=True)
class LatencyOptions:
    """input: `sim:SCENE` or what `gena3d reconstruct` reads; the first of `repeats` + 1 runs only warms up.

    reconstruction: further parameters of the reconstruction node, as `name:=value`.
    """

    input: str = "sim:default"
    views: int = 4
    repeats: int = 3
    spacing_s: float = 0.05
    reconstruction: Sequence[str] = ()


def latency(options: LatencyOptions) -> dict[str, Any]:
    """Run the benchmark; figures in seconds, medians over the repeats.

    `accumulate`: last image published -> view set received; `queue`: work on an earlier set had to end first; `settle`:
    the node waits for more views; `views`: decoding; then the pipeline's stages; `publish`: the rest, message and
    transport included. Raises `Gena3DError` when a node does not do its part in time.
    """
    import rclpy

    from .bringup import shared_memory_environment
    from .processes import ProcessGroup

    views = _load(options)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.update(shared_memory_environment(nodes=3))
    extra = [part for setting in options.reconstruction for part in ("-p", setting)]
    group = ProcessGroup()
    rclpy.init()
    try:
        for name, arguments in (("view_accumulator", ["-p", f"world_frame:={WORLD}"]), ("reconstruction", extra)):
            start = ["--ros-args", "-p", "autostart:=true", "--log-level", "error", *arguments]
            group.start(name, [sys.executable, "-m", f"gena3d_ros.{name}", *start])
        with _spinning(_Client()) as client:
            client.connect(lambda: bool(group.exited()))
            rows = [client.measure(views, options.spacing_s) for _ in range(options.repeats + 1)][1:]
    finally:
        group.stop()
        rclpy.try_shutdown()
    totals = [row["total"] for row in rows]
    return {
        "benchmark": "latency",
        "input": options.input,
        "views": len(views),
        "size": f"{views[0].intrinsics.width}x{views[0].intrinsics.height}",
        "repeats": options.repeats,
        "objects": int(median(row["objects"] for row in rows)),
        "faces": int(median(row["faces"] for row in rows)),
        "total_s": round(median(totals), 3),
        "total_s_min": round(min(totals), 3),
        "total_s_max": round(max(totals), 3),
        "stages_s": {
            name: round(median(row["stages"].get(name, 0.0) for row in rows), 4) for name in rows[0]["stages"]
        },
    }


def _load(options: LatencyOptions) -> list[View]:
    kind, _, scene = options.input.partition(":")
    if kind == "sim":
        from gena3d_core.simulation import find_scene, views_from_scene

        return views_from_scene(find_scene(scene or "default"), options.views)
    from gena3d_core.io import load_views

    return load_views(options.input, max_views=options.views)


@contextmanager
def _spinning(client: _Client) -> Any:
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

    executor = SingleThreadedExecutor()
    executor.add_node(client.node)

    def spin() -> None:
        with suppress(ExternalShutdownException):
            executor.spin()

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    try:
        yield client
    finally:
        executor.shutdown()
        thread.join()
        client.node.destroy_node()


class _Client:
    """Camera driver and listener in one."""

    def __init__(self) -> None:
        import rclpy
        from sensor_msgs.msg import CameraInfo, Image
        from std_srvs.srv import Trigger

        from . import qos
        from .msg import ReconstructedScene, ViewSet
        from .transforms import TransformBroadcaster

        self.node = rclpy.create_node("latency_benchmark")
        self._lock = threading.Lock()
        self._view_sets: list[tuple[float, Any]] = []
        self._scenes: list[tuple[float, Any]] = []
        self._color = self.node.create_publisher(Image, "image", qos.images())
        self._depth = self.node.create_publisher(Image, "depth", qos.images())
        self._info = self.node.create_publisher(CameraInfo, "camera_info", qos.images())
        self._tf = TransformBroadcaster(self.node)
        self._clear: Any = self.node.create_client(Trigger, "view_accumulator/clear_views")
        self._trigger = Trigger.Request
        self.node.create_subscription(ViewSet, "view_set", self._keep(self._view_sets), qos.latched())
        self.node.create_subscription(ReconstructedScene, "objects", self._keep(self._scenes), qos.latched())

    def _keep(self, into: list[tuple[float, Any]]) -> Callable[[Any], None]:
        def receive(message: Any) -> None:
            now = time.monotonic()
            with self._lock:
                into.append((now, message))

        return receive

    def connect(self, has_ended: Callable[[], bool]) -> None:
        """Wait until both nodes are active and hear us."""
        publishers = (self._color, self._depth, self._info, self._tf.pub_tf)

        def ready() -> bool:
            if has_ended():
                raise Gena3DError("a node ended before the benchmark could begin; its message is above")
            heard = all(publisher.get_subscription_count() for publisher in publishers)
            reconstruction = self.node.count_subscribers("view_set") >= 2  # one of them is our own
            return heard and reconstruction and self._clear.service_is_ready()

        _wait(ready, START_TIMEOUT_S, "the nodes to become active")
        time.sleep(1.0)  # readers of ours may still be unknown to them

    def measure(self, views: Sequence[View], spacing_s: float) -> dict[str, Any]:
        """Show `views` to cleared nodes and wait for the scene made of all of them."""
        future = self._clear.call_async(self._trigger())
        _wait(future.done, STEP_TIMEOUT_S, "the accumulator to clear its views")
        with self._lock:
            self._view_sets.clear()
            self._scenes.clear()
        for view in views:
            time.sleep(spacing_s)
            stamp_ns, published = self._publish(view)

        def complete(received: list[tuple[float, Any]], names: Callable[[Any], Any]) -> Any:
            from .message_fields import time_from_msg

            with self._lock:
                return next(
                    (
                        (at, m)
                        for at, m in received
                        if len(names(m)) == len(views) and time_from_msg(m.header.stamp) == stamp_ns
                    ),
                    None,
                )

        at_views, _ = _wait(
            lambda: complete(self._view_sets, lambda m: m.views), STEP_TIMEOUT_S, f"a view set of {len(views)} views"
        )
        at_scene, scene = _wait(
            lambda: complete(self._scenes, lambda m: m.view_names), STEP_TIMEOUT_S, "the scene of all views"
        )
        with self._lock:
            earlier = [at for at, _ in self._scenes if at_views < at < at_scene]
        queue_s = earlier[-1] - at_views if earlier else 0.0
        stages = dict(zip(scene.stage_names, scene.stage_seconds, strict=True))
        rest_s = at_scene - at_views - queue_s - stages.pop("total", 0.0)
        settle_s = min(max(rest_s, 0.0), 0.0 if earlier else ReconstructionParameters().settle_s)
        return {
            "total": at_scene - published,
            "objects": len(scene.objects),
            "faces": sum(len(item.triangles) // 3 for item in scene.objects),
            "stages": {
                "accumulate": at_views - published,
                "queue": queue_s,
                "settle": settle_s,
                **stages,
                "publish": rest_s - settle_s,
            },
        }

    def _publish(self, view: View) -> tuple[int, float]:
        """Stamp of the view and the time at which its last message was handed over."""
        from .camera_output import depth_to_msg, image_to_msg
        from .conversions import intrinsics_to_msg
        from .message_fields import header_to_msg
        from .transforms import transform_to_msg

        stamp_ns = self.node.get_clock().now().nanoseconds
        header = header_to_msg(CAMERA, stamp_ns)
        self._tf.sendTransform(transform_to_msg(WORLD, CAMERA, view.T_world_camera, stamp_ns))
        self._info.publish(intrinsics_to_msg(view.intrinsics, header))
        color = image_to_msg(view.color)
        color.header = header
        if view.depth_m is not None:
            depth: Any = depth_to_msg(view.depth_m, "16UC1")
            depth.header = header
            self._depth.publish(depth)
        self._color.publish(color)
        return stamp_ns, time.monotonic()


def _wait(predicate: Callable[[], Any], timeout_s: float, what: str) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise Gena3DError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.002)
    return value
