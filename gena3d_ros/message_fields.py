"""Numbers, arrays, times, frames and poses to and from message fields; the blocks that `conversions` builds from."""

from __future__ import annotations

import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion
from std_msgs.msg import Header

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.transforms import matrix_from_quat_xyzw, quat_xyzw_from_matrix, rigid
from gena3d_core.types import Float64Array

_TYPECODES = {np.dtype(np.uint8): "B", np.dtype(np.uint32): "I", np.dtype(np.float32): "f", np.dtype(np.float64): "d"}
_QUATERNION_TOLERANCE = 1e-3


def to_array(values: np.ndarray, dtype: type) -> array.array:
    """One message array of `values`, row-major; through bytes, since any other way costs seconds for a mesh."""
    flat: np.ndarray = np.ascontiguousarray(values, dtype=dtype).reshape(-1)
    out = array.array(_TYPECODES[flat.dtype])
    out.frombytes(flat.view(np.uint8).data)
    return out


def from_array(values: object, dtype: type) -> np.ndarray:
    """(N,) numpy view of a message array, without copying."""
    return np.frombuffer(values, dtype=dtype) if len(values) else np.empty(0, dtype)  # type: ignore[arg-type,call-overload]


def time_to_msg(stamp_ns: int) -> Time:
    """Time message of `stamp_ns` nanoseconds; raises `InputError` beyond the 32 bits of its seconds."""
    sec, nanosec = divmod(int(stamp_ns), 1_000_000_000)
    if not -(2**31) <= sec < 2**31:
        raise InputError(f"stamp of {stamp_ns} ns does not fit a ROS time")
    return Time(sec=sec, nanosec=nanosec)


def time_from_msg(stamp: Time) -> int:
    """Nanoseconds of a time message."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def header_to_msg(frame_id: str, stamp_ns: int) -> Header:
    """Header of a frame and a time in nanoseconds."""
    return Header(stamp=time_to_msg(stamp_ns), frame_id=str(frame_id))


def pose_to_msg(T: Float64Array) -> Pose:
    """Pose of the rigid transform `T` (4, 4)."""
    x, y, z, w = (float(v) for v in quat_xyzw_from_matrix(T[:3, :3]))
    px, py, pz = (float(v) for v in T[:3, 3])
    return Pose(position=Point(x=px, y=py, z=pz), orientation=Quaternion(x=x, y=y, z=z, w=w))


def pose_from_msg(field: str, pose: Pose) -> Float64Array:
    """(4, 4) rigid transform; raises `DataFormatError` for a non-finite position or a quaternion off unit length."""
    position, quat = pose.position, pose.orientation
    translation = np.array([position.x, position.y, position.z])
    quat_xyzw = np.array([quat.x, quat.y, quat.z, quat.w])
    if not np.isfinite(translation).all():
        raise DataFormatError(f"{field}.position is not finite: {translation.tolist()}")
    if not abs(np.linalg.norm(quat_xyzw) - 1.0) <= _QUATERNION_TOLERANCE:
        raise DataFormatError(f"{field}.orientation is not a unit quaternion: {quat_xyzw.tolist()}")
    return rigid(matrix_from_quat_xyzw(quat_xyzw), translation)
