"""Load on real nodes in processes of their own, from camera streams of this process; prints one line of JSON.

`python -m gena3d_ros.benchmark accumulator [--seconds 30] [--rate 30] [--size 640x480] [--still]`
`python -m gena3d_ros.benchmark latency [--input sim:default] [--views 4] [--repeats 3] [--parameter name:=value ...]`
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gena3d_core.errors import Gena3DError
from gena3d_core.geometry.transforms import look_at
from gena3d_core.types import Float64Array, Intrinsics, View
from gena3d_core.views import KeyframeConfig, KeyframeSelector

from .benchmark_latency import LatencyOptions, latency

NS = 1_000_000_000
PICTURES = 60
SPEED_RAD_S = 0.1
FIRST_DOMAIN = 102
"""Robots and tests live in lower domains: what they publish must not count here."""


@dataclass(frozen=True)
class Load:
    """Camera stream: `seconds` at `rate_hz`, on a circle of one metre unless it stands `still`."""

    seconds: float = 30.0
    rate_hz: float = 30.0
    width: int = 640
    height: int = 480
    still: bool = False

    @property
    def intrinsics(self) -> Intrinsics:
        return Intrinsics(
            self.width, self.height, 0.9 * self.width, 0.9 * self.width, self.width / 2 - 0.5, self.height / 2 - 0.5
        )

    def pose(self, time_s: float) -> Float64Array:
        """`T_world_camera` after `time_s`."""
        angle = 0.0 if self.still else SPEED_RAD_S * time_s
        return look_at(np.array([np.cos(angle), np.sin(angle), 0.7]), np.zeros(3))


def pictures(load: Load) -> list[tuple[np.ndarray, np.ndarray]]:
    """Colour (H, W, 3) uint8 and depth (H, W) uint16 millimetres of a textured wall, each blurred otherwise."""
    import cv2

    rng = np.random.default_rng(0)
    small = rng.integers(30, 220, (load.height // 8 + 1, load.width // 8 + PICTURES, 3), dtype=np.uint8)
    large = cv2.resize(small, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    slope = np.broadcast_to(np.linspace(900, 1500, load.height)[:, None], (load.height, load.width))
    result = []
    for index in range(PICTURES):
        color = large[: load.height, 4 * index : 4 * index + load.width]
        color = cv2.GaussianBlur(color, (0, 0), 0.3 + 2.0 * rng.random())
        depth = slope + rng.normal(0, 2, slope.shape)
        result.append((np.ascontiguousarray(color), depth.astype(np.uint16)))
    return result


def expected_stamps(load: Load, config: KeyframeConfig, stamps_ns: list[int], images: list[Any]) -> set[int]:
    """Stamps of the views that a selector keeps that misses nothing."""
    selector = KeyframeSelector(config)
    for index, stamp_ns in enumerate(stamps_ns):
        T = load.pose((stamp_ns - stamps_ns[0]) / NS)
        if selector.wants_pose(T, stamp_ns):
            color = images[index % len(images)][0]
            selector.offer(View(color, load.intrinsics, T, stamp_ns=stamp_ns, name=str(index)))
    return {view.stamp_ns for view in selector.views}


class ProcessMeter:
    """CPU time and resident memory of a process, from /proc."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def cpu_s(self) -> float:
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self) -> float:
        pages = int((self._folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class CameraDriver:
    """Publishes the load as a camera driver would: colour, depth, camera_info, TF."""

    def __init__(self, node: Any, load: Load) -> None:
        from sensor_msgs.msg import CameraInfo, Image

        from . import qos
        from .conversions import intrinsics_to_msg
        from .message_fields import header_to_msg, to_array
        from .transforms import TransformBroadcaster

        self._load = load
        self._color = node.create_publisher(Image, "image", qos.images())
        self._depth = node.create_publisher(Image, "depth", qos.images())
        self._info = node.create_publisher(CameraInfo, "camera_info", qos.images())
        self._tf = TransformBroadcaster(node)
        self.images = pictures(load)
        h, w = load.height, load.width
        self._messages = [
            (
                Image(height=h, width=w, encoding="rgb8", step=3 * w, data=to_array(color, np.uint8)),
                Image(height=h, width=w, encoding="16UC1", step=2 * w, data=to_array(depth.view(np.uint8), np.uint8)),
            )
            for color, depth in self.images
        ]
        self._info_message = intrinsics_to_msg(load.intrinsics, header_to_msg("camera_optical", 0))

    @property
    def is_connected(self) -> bool:
        publishers = (self._color, self._depth, self._info, self._tf.pub_tf)
        return all(publisher.get_subscription_count() for publisher in publishers)

    def publish(self, index: int, stamp_ns: int, time_s: float) -> None:
        from .message_fields import header_to_msg
        from .transforms import transform_to_msg

        header = header_to_msg("camera_optical", stamp_ns)
        self._tf.sendTransform(transform_to_msg("world", "camera_optical", self._load.pose(time_s), stamp_ns))
        color, depth = self._messages[index % len(self._messages)]
        for publisher, message in ((self._info, self._info_message), (self._depth, depth), (self._color, color)):
            message.header = header
            publisher.publish(message)


def ticks(load: Load) -> Iterator[tuple[int, float]]:
    """(index, time_s) at the load's rate, in real time."""
    start = time.monotonic()
    for index in range(round(load.seconds * load.rate_hz)):
        time_s = index / load.rate_hz
        time.sleep(max(0.0, start + time_s - time.monotonic()))
        yield index, time_s


def accumulator(load: Load) -> dict[str, Any]:
    """Run view_accumulator under the load.

    The result: frames sent and taken, views kept and lost (against a selector that sees every frame), the node's share
    of one core, and its resident memory after two fifths of the time, at the end and at most.
    """
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from rclpy.executors import SingleThreadedExecutor

    from . import qos
    from .message_fields import time_from_msg
    from .msg import ViewSet
    from .parameter_table import ViewAccumulatorParameters
    from .view_store import keyframe_config

    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(FIRST_DOMAIN + os.getpid() % 100))
    arguments = ["--ros-args", "-p", "autostart:=true", "--log-level", "warn"]
    command = [sys.executable, "-m", "gena3d_ros.view_accumulator", *arguments]
    process = subprocess.Popen(command)
    rclpy.init()
    node = rclpy.create_node("benchmark")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    sets: list[ViewSet] = []
    figures: dict[str, str] = {}

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            if ": camera" in status.name:
                figures.update({value.key: value.value for value in status.values})

    def on_view_set(message: ViewSet) -> None:
        sets[:] = [message]

    node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
    node.create_subscription(ViewSet, "view_set", on_view_set, qos.latched())
    try:
        driver = CameraDriver(node, load)
        deadline = time.monotonic() + 60
        while not driver.is_connected:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the accumulator did not come up")
            time.sleep(0.05)
        time.sleep(1.0)  # both of its subscriptions to /tf
        meter, own = ProcessMeter(process.pid), ProcessMeter(os.getpid())
        cpu_s, own_cpu_s, start, rss_mb = meter.cpu_s(), own.cpu_s(), time.monotonic(), []
        first_ns, stamps_ns = time.time_ns(), []
        for index, time_s in ticks(load):
            stamps_ns.append(first_ns + round(time_s * NS))
            driver.publish(index, stamps_ns[-1], time_s)
            if index % round(load.rate_hz) == 0:
                rss_mb.append(meter.rss_mb())
        elapsed_s = time.monotonic() - start
        cpu_share, own_share = (meter.cpu_s() - cpu_s) / elapsed_s, (own.cpu_s() - own_cpu_s) / elapsed_s
        time.sleep(2.5)  # the last set and the last diagnostics
        rss_mb.append(meter.rss_mb())
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        executor.shutdown()
        rclpy.shutdown()
    kept = {time_from_msg(view.header.stamp) for view in sets[0].views} if sets else set()
    wanted = expected_stamps(load, keyframe_config(ViewAccumulatorParameters()), stamps_ns, driver.images)
    steady = rss_mb[2 * len(rss_mb) // 5 :]
    slope = float(np.polyfit(np.arange(len(steady)) / 60.0, steady, 1)[0]) if len(steady) > 2 else 0.0
    return {
        "benchmark": "accumulator",
        **vars(load),
        "frames_sent": len(stamps_ns),
        "frames_taken": int(figures.get("frames", 0)),
        "frames_decoded": int(figures.get("decoded", 0)),
        "views_kept": len(kept),
        "views_lost": len(wanted - kept),
        "cpu_share_of_a_core": round(cpu_share, 3),
        "publisher_cpu_share": round(own_share, 3),
        "rss_mb_start": round(steady[0], 1),
        "rss_mb_end": round(steady[-1], 1),
        "rss_mb_max": round(max(rss_mb), 1),
        "rss_mb_per_minute": round(slope, 2),
        "rss_mb_by_minute": [round(value, 1) for value in rss_mb[::60]],
    }


def main(args: list[str] | None = None) -> int:
    """Print the figures of one benchmark as JSON."""
    parser = argparse.ArgumentParser(prog="python -m gena3d_ros.benchmark", description=str(__doc__).splitlines()[0])
    parsers = parser.add_subparsers(dest="what", required=True)
    load = parsers.add_parser("accumulator", help="view_accumulator under camera streams")
    load.add_argument("--seconds", type=float, default=30.0, help="length of the load (300 shows a leak)")
    load.add_argument("--rate", type=float, default=30.0, help="frames a second")
    load.add_argument("--size", default="640x480", help="pixels of colour and depth")
    load.add_argument("--still", action="store_true", help="a camera that does not move")
    delay = parsers.add_parser("latency", help="last view published to objects received, stage by stage")
    delay.add_argument("--input", default="sim:default", help="sim:SCENE, or what gena3d reconstruct reads")
    delay.add_argument("--views", type=int, default=4, help="views shown, in quick succession")
    delay.add_argument("--repeats", type=int, default=3, help="runs that count; one more warms up")
    delay.add_argument(
        "--parameter", action="append", default=[], metavar="NAME:=VALUE", help="of the reconstruction node; repeatable"
    )
    options = parser.parse_args(args)
    try:
        print(json.dumps(RUNS[options.what](options)))
    except Gena3DError as error:
        print(f"gena3d_ros.benchmark: {error}", file=sys.stderr)
        return 1
    return 0


def _run_accumulator(options: argparse.Namespace) -> dict[str, Any]:
    width, _, height = options.size.partition("x")
    load = Load(options.seconds, options.rate, int(width), int(height), options.still)
    return accumulator(load)


def _run_latency(options: argparse.Namespace) -> dict[str, Any]:
    return latency(
        LatencyOptions(options.input, options.views, options.repeats, reconstruction=tuple(options.parameter))
    )


RUNS = {"accumulator": _run_accumulator, "latency": _run_latency}


if __name__ == "__main__":
    raise SystemExit(main())
