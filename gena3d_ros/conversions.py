"""Core types to and from messages, exactly; big arrays are copied as bytes, never element by element.

`*_to_msg` raises `InputError` for a value that the message cannot hold, `*_from_msg` raises `DataFormatError`
that names the field for a message that does not hold what its definition promises.
"""

from __future__ import annotations

import array
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

import gena3d_ros.msg as msg
from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.types import (
    BoxPrompt,
    Intrinsics,
    Mesh,
    PointPrompt,
    ReconstructedObject,
    Scene,
    SupportPlane,
    View,
)

from . import image_codec
from .message_fields import (
    from_array,
    header_to_msg,
    pose_from_msg,
    pose_to_msg,
    time_from_msg,
    to_array,
)


def intrinsics_to_msg(intrinsics: Intrinsics, header: Header) -> CameraInfo:
    """Camera info of an undistorted pinhole image."""
    i = intrinsics
    info = CameraInfo(header=header, width=int(i.width), height=int(i.height), distortion_model="plumb_bob")
    info.k = [float(v) for v in (i.fx, 0, i.cx, 0, i.fy, i.cy, 0, 0, 1)]
    info.r = [float(v) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1)]
    info.p = [float(v) for v in (i.fx, 0, i.cx, 0, 0, i.fy, i.cy, 0, 0, 0, 1, 0)]
    return info


def intrinsics_from_msg(field: str, info: CameraInfo) -> Intrinsics:
    """Pinhole of an undistorted image; raises `DataFormatError` for distortion or a matrix that is no pinhole."""
    if np.any(np.asarray(info.d)):
        raise DataFormatError(f"{field}.d holds distortion; views must be undistorted before they are sent")
    fx, skew, cx, zero_10, fy, cy, *last = (float(v) for v in info.k)
    if skew or zero_10 or last != [0.0, 0.0, 1.0]:
        raise DataFormatError(f"{field}.k is not a pinhole matrix without skew: {list(info.k)}")
    try:
        return Intrinsics(width=info.width, height=info.height, fx=fx, fy=fy, cx=cx, cy=cy)
    except InputError as error:
        raise DataFormatError(f"{field}: {error}") from error


def view_to_msg(
    view: View, frame_id: str, *, color_jpeg: bytes | None = None, depth_millimetres: np.ndarray | None = None
) -> msg.View:
    """Message of a posed view in the world frame `frame_id`; `depth_confidence` does not travel.

    color_jpeg: the camera's own JPEG of `view.color`, passed on as it is; without it colour becomes a PNG.
    depth_millimetres: (H, W) uint16 that `view.depth_m` was made from, to spare the search for a lossless format.
    """
    header = header_to_msg(frame_id, view.stamp_ns)
    color = image_codec.encode_color(view.color) if color_jpeg is None else (image_codec.JPEG_COLOR, color_jpeg)
    if depth_millimetres is not None:
        depth = image_codec.encode_depth_millimetres(depth_millimetres)
    elif view.depth_m is not None:
        depth = image_codec.encode_depth(view.depth_m)
    else:
        depth = ("", b"")
    return msg.View(
        header=header,
        camera=str(view.camera),
        name=str(view.name),
        pose=pose_to_msg(view.T_world_camera),
        camera_info=intrinsics_to_msg(view.intrinsics, header),
        color=_image_to_msg(header, *color),
        depth=_image_to_msg(header, *depth),
    )


def view_from_msg(message: msg.View, field: str = "view") -> View:
    """View of a message; raises `DataFormatError` that names the field for anything malformed."""
    intrinsics = intrinsics_from_msg(f"{field}.camera_info", message.camera_info)
    color = image_codec.decode_color(f"{field}.color", message.color.format, memoryview(message.color.data))
    depth_m = image_codec.decode_depth(f"{field}.depth", message.depth.format, memoryview(message.depth.data))
    size = (intrinsics.height, intrinsics.width)
    for name, image in (("color", color), ("depth", depth_m)):
        if image is not None and image.shape[:2] != size:
            raise DataFormatError(
                f"{field}.{name} is {image.shape[1]}x{image.shape[0]}, its camera_info {size[1]}x{size[0]}"
            )
    return View(
        color=color,
        intrinsics=intrinsics,
        T_world_camera=pose_from_msg(f"{field}.pose", message.pose),
        depth_m=depth_m,
        stamp_ns=time_from_msg(message.header.stamp),
        camera=message.camera,
        name=message.name,
    )


def view_set_to_msg(views: Iterable[msg.View], frame_id: str, revision: int) -> msg.ViewSet:
    """View set of view messages in the world frame `frame_id`; the stamp is that of the newest."""
    views = list(views)
    newest_ns = max((time_from_msg(view.header.stamp) for view in views), default=0)
    return msg.ViewSet(header=header_to_msg(frame_id, newest_ns), revision=int(revision), views=views)


