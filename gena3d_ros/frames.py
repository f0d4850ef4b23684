"""Frames: the messages of one exposure, and those that wait for their pose."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sensor_msgs.msg import CompressedImage, Image

from gena3d_core.errors import DataFormatError, Gena3DError
from gena3d_core.types import Float64Array, View

from .images import CameraModel, color_from_msg, depth_from_msg


@dataclass(frozen=True, eq=False)
class Frame:
    """Colour and, with a depth camera, depth of one exposure, as they arrived; `arrived_s` is monotonic time."""

    camera: str
    color_topic: str
    depth_topic: str
    color: Image | CompressedImage
    depth: Image | CompressedImage | None
    stamp_ns: int
    arrived_s: float = field(default_factory=time.monotonic)

    @property
    def frame_id(self) -> str:
        return self.color.header.frame_id

    @property
    def jpeg(self) -> bytes | None:
        """The camera's own JPEG of the colour image, if that is how it came."""
        if isinstance(self.color, CompressedImage) and bytes(self.color.data[:2]) == b"\xff\xd8":
            return bytes(self.color.data)
        return None


def decode(
    frame: Frame, model: CameraModel, T_world_camera: Float64Array, name: str, range_m: tuple[float, float]
) -> View:
    """The undistorted view of a frame; depth outside `range_m` is NaN.

    Raises `DataFormatError` that names the topic: unreadable images, sizes other than camera_info's.
    """
    color = color_from_msg(frame.color_topic, frame.color)
    model.check_size(frame.color_topic, color)
    depth_m = None
    if frame.depth is not None:
        depth_m = depth_from_msg(frame.depth_topic, frame.depth, *range_m)
        if depth_m.shape != color.shape[:2]:
            raise DataFormatError(
                f"{frame.depth_topic}: depth is {depth_m.shape[1]}x{depth_m.shape[0]}, colour {color.shape[1]}x"
                f"{color.shape[0]}; use the depth stream that is registered to the colour camera"
            )
        depth_m = model.depth(depth_m)
    return View(
        color=model.color(color),
        intrinsics=model.intrinsics,
        T_world_camera=T_world_camera,
        depth_m=depth_m,
        stamp_ns=frame.stamp_ns,
        camera=frame.camera,
        name=name,
    )


class PendingFrames:
    """Frames in order of arrival until their pose is known, at most `limit`. Thread safe."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._frames: deque[Frame] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame) -> Frame | None:
        """Append a frame; returns the oldest one if it had to go."""
        with self._lock:
            self._frames.append(frame)
            return self._frames.popleft() if len(self._frames) > self.limit else None

    def clear(self) -> None:
        with self._lock:
            self._frames.clear()

    def resolve(
        self,
        pose_of: Callable[[Frame], Float64Array],
        on_pose: Callable[[Frame, Float64Array], None],
        timeout_s: float,
        on_timeout: Callable[[Frame, Gena3DError], None],
    ) -> None:
        """Hand frames for which `pose_of` does not raise to `on_pose`, those that waited too long to `on_timeout`."""
        with self._lock:
            waiting = list(self._frames)
        for frame in waiting:
            try:
                T_world_camera = pose_of(frame)
            except Gena3DError as error:
                if time.monotonic() - frame.arrived_s > timeout_s and self._take(frame):
                    on_timeout(frame, error)
                continue
            if self._take(frame):
                on_pose(frame, T_world_camera)

    def _take(self, frame: Frame) -> bool:
        """Remove a frame; False if it has gone already, because somebody cleared the queue."""
        with self._lock:
            try:
                self._frames.remove(frame)
            except ValueError:
                return False
            return True
