"""Views of a scene as the geometry networks take them: one size, sides whole patches, a limited number of pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import InputError
from ..types import Float32Array, require_shape

PIXEL_LIMIT = 255_000
PATCH = 14


def limited_size(width: int, height: int, *, pixel_limit: int = PIXEL_LIMIT, multiple: int = PATCH) -> tuple[int, int]:
    """Width and height near the given aspect ratio, multiples of `multiple`, with at most `pixel_limit` pixels.

    Images are enlarged as well as reduced. Raises `InputError` for an empty image or a limit below one patch.
    """
    if width < 1 or height < 1:
        raise InputError(f"an image must have pixels, got {width} x {height}")
    if pixel_limit < multiple**2:
        raise InputError(f"pixel_limit must be at least one patch of {multiple} x {multiple}, got {pixel_limit}")
    scale = math.sqrt(pixel_limit / (width * height))
    wide, high = width * scale, height * scale
    columns, rows = max(1, round(wide / multiple)), max(1, round(high / multiple))
    while columns * rows * multiple**2 > pixel_limit:
        # The side that is too long for the aspect ratio gives way, but a side of one patch cannot.
        if rows == 1 or (columns > 1 and columns / rows > wide / high):
            columns -= 1
        else:
            rows -= 1
    return columns * multiple, rows * multiple


def stacked_views(
    images: Sequence[np.ndarray], *, pixel_limit: int = PIXEL_LIMIT, multiple: int = PATCH
) -> Float32Array:
    """Images (H, W, 3) uint8 of any sizes -> (S, 3, h, w) float32 in [0, 1].

    h and w are those of `limited_size` for the first image; the others are stretched to them (Lanczos). Raises
    `InputError` for no image or one of another shape or dtype.
    """
    if not len(images):
        raise InputError("no view: at least one image is needed")
    for i, image in enumerate(images):
        require_shape(f"images[{i}]", image, (None, None, 3))
        if image.dtype != np.uint8:
            raise InputError(f"images[{i}] must be uint8, got {image.dtype}")
    height, width = images[0].shape[:2]
    size = limited_size(width, height, pixel_limit=pixel_limit, multiple=multiple)
    resized = [
        np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.LANCZOS))
        for image in images
    ]
    return np.stack(resized).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0)
