"""Scenes as `sensor_msgs/PointCloud2`, through one numpy record array."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from gena3d_core.geometry import transforms
from gena3d_core.types import ReconstructedObject, Scene

from .message_fields import header_to_msg, to_array

POINT_DTYPE = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4"), ("object_id", "<i4")]
)
"""One point: metres in the cloud's frame, 0x00rrggbb, confidence in [0, 1], id of its object."""
# The bits of `rgb` are declared FLOAT32, as PCL and RViz have always had it.
_DATATYPES = {"rgb": PointField.FLOAT32, "object_id": PointField.INT32}
_GREY = 0xB2B2B2


def scene_cloud(scene: Scene) -> PointCloud2:
    """The vertices of every object in the scene's frame, with colour, confidence (1 where unknown) and object id."""
    parts = [_object_points(item) for item in scene.objects]
    points = np.concatenate(parts) if parts else np.empty(0, POINT_DTYPE)
    return cloud_message(points, scene.frame_id, scene.stamp_ns)


def cloud_message(points: np.ndarray, frame_id: str, stamp_ns: int) -> PointCloud2:
    """Unordered cloud of (N,) records of `POINT_DTYPE`."""
    message = PointCloud2(
        header=header_to_msg(frame_id, stamp_ns),
        height=1,
        width=len(points),
        is_bigendian=False,
        point_step=POINT_DTYPE.itemsize,
        row_step=POINT_DTYPE.itemsize * len(points),
        is_dense=True,
    )
    message.fields = [
        PointField(
            name=name,
            offset=int(POINT_DTYPE.fields[name][1]),  # type: ignore[index]
            datatype=_DATATYPES.get(name, PointField.FLOAT32),
            count=1,
        )
        for name in POINT_DTYPE.names or ()
    ]
    message.data = to_array(np.frombuffer(points.tobytes(), np.uint8), np.uint8)
    return message


def _object_points(item: ReconstructedObject) -> np.ndarray:
    mesh = item.mesh
    points = np.empty(len(mesh.vertices), POINT_DTYPE)
    world = transforms.apply(item.T_world_object, mesh.vertices)
    points["x"], points["y"], points["z"] = world.T
    points["rgb"] = _GREY if mesh.vertex_colors is None else mesh.vertex_colors.astype(np.uint32) @ (65536, 256, 1)
    points["confidence"] = 1.0 if mesh.vertex_confidence is None else mesh.vertex_confidence
    points["object_id"] = item.id
    return points
