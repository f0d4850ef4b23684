"""Colour and depth images on disk; every broken file becomes a `DataFormatError` that names it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..errors import DataFormatError, InputError
from ..types import BoolArray, Float32Array, UInt8Array
from .atomic import write_file
from .image_bytes import decode_image

COLOR_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")


def read_color(path: Path, size: tuple[int, int] | None = None) -> UInt8Array:
    """(H, W, 3) uint8 RGB; raises `DataFormatError` if unreadable or not of `size` (width, height)."""
    bgr = _decode(path, cv2.IMREAD_COLOR)
    _check_size(path, bgr, size)
    return np.ascontiguousarray(bgr[..., ::-1], dtype=np.uint8)


def read_depth(
    path: Path, unit_m: float = 0.001, size: tuple[int, int] | None = None, invalid: float = 0.0
) -> Float32Array:
    """(H, W) float32 metres with NaN where the file holds `invalid`, a negative number or no number.

    The file has one channel, integer or float, in multiples of `unit_m`. Raises `DataFormatError`.
    """
    raw = _decode(path, cv2.IMREAD_UNCHANGED | cv2.IMREAD_ANYDEPTH)
    if raw.ndim != 2 or raw.dtype == np.uint8:
        shape = "x".join(map(str, raw.shape))
        raise DataFormatError(
            f"{path}: depth must have one channel of 16 bits or floats, got {shape} of {raw.dtype}; "
            "a depth image saved as an 8-bit or colour picture has lost its metres"
        )
    _check_size(path, raw, size)
    # In double precision, so that whole millimetres become the same floats as in messages.
    depth_m = (raw.astype(np.float64) * unit_m).astype(np.float32)
    depth_m[~np.isfinite(depth_m) | (depth_m <= 0) | (raw == invalid)] = np.nan
    return depth_m


def read_mask(path: Path, size: tuple[int, int], picture: Path) -> BoolArray:
    """(H, W) bool of a mask beside `picture` of `size` (width, height): where it is bright, or opaque if it has alpha.

    Raises `DataFormatError` if unreadable or of another size.
    """
    values = _decode(path, cv2.IMREAD_UNCHANGED)
    height, width = values.shape[:2]
    if (width, height) != size:
        raise DataFormatError(
            f"{path}: this mask is {width}x{height} pixels, but {picture.name} has {size[0]}x{size[1]}: masks must be "
            "of the picture's size"
        )
    if values.ndim == 3:
        has_alpha = values.shape[2] == 4 and bool((values[..., 3] != values[0, 0, 3]).any())
        values = values[..., 3] if has_alpha else values[..., :3].max(axis=2)
    largest = np.iinfo(values.dtype).max if np.issubdtype(values.dtype, np.integer) else 1.0
    # Label images hold 0 and 1.
    limit = 0 if values.max(initial=0) <= 1 else largest / 2
    return np.asarray(values > limit)


def write_picture(path: Path, picture: UInt8Array) -> None:
    """Write (H, W, 3) RGB to a .png or .jpg file, whole or not at all; raises `InputError` if that cannot be."""
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path}: pictures are written as .png or .jpg")
    write_file(path, cv2.imencode(path.suffix.lower(), picture[..., ::-1])[1].tobytes())


def _decode(path: Path, flags: int) -> np.ndarray:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror or error})") from error
    return decode_image(data.tobytes(), flags, str(path))


def _check_size(path: Path, image: np.ndarray, size: tuple[int, int] | None) -> None:
    height, width = image.shape[:2]
    if size is not None and (width, height) != size:
        raise DataFormatError(
            f"{path}: is {width}x{height} pixels, but the camera's intrinsics are for {size[0]}x{size[1]}"
        )
