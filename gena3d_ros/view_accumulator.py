"""Node `view_accumulator`: camera streams and TF in, the most informative posed views out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from gena3d_core.errors import DataFormatError, Gena3DError, InputError
from gena3d_core.types import Float64Array
from gena3d_core.viz import contact_sheet

from . import qos
from .camera_stream import CameraStream, camera_topics
from .diagnostics import OK, WARN, Health
from .frames import Frame, decode
from .lifecycle import LifecycleNode, run
from .message_fields import header_to_msg, to_array
from .msg import ViewSet
from .parameter_table import ViewAccumulatorParameters
from .srv import CaptureView
from .transforms import NS, TransformListener, on_clock_jump_back
from .view_store import ViewStore, keyframe_config

PENDING_PERIOD_S = 0.05
PREVIEW_PERIOD_S = 1.0


class ViewAccumulator(LifecycleNode):
    """See the package's README for its topics, services and parameters.

    A frame's way: colour and depth paired by stamp -> waits for camera_info and TF -> pose compared with the kept views
    -> decoded -> judged by sharpness -> kept. Nothing here ever blocks on TF.
    """

    KIND = "view_accumulator"

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        self._store = ViewStore(keyframe_config(ViewAccumulatorParameters()))
        self._streams: list[CameraStream] = []
        self._transforms: Any = None
        self._entities: list[Any] = []
        self._revision = self._published_changes = self._preview_changes = 0
        super().__init__(node_name, **kwargs)
        self.create_service(CaptureView, "~/capture_view", self.guarded(self._on_capture))
        self.create_service(Trigger, "~/clear_views", self.guarded(self._on_clear))

    # Transitions.

    def configure(self) -> None:
        self._store = ViewStore(keyframe_config(self.parameters.values))
        self._published_changes = self._preview_changes = 0
        overridable = qos.overridable()
        self._view_set = self.create_lifecycle_publisher(
            ViewSet, "view_set", qos.latched(), qos_overriding_options=overridable
        )
        self._preview = self.create_lifecycle_publisher(
            Image, "~/keyframes", qos.reliable(1), qos_overriding_options=overridable
        )

    def activate(self) -> None:
        p = self.parameters.values
        self._revision = 0
        self._transforms = TransformListener(self, p.tf_buffer_s, self.warn)
        self._jump_handle = on_clock_jump_back(self, self._time_jumped_back)
        self._streams = [
            CameraStream(self, topics, p, self._on_frame, self._time_jumped_back) for topics in camera_topics(p)
        ]
        publishing = MutuallyExclusiveCallbackGroup()
        timers: list[tuple[float, Callable[[], None], Any]] = [
            (p.publish_period_s, self._publish, publishing),
            (PREVIEW_PERIOD_S, self._publish_preview, publishing),
            *((PENDING_PERIOD_S, partial(self._resolve, stream), stream.group) for stream in self._streams),
        ]
        self._entities = [
            self.create_timer(period_s, self.guarded(callback), callback_group=group, clock=self.steady_clock)
            for period_s, callback, group in timers
        ]

    def deactivate(self) -> None:
        for timer in self._entities:
            self.destroy_timer(timer)
        for stream in self._streams:
            stream.close()
        if self._transforms is not None:
            self._transforms.close()
            self._jump_handle.unregister()
        self._entities, self._streams, self._transforms = [], [], None

    def cleanup(self) -> None:
        for name in ("_view_set", "_preview"):
            publisher = self.__dict__.pop(name, None)
            if publisher is not None:
                self.destroy_lifecycle_publisher(publisher)
        self._store.clear()

    def on_parameters(self, names: frozenset[str]) -> None:
        self._store.configure(keyframe_config(self.parameters.values))

    # The way of a frame.

    def _on_frame(self, stream: CameraStream, frame: Frame) -> None:
        self._resolve(stream)

    def _resolve(self, stream: CameraStream) -> None:
        """Find the poses of frames that wait; runs in the stream's callback group."""
        if not len(stream.pending):
            return
        transforms, p = self._transforms, self.parameters.values
        if transforms is None:
            return

        def pose_of(frame: Frame) -> Float64Array:
            if stream.model is None:
                raise DataFormatError(stream.model_problem)
            if not frame.frame_id:
                raise DataFormatError(f"images on {frame.color_topic} have no frame_id: set it in the camera driver")
            return transforms.lookup(p.world_frame, frame.frame_id, frame.stamp_ns)

        def on_timeout(frame: Frame, error: Gena3DError) -> None:
            stream.figures.without_pose += 1
            stream.report("pose", f"dropped an image of {frame.color_topic} without pose: {error}")

        stream.pending.resolve(pose_of, lambda f, T: self._consider(stream, f, T), p.tf_timeout_s, on_timeout)

    def _consider(self, stream: CameraStream, frame: Frame, T_world_camera: Float64Array) -> None:
        self._check_jump(stream, frame, T_world_camera)
        stream.latest = (frame, T_world_camera)
        if not self.parameters.values.accumulate:
            return
        if not self._store.wants_pose(T_world_camera, frame.stamp_ns):
            stream.figures.redundant += 1
            return
        try:
            self._offer(stream, frame, T_world_camera)
        except Gena3DError as error:
            stream.figures.unreadable += 1
            stream.report("unreadable", str(error))

    def _offer(
        self, stream: CameraStream, frame: Frame, T_world_camera: Float64Array, force: bool = False
    ) -> str | None:
        """Decode a frame and offer it; the name of the view if it was kept."""
        p, model = self.parameters.values, stream.model
        if model is None:
            raise DataFormatError(stream.model_problem)
        view = decode(frame, model, T_world_camera, self._store.next_name(stream.name), (p.min_depth_m, p.max_depth_m))
        stream.figures.decoded += 1
        # An undistorted image is no longer what the camera's JPEG shows.
        jpeg = frame.jpeg if model.distortion.is_none else None
        decision = self._store.offer(view, jpeg, force=force)
        self.get_logger().debug(f"{view.name}: {'kept' if decision.kept else 'not kept'}, {decision.reason}")
        stream.figures.kept += decision.kept
        return view.name if decision.kept else None

    def _check_jump(self, stream: CameraStream, frame: Frame, T_world_camera: Float64Array) -> None:
        limit = self.parameters.values.pose_jump_speed_m_s
        if stream.latest is None or limit <= 0:
            return
        before, T_before = stream.latest
        elapsed_s = (frame.stamp_ns - before.stamp_ns) / NS
        distance_m = float(np.linalg.norm(T_world_camera[:3, 3] - T_before[:3, 3]))
        if elapsed_s > 0 and distance_m > limit * elapsed_s:
            stream.report(
                "jump",
                f"the pose of camera '{stream.name}' jumped by {distance_m:.2f} m within {1000 * elapsed_s:.0f} ms; "
                "if the map was corrected, views from before do not fit: call ~/clear_views",
            )

    def _time_jumped_back(self, stamp_ns: int) -> None:
        """A recording starts over or the simulation was reset: what waits is of another time, what was kept is good."""
        self.warn("time", f"time went back to {stamp_ns / NS:.3f} s: waiting images dropped, the views kept stay")
        if self._transforms is not None:
            self._transforms.time_jumped_back(stamp_ns)
        for stream in self._streams:
            stream.clear(stamp_ns)

    # What comes out.

    def _publish(self) -> None:
        p = self.parameters.values
        if p.max_age_s > 0:
            self._store.expire(self.get_clock().now().nanoseconds)
        changes = self._store.changes
        if changes == self._published_changes:
            return
        self._revision += 1
        self._view_set.publish(self._store.message(p.world_frame, self._revision))
        self._published_changes = changes

    def _publish_preview(self) -> None:
        changes = self._store.changes
        if self._preview.get_subscription_count() == 0:
            self._preview_changes = -1  # whoever comes next gets a picture at once
        elif changes != self._preview_changes:
            sheet = contact_sheet(self._store.views)
            message = Image(height=sheet.shape[0], width=sheet.shape[1], encoding="rgb8", step=3 * sheet.shape[1])
            message.header = header_to_msg(self.parameters.values.world_frame, self.get_clock().now().nanoseconds)
            message.data = to_array(sheet, np.uint8)
            self._preview.publish(message)
            self._preview_changes = changes

    def _on_capture(self, request: CaptureView.Request, response: CaptureView.Response) -> CaptureView.Response:
        if not self.is_active:
            raise InputError(f"the node is {self.state}, not active: no camera is listened to")
        known = [stream.name for stream in self._streams]
        if request.camera and request.camera not in known:
            raise InputError(f"no camera '{request.camera}', there are {', '.join(known)}")
        notes = []
        for stream in self._streams:
            if request.camera in ("", stream.name):
                try:
                    name, note = self._capture(stream)
                    response.view_names.append(name)
                    notes.append(note)
                except Gena3DError as error:
                    notes.append(str(error))
        response.success, response.message = bool(response.view_names), "; ".join(notes)
        return response

    def _capture(self, stream: CameraStream) -> tuple[str, str]:
        latest = stream.latest
        if latest is None:
            problems = "; ".join(stream.problems.current()) or stream.model_problem if stream.model is None else ""
            raise InputError(f"camera '{stream.name}' has no posed image yet" + (f": {problems}" if problems else ""))
        name = self._offer(stream, *latest, force=True)
        if name is None:
            raise InputError(f"the image of camera '{stream.name}' was not kept")
        return name, f"added {name}, {time.monotonic() - latest[0].arrived_s:.1f} s old"

    def _on_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, f"cleared {self._store.clear()} views"
        return response

    def health(self) -> Iterable[Health]:
        cameras = [stream.health() for stream in list(self._streams)]
        views = self._store.views
        level = WARN if self.is_active and not views else OK
        values = {"revision": self._revision, "names": ", ".join(view.name for view in views)}
        return [*cameras, Health("views", level, f"{len(views)} views kept", values)]


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(ViewAccumulator, args)


if __name__ == "__main__":
    raise SystemExit(main())
