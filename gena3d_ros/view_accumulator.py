"""Node `view_accumulator`: camera streams and TF in, the most informative posed views out."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from gena3d_core.errors import DataFormatError, Gena3DError, InputError
from gena3d_core.types import Float64Array

from .camera_stream import CameraStream, camera_topics
from .diagnostics import OK, WARN, Health
from .frames import Frame, decode
from .lifecycle import LifecycleNode, run
from .parameter_table import ViewAccumulatorParameters
from .srv import CaptureView
from .transforms import NS, TransformListener, on_clock_jump_back
from .view_publisher import ViewPublisher
from .view_store import ViewStore, keyframe_config


class ViewAccumulator(LifecycleNode):
    """See the package's README for its topics, services and parameters.

    A frame's way: colour and depth paired by stamp -> waits for camera_info and TF -> pose compared with the kept views
    -> decoded -> judged by sharpness -> kept. Nothing here ever blocks on TF.
    """

    KIND = "view_accumulator"
    THREADS = 1
    """rclpy spends three times as long on a message with more threads; encoding has a thread of its own."""

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        self._store = ViewStore(keyframe_config(ViewAccumulatorParameters()))
        self._streams: list[CameraStream] = []
        self._transforms: Any = None
        self._publisher: ViewPublisher | None = None
        super().__init__(node_name, **kwargs)
        self.create_service(CaptureView, "~/capture_view", self.guarded(self._on_capture))
        self.create_service(Trigger, "~/clear_views", self.guarded(self._on_clear))

    # Transitions.

    def configure(self) -> None:
        p = self.parameters.values
        self._store = ViewStore(keyframe_config(p))
        self._publisher = ViewPublisher(self, self._store, p.world_frame, p.publish_period_s)

    def activate(self) -> None:
        p = self.parameters.values
        self._transforms = TransformListener(self, p.tf_buffer_s, self.warn, p.tf_reliability)
        self._jump_handle = on_clock_jump_back(self, self._time_jumped_back)
        self._streams = [
            CameraStream(self, topics, p, self._resolve, self._time_jumped_back) for topics in camera_topics(p)
        ]
        if self._publisher is not None:
            self._publisher.start()

    def deactivate(self) -> None:
        for stream in self._streams:
            stream.close()
        if self._transforms is not None:
            self._transforms.close()
            self._jump_handle.unregister()
        self._streams, self._transforms = [], None
        if self._publisher is not None:
            self._publisher.stop()

    def cleanup(self) -> None:
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        self._store.clear()

    def on_parameters(self, names: frozenset[str]) -> None:
        self._store.configure(keyframe_config(self.parameters.values))

    # The way of a frame.

    def _resolve(self, stream: CameraStream) -> None:
        """Find the poses of frames that wait; runs in the stream's callback group."""
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

    # Services and reports.

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
        p = self.parameters.values
        if p.max_age_s > 0:
            self._store.expire(self.get_clock().now().nanoseconds)
        cameras = [stream.health() for stream in list(self._streams)]
        views = self._store.views
        level = WARN if self.is_active and not views else OK
        revision = 0 if self._publisher is None else self._publisher.revision
        values = {"revision": revision, "names": ", ".join(view.name for view in views)}
        return [*cameras, Health("views", level, f"{len(views)} views kept", values)]


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run(ViewAccumulator, args)


if __name__ == "__main__":
    raise SystemExit(main())
