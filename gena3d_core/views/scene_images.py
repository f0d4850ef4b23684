"""What SceneGen looks at in one image of a scene: crops and masks of the assets, the whole image, that for geometry."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError
from ..types import BoolArray, Float32Array, Intrinsics, UInt8Array, require_shape
from .object_crops import geometry_box, geometry_image, object_crop

MAX_ASSETS = 254


@dataclass(frozen=True, eq=False)
class SceneImages:
    """One image of a scene with A assets.

    crops      (A, 5, S, S) float32 as `object_crop` makes them; zeros for an asset without a pixel
    masks      (A, S, S) bool: where each asset is in the whole image, stretched to a square
    scene      (3, S, S) float32 in [0, 1]: the whole image, stretched to a square
    geometry   (3, G, G) float32 in [0, 1]: the whole image, padded to a square with white
    instances  (G, G) uint8 beside `geometry`: number of the asset + 1, 0 where there is none
    """

    crops: Float32Array
    masks: BoolArray
    scene: Float32Array
    geometry: Float32Array
    instances: UInt8Array


def scene_images(color: np.ndarray, masks: np.ndarray, image_size: int, geometry_size: int) -> SceneImages:
    """Images of the scene `color` (H, W, 3) uint8 with visible masks (A, H, W) bool, which do not overlap.

    Sizes are sides in pixels: image_size S of the image encoder's, geometry_size G of the geometry encoder's.
    Raises `InputError` for shapes that do not fit or too many assets.
    """
    require_shape("color", color, (None, None, 3))
    require_shape("masks", masks, (None, *color.shape[:2]))
    if not 1 <= len(masks) <= MAX_ASSETS:
        raise InputError(f"a scene has 1 to {MAX_ASSETS} assets, got {len(masks)}")
    S = image_size
    crops = np.zeros((len(masks), 5, S, S), dtype=np.float32)
    nothing = np.zeros(color.shape[:2], dtype=bool)
    for number, mask in enumerate(masks):
        if mask.any():
            crops[number] = object_crop(color, mask, nothing, S)
    shares = [cv2.resize(mask.astype(np.float32), (S, S), interpolation=cv2.INTER_AREA) for mask in masks]
    whole = cv2.resize(color, (S, S), interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255.0)
    return SceneImages(
        crops,
        np.stack(shares) >= 0.5,
        np.ascontiguousarray(whole.transpose(2, 0, 1)),
        np.ascontiguousarray(geometry_image(color, geometry_size).transpose(2, 0, 1)),
        geometry_map(instance_numbers(masks), geometry_size, 0),
    )


def instance_numbers(masks: np.ndarray) -> UInt8Array:
    """(H, W) uint8 of masks (A, H, W): number of the asset + 1, 0 where there is none; the last one wins."""
    numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]
    return (masks * numbers).max(axis=0).astype(np.uint8)


def geometry_map(image: np.ndarray, size: int, outside: float) -> np.ndarray:
    """(size, size) of values (H, W) that must not be mixed, such as ids and depths, placed as in `geometry_image`."""
    require_shape("image", image, (None, None))
    left, top, width, height = geometry_box(image.shape[1], image.shape[0], size)
    placed = np.full((size, size), outside, dtype=image.dtype)
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    placed[top : top + height, left : left + width] = resized
    return placed


def geometry_intrinsics(intrinsics: Intrinsics, size: int) -> Intrinsics:
    """The camera of `geometry_image` for the camera of the image."""
    left, top, width, height = geometry_box(intrinsics.width, intrinsics.height, size)
    x, y = width / intrinsics.width, height / intrinsics.height
    return Intrinsics(
        size,
        size,
        intrinsics.fx * x,
        intrinsics.fy * y,
        (intrinsics.cx + 0.5) * x - 0.5 + left,
        (intrinsics.cy + 0.5) * y - 0.5 + top,
    )
