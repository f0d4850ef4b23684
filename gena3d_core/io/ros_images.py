"""Pixels of `sensor_msgs/Image` and `CompressedImage`, read from any object with their fields."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
from rosbags.image import ImageError, image_to_cvimage

from ..errors import DataFormatError
from ..types import Float32Array, UInt8Array
from .image_bytes import decode_image

PIXEL_BYTES = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1, "8UC3": 3, "8UC4": 4,
    "mono16": 2, "16UC1": 2, "32FC1": 4, "rgb16": 6, "bgr16": 6,
    "yuv422": 2, "yuv422_yuy2": 2, "uyvy": 2, "yuyv": 2,
    "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1,
}  # fmt: skip
DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
_GENERIC_COLORS = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8"}


def color_from_message(message: Any, where: str) -> UInt8Array:
    """(H, W, 3) uint8 RGB of an `Image` or `CompressedImage`; `where` begins every `DataFormatError`."""
    if hasattr(message, "format"):
        bgr = decode_image(bytes(message.data), cv2.IMREAD_COLOR, where)
        return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)
    encoding = _GENERIC_COLORS.get(message.encoding, message.encoding)
    if encoding not in PIXEL_BYTES or encoding in ("16UC1", "32FC1"):
        raise DataFormatError(
            f"{where}: encoding '{message.encoding}' is not a colour image (known: {', '.join(sorted(PIXEL_BYTES))})"
        )
    try:
        packed: Any = _repacked(message, encoding, where)
        return np.ascontiguousarray(image_to_cvimage(packed, "rgb8"), dtype=np.uint8)
    except (ImageError, cv2.error, TypeError, ValueError) as error:
        raise DataFormatError(f"{where}: cannot convert encoding '{encoding}' to colour ({error})") from error


def depth_from_message(message: Any, where: str) -> Float32Array:
    """(H, W) float32 metres, NaN invalid, of a depth `Image` or `CompressedImage`; raises `DataFormatError`."""
    if hasattr(message, "format"):
        return _compressed_depth(message, where)
    if message.encoding not in DEPTH_ENCODINGS:
        raise DataFormatError(
            f"{where}: encoding '{message.encoding}' is not depth; it must be 16UC1 (millimetres) or 32FC1 (metres)"
        )
    packed = _repacked(message, message.encoding, where)
    dtype = np.dtype(np.float32 if message.encoding == "32FC1" else np.uint16)
    raw = np.frombuffer(packed.data, dtype.newbyteorder(">" if packed.is_bigendian else "<"))
    return metres(raw.reshape(packed.height, packed.width))


def metres(raw: np.ndarray) -> Float32Array:
    """(H, W) float32 metres, NaN invalid, from integers (millimetres, 0 invalid) or floats (metres)."""
    depth_m = raw.astype(np.float32)
    if raw.dtype.kind == "u":
        # Division gives the nearest float to each whole millimetre, so that it can be told to be one.
        depth_m /= np.float32(1000.0)
    depth_m[~np.isfinite(depth_m) | (depth_m <= 0)] = np.nan
    return depth_m


def _repacked(message: Any, encoding: str, where: str) -> SimpleNamespace:
    """The message without padding at the ends of its rows, which the converter does not know."""
    row = message.width * PIXEL_BYTES[encoding]
    data = np.frombuffer(message.data, dtype=np.uint8)
    step = message.step or row
    if step < row or data.size < step * (message.height - 1) + row or message.height <= 0 or message.width <= 0:
        raise DataFormatError(
            f"{where}: {data.size} bytes with step {message.step} do not hold a {message.width}x{message.height} "
            f"image of {encoding}"
        )
    if step != row:
        padded = np.zeros(step * message.height, dtype=np.uint8)
        padded[: min(data.size, padded.size)] = data[: padded.size]
        data = np.ascontiguousarray(padded.reshape(message.height, step)[:, :row]).reshape(-1)
    return SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=encoding,
        is_bigendian=bool(message.is_bigendian),
        data=np.ascontiguousarray(data[: row * message.height]),
    )


def _compressed_depth(message: Any, where: str) -> Float32Array:
    """`compressedDepth` (a 12-byte header before a PNG; floats as inverse depth) or a plain 16-bit PNG."""
    data = bytes(message.data)
    form = message.format.lower()
    if "compresseddepth" not in form:
        raw = decode_image(data, cv2.IMREAD_UNCHANGED, where)
    elif "rvl" in form:
        raise DataFormatError(f"{where}: RVL-compressed depth is not supported; record with png compression")
    else:
        raw = decode_image(data[12:], cv2.IMREAD_UNCHANGED, where)
    if raw.ndim != 2 or raw.dtype not in (np.uint16, np.float32):
        raise DataFormatError(f"{where}: format '{message.format}' holds no depth (16-bit or float, one channel)")
    if "32fc1" not in form or raw.dtype != np.uint16:
        return metres(raw)
    scale, offset = struct.unpack_from("<ff", data, 4)
    with np.errstate(divide="ignore"):
        inverse = np.float32(scale) / (raw.astype(np.float32) - np.float32(offset))
    return metres(np.where(raw == 0, np.float32(np.nan), inverse))
