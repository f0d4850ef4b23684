"""Square crops of one object, as the published generators prepare them and as ours do."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from ..errors import InputError
from ..types import Float32Array, UInt8Array, require_shape

CROP_SIZE = 518
MARGIN = 1.2
"""Side of a crop over the longest side of its object."""
ALPHA_OBJECT = 204
"""Alpha above which TRELLIS takes a pixel as part of the object's box."""
GEOMETRY_MULTIPLE = 14
WHITE = 255


def object_crop(
    color: np.ndarray,
    visible: np.ndarray,
    occluded: np.ndarray,
    size: int,
    margin: float = MARGIN,
    completed: np.ndarray | None = None,
) -> Float32Array:
    """Crop around the visible and occluded pixels of an object in one view, for an image encoder.

    color (H, W, 3) uint8 RGB, visible and occluded (H, W) bool -> (5, size, size) float32: red, green, blue in [0, 1]
    over black, visible, occluded in {0, 1}. The box is square, `margin` times as wide as the longest side of both
    masks, and may reach over the image's edges: outside is black and in neither mask. completed (H, W) bool: pixels
    that show their colour besides the visible ones. Raises `InputError` if neither mask has a pixel.
    """
    require_shape("color", color, (None, None, 3))
    require_shape("visible", visible, color.shape[:2])
    require_shape("occluded", occluded, color.shape[:2])
    box = square_box(visible | occluded, margin)
    shown = visible if completed is None else visible | completed
    kept = _cut(np.where(shown[..., None], color, 0), box).astype(np.float32) / np.float32(255.0)
    masks = _cut(np.stack([visible, occluded], axis=-1), box).astype(np.float32)
    crop = np.concatenate([_resized(kept, size), _resized(masks, size) >= 0.5], axis=-1)
    return np.ascontiguousarray(crop.transpose(2, 0, 1), dtype=np.float32)


def square_box(mask: np.ndarray, margin: float = MARGIN) -> tuple[int, int, int, int]:
    """Pixels (x0, y0, x1, y1), ends excluded, of a square around the True pixels of `mask` (H, W)."""
    x0, y0, x1, y1 = _mask_box(mask)
    side = max(1, round(margin * (max(x1 - x0, y1 - y0) + 1)))
    left, top = (x0 + x1 + 1 - side) // 2, (y0 + y1 + 1 - side) // 2
    return left, top, left + side, top + side


def inference_crop(rgba: np.ndarray, size: int = CROP_SIZE) -> UInt8Array:
    """TRELLIS' crop at inference: (H, W, 4) uint8, alpha cutting the object out -> (size, size, 3) over black.

    Raises `InputError` if no pixel is transparent (there is nothing to tell the object by) or none is opaque.
    """
    _require_cut_out(rgba)
    x0, y0, x1, y1 = _mask_box(rgba[..., 3] > ALPHA_OBJECT)
    half = int(MARGIN * max(x1 - x0, y1 - y0)) // 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    resized = _lanczos(rgba, (round(x - half), round(y - half), round(x + half), round(y + half)), size)
    return (_over_black(resized) * np.float32(255.0)).astype(np.uint8)


def training_crop(rgba: np.ndarray, size: int = CROP_SIZE) -> Float32Array:
    """TRELLIS' crop in training: (H, W, 4) uint8 -> (size, size, 3) float32 in [0, 1], over black."""
    require_shape("rgba", rgba, (None, None, 4))
    x0, y0, x1, y1 = _mask_box(rgba[..., 3] > 0)
    half = MARGIN * max(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return _over_black(_lanczos(rgba, (int(x - half), int(y - half), int(x + half), int(y + half)), size))


def geometry_image(image: np.ndarray, size: int = CROP_SIZE) -> Float32Array:
    """SceneGen's image for the geometry encoder: (H, W, 3 or 4) uint8 -> (size, size, 3) float32 in [0, 1].

    The longer side becomes `size`, the other the nearest multiple of 14 (bicubic), padded with white; transparent
    pixels show white.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4):
        raise InputError(f"image must be (H, W, 3) or (H, W, 4), got {image.shape}")
    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.mode == "RGBA":
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (WHITE,) * 4), picture).convert("RGB")
    left, top, width, height = geometry_box(*picture.size, size)
    padded = np.full((size, size, 3), WHITE, dtype=np.uint8)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    padded[top : top + height, left : left + width] = resized
    return padded.astype(np.float32) / np.float32(255.0)


def geometry_box(width: int, height: int, size: int = CROP_SIZE) -> tuple[int, int, int, int]:
    """Where `geometry_image` puts an image of width x height pixels: left, top, width, height in its square."""
    longest = max(width, height)
    wide, high = (
        size if side == longest else max(1, round(side * size / longest / GEOMETRY_MULTIPLE)) * GEOMETRY_MULTIPLE
        for side in (width, height)
    )
    return (size - wide) // 2, (size - high) // 2, wide, high


def _mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(x0, y0, x1, y1), ends included, of the True pixels."""
    rows, cols = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        raise InputError("the object has no pixel in this image: leave the view out")
    return int(cols[0]), int(rows[0]), int(cols[-1]), int(rows[-1])


def _require_cut_out(rgba: np.ndarray) -> None:
    require_shape("rgba", rgba, (None, None, 4))
    if (rgba[..., 3] == 255).all():
        raise InputError("the image has no transparent pixel: cut the object out of its background first")


def _lanczos(rgba: np.ndarray, box: tuple[int, int, int, int], size: int) -> Float32Array:
    cropped = Image.fromarray(np.ascontiguousarray(rgba)).crop(box)
    if not min(cropped.size):
        raise InputError("the object is a single pixel: there is nothing to crop")
    return np.asarray(cropped.resize((size, size), Image.Resampling.LANCZOS)).astype(np.float32) / np.float32(255.0)


def _over_black(rgba: np.ndarray) -> Float32Array:
    return rgba[..., :3] * rgba[..., 3:]


def _cut(image: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The box (x0, y0, x1, y1) out of (H, W, C); zero outside the image."""
    height, width = image.shape[:2]
    x0, y0, x1, y1 = box
    inside = image[max(y0, 0) : max(min(y1, height), 0), max(x0, 0) : max(min(x1, width), 0)]
    out = np.zeros((y1 - y0, x1 - x0, image.shape[2]), dtype=image.dtype)
    top, left = max(-y0, 0), max(-x0, 0)
    out[top : top + inside.shape[0], left : left + inside.shape[1]] = inside
    return out


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    """Square (S, S, C) -> (size, size, C): area means where it shrinks, else bilinear."""
    kind = cv2.INTER_AREA if size < len(image) else cv2.INTER_LINEAR
    return cv2.resize(image, (size, size), interpolation=kind).reshape(size, size, -1)
