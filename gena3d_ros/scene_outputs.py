"""Publishes scenes: `objects` always, everything that is costly to make only while somebody listens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import MarkerArray

from gena3d_core.types import Scene
from gena3d_ros.msg import ReconstructedScene

from . import conversions, exports, markers, point_clouds, qos
from .parameter_table import ReconstructionParameters
from .transforms import transform_to_msg

Build = Callable[[Scene, ReconstructionParameters], Any]


@dataclass
class _LazyOutput:
    """A topic whose messages are made when somebody listens; `listeners` were there at the last look."""

    publisher: Any
    build: Build
    listeners: int = 0


class SceneOutputs:
    """The publishers of one configured node."""

    def __init__(self, node: Any, broadcaster: Any) -> None:
        """`broadcaster` has `sendTransform(list of TransformStamped)`."""
        self._node, self._broadcaster = node, broadcaster
        self._lock = threading.Lock()
        self._closed = False
        self._scene: Scene | None = None
        self._in_planning_scene: set[str] = set()
        self._objects = self._publisher(ReconstructedScene, "objects")
        self._lazy = [
            _LazyOutput(self._publisher(message_type, topic), build)
            for topic, message_type, build in self._lazy_table()
        ]

    def publish(self, scene: Scene, parameters: ReconstructionParameters) -> None:
        """Publish a new scene on every topic that has listeners, and on `objects` for those to come."""
        with self._lock:
            if self._closed:
                return
            self._scene = scene
            self._objects.publish(conversions.scene_to_msg(scene))
            for output in self._lazy:
                output.listeners = output.publisher.get_subscription_count()
                if output.listeners:
                    output.publisher.publish(output.build(scene, parameters))
        self.send_transforms(parameters)

    def serve_newcomers(self, parameters: ReconstructionParameters) -> None:
        """Publish the last scene again where listeners have joined since the last look."""
        with self._lock:
            for output in () if self._closed else self._lazy:
                before, output.listeners = output.listeners, output.publisher.get_subscription_count()
                if self._scene is not None and output.listeners > before:
                    output.publisher.publish(output.build(self._scene, parameters))

    def send_transforms(self, parameters: ReconstructionParameters) -> None:
        """Send the frame of every object of the last scene, stamped now: they hold until the next scene."""
        scene = self._scene
        if scene is None or not scene.objects or parameters.tf_rate_hz <= 0:
            return
        now_ns = self._node.get_clock().now().nanoseconds
        prefix = object_frame_prefix(self._node.get_namespace(), parameters.object_frame_prefix)
        self._broadcaster.sendTransform(
            [transform_to_msg(scene.frame_id, f"{prefix}{o.id}", o.T_world_object, now_ns) for o in scene.objects]
        )

    def close(self) -> None:
        """Destroy the publishers."""
        with self._lock:
            self._closed = True
            for publisher in (self._objects, *(output.publisher for output in self._lazy)):
                self._node.destroy_lifecycle_publisher(publisher)

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return self._node.create_lifecycle_publisher(
            message_type, topic, qos.latched(), qos_overriding_options=qos.overridable()
        )

    def _lazy_table(self) -> list[tuple[str, Any, Build]]:
        table: list[tuple[str, Any, Build]] = [
            ("markers", MarkerArray, _markers),
            ("points", PointCloud2, lambda scene, _: point_clouds.scene_cloud(scene)),
        ]
        vision_msgs = exports.optional_messages("vision_msgs")
        if vision_msgs is not None:
            table.append(
                ("detections", vision_msgs.Detection3DArray, lambda scene, _: exports.detections_3d(scene, vision_msgs))
            )
        moveit_msgs = exports.optional_messages("moveit_msgs")
        if moveit_msgs is not None:
            table.append(("planning_scene", moveit_msgs.PlanningScene, self._planning_scene_builder(moveit_msgs)))
        return table

    def _planning_scene_builder(self, moveit_msgs: Any) -> Build:
        def build(scene: Scene, parameters: ReconstructionParameters) -> Any:
            message = exports.planning_scene(scene, self._in_planning_scene, parameters.collision_faces, moveit_msgs)
            self._in_planning_scene = {exports.collision_id(item) for item in scene.objects}
            return message

        return build


def object_frame_prefix(namespace: str, given: str) -> str:
    """What stands before an object's id in its TF frame: frames are global, so two instances must not share names."""
    namespace = namespace.strip("/")
    return given or (f"{namespace}/object_" if namespace else "object_")


def _markers(scene: Scene, parameters: ReconstructionParameters) -> MarkerArray:
    # Stamp zero: RViz then takes the newest transform instead of waiting for one as old as the views.
    return markers.scene_markers(
        replace(scene, stamp_ns=0), max_faces=parameters.marker_faces, color_by=parameters.marker_colors
    )