def view_set_from_msg(message: msg.ViewSet, names: Collection[str] = ()) -> list[View]:
    """Views of a view set in its order, those in `names` only (empty: all); only these are decoded.

    Raises `InputError` for a name that the set does not hold, `DataFormatError` for a malformed message.
    """
    present = [view.name for view in message.views]
    doubled = sorted({name for name in present if present.count(name) > 1})
    if doubled:
        raise DataFormatError(f"view_set.views: names must be unique, doubled are {doubled}")
    unknown = sorted(set(names) - set(present))
    if unknown:
        raise InputError(f"views {unknown} are not in the view set, which holds {present}")
    views = []
    for index, view in enumerate(message.views):
        field = f"view_set.views[{index}] ('{view.name}')"
        if view.header.frame_id != message.header.frame_id:
            raise DataFormatError(
                f"{field}.header.frame_id is '{view.header.frame_id}', the set's is '{message.header.frame_id}'"
            )
        if not names or view.name in names:
            views.append(view_from_msg(view, field))
    return views


def box_to_msg(box: BoxPrompt) -> msg.BoxPrompt:
    """Message of a box prompt."""
    x_min, y_min, x_max, y_max = (float(v) for v in box.box_xyxy)
    return msg.BoxPrompt(view=str(box.view), label=str(box.label), x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max)


def box_from_msg(message: msg.BoxPrompt, field: str = "box") -> BoxPrompt:
    """Box prompt of a message; raises `DataFormatError` unless the box is finite and not turned over."""
    box_xyxy = (message.x_min, message.y_min, message.x_max, message.y_max)
    if not np.isfinite(box_xyxy).all() or message.x_min > message.x_max or message.y_min > message.y_max:
        raise DataFormatError(f"{field}: x_min, y_min, x_max, y_max = {box_xyxy} is not a box")
    return BoxPrompt(view=message.view, box_xyxy=box_xyxy, label=message.label)


def points_from_msg(message: msg.PointPrompt, field: str = "points") -> PointPrompt:
    """Clicks of a message; raises `DataFormatError` for lists that disagree, pixels that are not finite, no click."""
    if len(message.x) != len(message.y) or len(message.on_object) not in (0, len(message.x)):
        counts = f"x {len(message.x)}, y {len(message.y)}, on_object {len(message.on_object)}"
        raise DataFormatError(f"{field}: needs as many x as y, and as many on_object or none, got {counts}")
    clicks = tuple((float(x), float(y)) for x, y in zip(message.x, message.y, strict=True))
    try:
        return PointPrompt(message.view, clicks, tuple(bool(flag) for flag in message.on_object), message.label)
    except InputError as error:
        raise DataFormatError(f"{field}: {error}") from error


def points_to_msg(prompt: PointPrompt) -> msg.PointPrompt:
    """Message of clicks in one view."""
    x, y = ([float(pixel[axis]) for pixel in prompt.points_xy] for axis in range(2))
    return msg.PointPrompt(
        view=str(prompt.view), x=x, y=y, on_object=[bool(v) for v in prompt.on_object], label=str(prompt.label)
    )


def object_to_msg(item: ReconstructedObject, *, include_mesh: bool = True) -> msg.ReconstructedObject:
    """Message of one object; without its mesh every array of the mesh is empty."""
    message = msg.ReconstructedObject(
        id=int(item.id),
        label=str(item.label),
        score=float(item.score),
        pose=pose_to_msg(item.T_world_object),
        size=Vector3(**{axis: float(v) for axis, v in zip("xyz", item.size_m, strict=True)}),
        observed_fraction=float(item.observed_fraction),
    )
    message.residual_names, message.residual_values = _names_and_values(item.residuals)
    if not include_mesh:
        return message
    mesh = item.mesh
    message.vertices = to_array(mesh.vertices, np.float32)
    message.triangles = to_array(mesh.faces, np.uint32)
    for name, values, dtype in (
        ("vertex_colors", mesh.vertex_colors, np.uint8),
        ("vertex_confidence", mesh.vertex_confidence, np.float32),
        ("vertex_observed", mesh.vertex_observed, np.uint8),
    ):
        if values is not None:
            setattr(message, name, to_array(values, dtype))
    return message


def object_from_msg(message: msg.ReconstructedObject, field: str = "object") -> ReconstructedObject:
    """Object of a message; raises `DataFormatError` for arrays that disagree or triangles out of range."""
    size = message.size
    return ReconstructedObject(
        id=message.id,
        label=message.label,
        score=message.score,
        mesh=_mesh_from_msg(message, field),
        T_world_object=pose_from_msg(f"{field}.pose", message.pose),
        size_m=np.array([size.x, size.y, size.z]),
        observed_fraction=message.observed_fraction,
        residuals=_mapping(f"{field}.residual", message.residual_names, message.residual_values),
    )


