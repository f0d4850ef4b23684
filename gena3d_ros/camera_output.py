"""What a camera driver publishes: image, depth, camera_info, their compressed forms, and its transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gena3d_core.errors import InputError
from gena3d_core.geometry.transforms import inverse, rigid
from gena3d_core.types import Float32Array, Float64Array, Intrinsics, UInt8Array

from . import conversions, qos
from .message_fields import header_to_msg, to_array
from .transforms import transform_to_msg

T_LINK_OPTICAL: Float64Array = rigid(np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]))
"""Camera body (x forward, y left, z up) from its optical frame (x right, y down, z forward): REP-103."""

_COMPRESSED_DEPTH_HEADER = bytes(12)  # for 16UC1 the fields of compressedDepth's header are unused
_PNG_FAST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class OutputOptions:
    """image_transport raw, compressed; depth_transport raw, compressed, compressedDepth; depth_encoding 16UC1, 32FC1.

    with_depth False: no depth topics; frame_prefix is put before the names of the camera's frames.
    """

    image_transport: tuple[str, ...] = ("raw",)
    depth_transport: tuple[str, ...] = ("raw",)
    depth_encoding: str = "16UC1"
    reliability: str = "reliable"
    jpeg_quality: int = 95
    with_depth: bool = True
    world_frame: str = "world"
    frame_prefix: str = ""


Prepared = list[tuple[Any, Any]]
"""(publisher, message) pairs without stamp: encoded ahead of time, published on time, perhaps many times."""


class CameraOutput:
    """Publishers and frame names of one camera of a lifecycle node."""

    def __init__(self, node: Any, camera: str, intrinsics: Intrinsics, options: OutputOptions) -> None:
        self._node, self.camera, self._intrinsics, self._options = node, camera, intrinsics, options
        name = camera.strip("/").replace("/", "_") or "camera"
        self.link_frame = f"{options.frame_prefix}{name}_link"
        self.optical_frame = f"{options.frame_prefix}{name}_optical_frame"
        base = f"{camera.strip('/')}/" if camera else ""
        self._info = self._publisher(CameraInfo, f"{base}camera_info")
        self._image = {
            transport: self._publisher(_message_type(transport), f"{base}image{_ending(transport)}")
            for transport in options.image_transport
        }
        self._depth = {
            transport: self._publisher(_message_type(transport), f"{base}depth{_ending(transport)}")
            for transport in (options.depth_transport if options.with_depth else ())
        }

    def _publisher(self, message_type: Any, topic: str) -> Any:
        return self._node.create_lifecycle_publisher(
            message_type,
            topic,
            qos.images(self._options.reliability),
            qos_overriding_options=qos.overridable(),
        )

    @property
    def _publishers(self) -> list[Any]:
        return [self._info, *self._image.values(), *self._depth.values()]

    def is_heard(self) -> bool:
        """Whether each topic kind (some form of image, some form of depth, camera_info) has a subscriber."""
        groups = [[self._info], list(self._image.values()), list(self._depth.values())]
        return all(any(p.get_subscription_count() > 0 for p in group) for group in groups if group)

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)

    def prepare(self, color: UInt8Array, depth_m: Float32Array | None, color_jpeg: bytes | None = None) -> Prepared:
        """Messages of one view: colour (H, W, 3) uint8, depth (H, W) metres or None; `color_jpeg` saves an encoding."""
        prepared: Prepared = [
            (publisher, image_to_msg(color) if transport == "raw" else self._jpeg(color, color_jpeg))
            for transport, publisher in self._image.items()
        ]
        if depth_m is not None:
            prepared += [
                (publisher, depth_to_msg(depth_m, self._options.depth_encoding, transport))
                for transport, publisher in self._depth.items()
            ]
        prepared.append((self._info, conversions.intrinsics_to_msg(self._intrinsics, header_to_msg("", 0))))
        for _, message in prepared:
            message.header.frame_id = self.optical_frame
        return prepared

    def _jpeg(self, color: UInt8Array, jpeg: bytes | None) -> CompressedImage:
        data = jpeg or _encoded(".jpg", color[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, self._options.jpeg_quality))
        return _compressed("rgb8; jpeg compressed bgr8", data)

    def transform(self, T_world_camera: Float64Array, stamp_ns: int) -> Any:
        """The camera body in the world, from the pose of the optical frame."""
        T_world_link = T_world_camera @ inverse(T_LINK_OPTICAL)
        return transform_to_msg(self._options.world_frame, self.link_frame, T_world_link, stamp_ns)

    def static_transform(self) -> Any:
        """The optical frame in the camera body."""
        return transform_to_msg(self.link_frame, self.optical_frame, T_LINK_OPTICAL, 0)


def publish(prepared: Prepared, stamp: Any) -> None:
    """Publish messages made by `prepare` with this time."""
    for publisher, message in prepared:
        message.header.stamp = stamp
        publisher.publish(message)


def image_to_msg(color: UInt8Array) -> Image:
    """`rgb8` image of (H, W, 3) uint8; the header is left empty."""
    height, width = color.shape[:2]
    return Image(height=height, width=width, encoding="rgb8", step=3 * width, data=to_array(color, np.uint8))


def depth_to_msg(depth_m: Float32Array, encoding: str, transport: str = "raw") -> Image | CompressedImage:
    """Depth (H, W) metres, NaN invalid: raw in the encoding 16UC1 (millimetres, 0 invalid) or 32FC1, compressed as PNG.

    Raises `InputError` for 32FC1 in a compressed form, which PNG cannot carry.
    """
    height, width = depth_m.shape
    if encoding == "32FC1":
        if transport != "raw":
            raise InputError("compressed depth carries millimetres only: choose depth_encoding 16UC1")
        data = to_array(np.ascontiguousarray(depth_m, dtype=np.float32).view(np.uint8), np.uint8)
        return Image(height=height, width=width, encoding=encoding, step=4 * width, data=data)
    millimetres = depth_to_millimetres(depth_m)
    if transport == "raw":
        data = to_array(millimetres.view(np.uint8), np.uint8)
        return Image(height=height, width=width, encoding="16UC1", step=2 * width, data=data)
    png = _encoded(".png", millimetres, _PNG_FAST)
    if transport == "compressedDepth":
        return _compressed("16UC1; compressedDepth png", _COMPRESSED_DEPTH_HEADER + png)
    return _compressed("16UC1; png compressed ", png)


def depth_to_millimetres(depth_m: Float32Array) -> np.ndarray:
    """(H, W) uint16, rounded; 0 where invalid or beyond 65.535 m."""
    with np.errstate(over="ignore", invalid="ignore"):
        millimetres = np.nan_to_num(depth_m * np.float32(1000.0), nan=0.0, posinf=0.0, neginf=0.0)
    return np.where((millimetres < 0) | (millimetres > 65535.4), 0, np.rint(millimetres)).astype(np.uint16)


def _message_type(transport: str) -> type:
    return Image if transport == "raw" else CompressedImage


def _ending(transport: str) -> str:
    return "" if transport == "raw" else f"/{transport}"


def _compressed(image_format: str, data: bytes) -> CompressedImage:
    return CompressedImage(format=image_format, data=to_array(np.frombuffer(data, dtype=np.uint8), np.uint8))


def _encoded(extension: str, image: np.ndarray, options: tuple[int, ...]) -> bytes:
    ok, data = cv2.imencode(extension, image, options)
    if not ok:
        raise InputError(f"cannot encode an image of shape {image.shape} as {extension}")
    return data.tobytes()
