"""How good a picture is: sharpness and exposure, in a millisecond, without knowing the scene."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import InputError

MAX_SIDE_PX = 960
"""Larger images are shrunk first: blur that vanishes at this size does no harm to a reconstruction."""


@dataclass(frozen=True)
class ImageQuality:
    """Figures of one image.

    sharpness           energy of the Laplacian of Gaussian over the squared mean of intensity: the exposure's gain
                        cancels, and more blur always means less; texture counts too, so compare within one recording
    exposed_fraction    share of pixels that are neither crushed to black nor blown out
    """

    sharpness: float
    exposed_fraction: float


def image_quality(color: np.ndarray) -> ImageQuality:
    """Sharpness and exposure of a (H, W, 3) RGB or (H, W) grey uint8 image. Raises `InputError` for other arrays."""
    if color.dtype != np.uint8 or color.ndim not in (2, 3) or color.size == 0:
        raise InputError(f"image quality needs a uint8 image, got shape {color.shape} of {color.dtype}")
    grey = color if color.ndim == 2 else cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    scale = MAX_SIDE_PX / max(grey.shape)
    if scale < 1.0:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    exposed = float(np.count_nonzero((grey > 8) & (grey < 247)) / grey.size)
    # The Gaussian keeps sensor noise, which a bare Laplacian would take for detail, from looking sharp.
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), 1.0)
    mean = float(smooth.mean())
    energy = float(cv2.Laplacian(smooth, cv2.CV_32F).var())
    return ImageQuality(energy / (mean * mean + 1.0), exposed)


def sharpness(color: np.ndarray) -> float:
    """`image_quality(color).sharpness`."""
    return image_quality(color).sharpness
