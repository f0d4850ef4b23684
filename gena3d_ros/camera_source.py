"""What the nodes that stand in for camera drivers share: outputs, transforms, the clock, the stream of frames."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rosgraph_msgs.msg import Clock

from gena3d_core.types import Float64Array, Intrinsics

from . import camera_output
from .camera_output import CameraOutput, OutputOptions, Prepared
from .diagnostics import ERROR, OK, Health
from .frame_stream import Frame, FrameStream
from .lifecycle import LifecycleNode, describe
from .message_fields import time_to_msg
from .parameter_table import CameraOutputParameters
from .transforms import StaticTransformBroadcaster, TransformBroadcaster

CLOCK_START_NS = 1_000_000_000
"""Simulated time of the recorded time 0: a stamp of zero would mean 'no time' to TF."""


class Shot(NamedTuple):
    """Simultaneous views of all cameras: messages ready to be published, and the poses (4, 4) of their optical frames.

    time_ns is the recorded or simulated time, counted from 0.
    """

    prepared: Sequence[Prepared]
    poses: Sequence[Float64Array]
    time_ns: int


class CameraSource(LifecycleNode):
    """A node that publishes shots. Subclasses set up in `configure` (calling `open_cameras`) and yield `frames`."""

    THREADS = 1

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        self.outputs: list[CameraOutput] = []
        self._stream: FrameStream | None = None
        self._clock_publisher: Any = None
        self._failure_of_stream = ""
        super().__init__(node_name, **kwargs)
        self._broadcaster = TransformBroadcaster(self)
        self._static_broadcaster = StaticTransformBroadcaster(self)

    def frames(self) -> Iterable[Frame]:
        """Frames whose payload is a `Shot`, made lazily; called in a thread of its own."""
        raise NotImplementedError

    def open_cameras(self, names: Sequence[str], intrinsics: Intrinsics, with_depth: bool = True) -> None:
        """Create the publishers of the cameras."""
        values: CameraOutputParameters = self.parameters.values
        namespace = self.get_namespace().strip("/")
        options = OutputOptions(
            image_transport=tuple(dict.fromkeys(values.image_transport)),
            depth_transport=tuple(dict.fromkeys(values.depth_transport)),
            depth_encoding=values.depth_encoding,
            reliability=values.image_reliability,
            with_depth=with_depth and values.publish_depth,
            world_frame=values.world_frame,
            frame_prefix=values.frame_prefix or (f"{namespace}/" if namespace else ""),
        )
        self.outputs = [CameraOutput(self, name, intrinsics, options) for name in names]
        if values.publish_clock:
            self._clock_publisher = self.create_lifecycle_publisher(Clock, "/clock", 10)

    def activate(self) -> None:
        self._failure_of_stream = ""
        self._static_broadcaster.sendTransform([output.static_transform() for output in self.outputs])
        self._stream = FrameStream(
            self.frames(),
            self._publish,
            self._on_stream_error,
            on_end=self.on_end,
            is_awaited=self._is_heard,
            start_timeout_s=self.parameters.values.start_timeout_s,
        )
        self._stream.start()

    def deactivate(self) -> None:
        if self._stream is not None:
            self._stream.stop()
            self._stream = None

    def cleanup(self) -> None:
        for output in self.outputs:
            output.close()
        self.outputs = []
        if self._clock_publisher is not None:
            self.destroy_lifecycle_publisher(self._clock_publisher)
            self._clock_publisher = None

    def destroy_node(self) -> None:
        if self._stream is not None:
            self._stream.stop()
        super().destroy_node()

    def on_end(self) -> None:
        """The frames have run out."""

    def health(self) -> Iterable[Health]:
        stream = self._stream
        figures = {} if stream is None else {"frames_published": stream.published, "late_s": round(stream.late_s, 3)}
        level = ERROR if self._failure_of_stream else OK
        yield Health("stream", level, self._failure_of_stream or ("streaming" if stream else "stopped"), figures)

    def _is_heard(self) -> bool:
        # Matched by our own publisher, not merely known: the first transforms would be lost, and the images with them.
        return all(o.is_heard() for o in self.outputs) and self._broadcaster.pub_tf.get_subscription_count() > 0

    def _publish(self, shot: Shot) -> None:
        if self._clock_publisher is not None:
            stamp_ns = CLOCK_START_NS + shot.time_ns
            self._clock_publisher.publish(Clock(clock=time_to_msg(stamp_ns)))
        else:
            stamp_ns = self.get_clock().now().nanoseconds
        # transforms first: whoever waits for them finds them when the image arrives
        self._broadcaster.sendTransform(
            [output.transform(T, stamp_ns) for output, T in zip(self.outputs, shot.poses, strict=True)]
        )
        stamp = time_to_msg(stamp_ns)
        for prepared in shot.prepared:
            camera_output.publish(prepared, stamp)

    def _on_stream_error(self, error: BaseException) -> None:
        self._failure_of_stream = f"the stream has stopped: {describe(error)}"
        self.get_logger().error(self._failure_of_stream)
