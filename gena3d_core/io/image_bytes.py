"""Encoded image bytes to pixels, refusing the cut-off files that OpenCV would fill with grey."""

from __future__ import annotations

import zlib

import cv2
import numpy as np

from ..errors import DataFormatError

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"


def decode_image(data: bytes, flags: int, where: str) -> np.ndarray:
    """Pixels as `cv2.imdecode` gives them with `flags`; `where` begins every `DataFormatError`."""
    if not data:
        raise DataFormatError(f"{where}: the image is empty or was truncated (0 bytes)")
    if not is_complete(data):
        raise DataFormatError(
            f"{where}: the image is cut off, truncated or damaged ({len(data)} bytes); copy or record it again"
        )
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise DataFormatError(f"{where}: not an image that OpenCV can decode (damaged, or of another format)")
    return image


def is_complete(data: bytes) -> bool:
    """Whether a PNG or JPEG ends as its format demands; True for other formats, whose decoders notice."""
    if data.startswith(PNG_START):
        return _png_is_complete(data)
    if data.startswith(JPEG_START):
        # The end marker of the picture lies after its last scan; a thumbnail's lies before.
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    return True


def _png_is_complete(data: bytes) -> bool:
    """Whether every chunk up to IEND is present with the right checksum."""
    position = len(PNG_START)
    while position + 12 <= len(data):
        end = position + 12 + int.from_bytes(data[position : position + 4], "big")
        body, checksum = data[position + 4 : end - 4], data[end - 4 : end]
        if end > len(data) or zlib.crc32(body) != int.from_bytes(checksum, "big"):
            return False
        if body[:4] == b"IEND":
            return True
        position = end
    return False