def scene_to_msg(scene: Scene, *, ids: Collection[int] = (), include_meshes: bool = True) -> msg.ReconstructedScene:
    """Message of a scene with the objects in `ids` (empty: all); raises `InputError` for an id it does not hold."""
    present = {item.id for item in scene.objects}
    unknown = sorted(set(ids) - present)
    if unknown:
        raise InputError(f"the scene holds no objects {unknown}, it holds {sorted(present)}")
    message = msg.ReconstructedScene(
        header=header_to_msg(scene.frame_id, scene.stamp_ns),
        objects=[object_to_msg(o, include_mesh=include_meshes) for o in scene.objects if not ids or o.id in ids],
        view_names=[str(name) for name in scene.view_names],
        warnings=[str(warning) for warning in scene.warnings],
    )
    if scene.support is not None:
        message.support_plane = to_array(np.append(scene.support.normal, scene.support.offset_m), np.float64)
    message.stage_names, message.stage_seconds = _names_and_values(scene.timings_s)
    message.residual_names, message.residual_values = _names_and_values(scene.residuals)
    return message


def scene_from_msg(message: msg.ReconstructedScene) -> Scene:
    """Scene of a message; raises `DataFormatError` that names the field for anything malformed."""
    return Scene(
        objects=tuple(object_from_msg(o, f"objects[{i}]") for i, o in enumerate(message.objects)),
        frame_id=message.header.frame_id,
        stamp_ns=time_from_msg(message.header.stamp),
        support=_support_from_msg(message),
        view_names=tuple(message.view_names),
        timings_s=_mapping("stage", message.stage_names, message.stage_seconds),
        residuals=_mapping("residual", message.residual_names, message.residual_values),
        warnings=tuple(message.warnings),
    )


def _image_to_msg(header: Header, image_format: str, data: bytes) -> CompressedImage:
    message = CompressedImage(header=header, format=image_format)
    message.data = to_array(np.frombuffer(data, np.uint8), np.uint8)
    return message


def _mesh_from_msg(message: msg.ReconstructedObject, field: str) -> Mesh:
    vertices = _rows(field, "vertices", message.vertices, np.float32, None, 3)
    if not np.isfinite(vertices).all():
        raise DataFormatError(f"{field}.vertices holds NaN or infinity")
    count = len(vertices)
    triangles = _rows(field, "triangles", message.triangles, np.uint32, None, 3)
    if triangles.size and triangles.max() >= count:
        raise DataFormatError(f"{field}.triangles index vertex {triangles.max()} of {count}")
    optional = {
        name: _rows(field, name, values, dtype, count, width) if len(values) else None
        for name, values, dtype, width in (
            ("vertex_colors", message.vertex_colors, np.uint8, 3),
            ("vertex_confidence", message.vertex_confidence, np.float32, 1),
            ("vertex_observed", message.vertex_observed, np.uint8, 1),
        )
    }
    observed = optional.pop("vertex_observed")
    # Indices are below the vertex count by now, so the same bits read as int32 are the same numbers.
    faces = triangles.view(np.int32)
    return Mesh(vertices, faces, vertex_observed=None if observed is None else observed.astype(bool), **optional)


def _rows(field: str, name: str, values: object, dtype: type, count: int | None, width: int) -> np.ndarray:
    """(N, width) rows (or (N,) for width 1) of a flat message array; N must be `count` unless that is None."""
    flat = from_array(values, dtype)
    if flat.size % width or (count is not None and flat.size != count * width):
        wanted = f"a multiple of {width}" if count is None else f"{count * width} for {count} vertices"
        raise DataFormatError(f"{field}.{name} holds {flat.size} values, expected {wanted}")
    return flat.reshape(-1, width) if width > 1 else flat


def _support_from_msg(message: msg.ReconstructedScene) -> SupportPlane | None:
    plane = np.array(message.support_plane, dtype=np.float64)
    if not plane.size:
        return None
    if plane.size != 4 or not np.isfinite(plane).all() or abs(np.linalg.norm(plane[:3]) - 1.0) > 1e-6:
        raise DataFormatError(f"support_plane must be empty or a unit normal and an offset, got {plane.tolist()}")
    return SupportPlane(normal=plane[:3], offset_m=float(plane[3]))


def _names_and_values(figures: Mapping[str, float]) -> tuple[list[str], array.array]:
    return [str(name) for name in figures], array.array("d", (float(value) for value in figures.values()))


def _mapping(field: str, names: list[str], values: array.array) -> dict[str, float]:
    if len(names) != len(values):
        raise DataFormatError(f"{field} names and values disagree: {len(names)} against {len(values)}")
    return dict(zip(names, values, strict=True))
