"""Compressed images in memory: decoded, or refused when cut off (OpenCV would fill the rest with grey, silently)."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from ..errors import DataFormatError

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def decode_image(name: str, data: bytes | memoryview, flags: int) -> np.ndarray:
    """Image as OpenCV decodes it under `flags` (BGR); `name` says in errors where the bytes came from.

    Raises `DataFormatError` for no bytes, truncated PNG or JPEG, and anything OpenCV cannot read.
    """
    content = bytes(data)
    if not content:
        raise DataFormatError(f"{name}: the image is empty or was truncated (0 bytes)")
    if not is_complete(content):
        raise DataFormatError(f"{name}: the image is truncated or damaged ({len(content)} bytes)")
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise DataFormatError(f"{name}: {len(content)} bytes that are not an image OpenCV can read")
    return image


def is_complete(content: bytes) -> bool:
    """False for a PNG or JPEG that lacks its end or, for a PNG, whose checksums fail; True for other formats."""
    if content.startswith(PNG_START):
        return _png_is_complete(content)
    if content.startswith(JPEG_START):
        return content.rstrip(b"\x00").endswith(JPEG_END)
    return True


def _png_is_complete(content: bytes) -> bool:
    """Whether every chunk up to IEND is present with the right checksum."""
    position = len(PNG_START)
    while position + 12 <= len(content):
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        body, checksum = content[position + 4 : end - 4], content[end - 4 : end]
        if end > len(content) or zlib.crc32(body) != int.from_bytes(checksum, "big"):
            return False
        if body[:4] == b"IEND":
            return True
        position = end
    return False
