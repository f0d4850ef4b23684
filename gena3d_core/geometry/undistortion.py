"""Lens distortion, removed before anything else sees an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ..errors import InputError
from ..types import Float32Array, Intrinsics, UInt8Array

RADIAL_TANGENTIAL = "radial_tangential"
FISHEYE = "fisheye"
_COUNTS = {RADIAL_TANGENTIAL: (4, 5, 8, 12, 14), FISHEYE: (4,)}

ROS_MODELS = {
    "": RADIAL_TANGENTIAL,
    "none": RADIAL_TANGENTIAL,
    "plumb_bob": RADIAL_TANGENTIAL,
    "rational_polynomial": RADIAL_TANGENTIAL,
    "brown_conrady": RADIAL_TANGENTIAL,
    "equidistant": FISHEYE,
    "fisheye": FISHEYE,
    "kannala_brandt4": FISHEYE,
}
"""`sensor_msgs/CameraInfo.distortion_model` in our terms."""


@dataclass(frozen=True)
class Distortion:
    """Lens distortion in OpenCV's order of coefficients; hashable.

    model         `radial_tangential` (k1, k2, p1, p2, k3, ...) or `fisheye` (k1, k2, k3, k4)
    coefficients  empty or all zero: the lens does not distort
    """

    model: str = RADIAL_TANGENTIAL
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.model not in _COUNTS:
            raise InputError(f"unknown distortion model '{self.model}', known are {sorted(_COUNTS)}")
        if not np.isfinite(self.coefficients).all():
            raise InputError(f"distortion coefficients hold NaN or infinity: {self.coefficients}")
        if any(self.coefficients) and len(self.coefficients) not in _COUNTS[self.model]:
            counts = " or ".join(map(str, _COUNTS[self.model]))
            raise InputError(f"{self.model} takes {counts} distortion coefficients, got {len(self.coefficients)}")

    @classmethod
    def from_ros(cls, distortion_model: str, d: np.ndarray) -> Distortion:
        """From `CameraInfo.distortion_model` and `.d`. Raises `InputError` for a model that is not known."""
        coefficients = tuple(float(value) for value in d)
        if not any(coefficients):
            return cls()
        if distortion_model.lower() not in ROS_MODELS:
            raise InputError(f"unknown distortion_model '{distortion_model}', known are {sorted(ROS_MODELS)[1:]}")
        return cls(ROS_MODELS[distortion_model.lower()], coefficients)

    @property
    def is_none(self) -> bool:
        """Whether images need no correction."""
        return not any(self.coefficients)


def undistort_color(color: UInt8Array, intrinsics: Intrinsics, distortion: Distortion) -> UInt8Array:
    """The (H, W, 3) image that a pinhole with the same `intrinsics` takes; black where the lens saw nothing."""
    if distortion.is_none:
        return color
    return np.asarray(cv2.remap(color, *_maps(intrinsics, distortion), cv2.INTER_LINEAR), dtype=np.uint8)


def undistort_depth(depth_m: Float32Array, intrinsics: Intrinsics, distortion: Distortion) -> Float32Array:
    """The (H, W) depth that a pinhole with the same `intrinsics` measures; NaN where the lens saw nothing."""
    if distortion.is_none:
        return depth_m
    # Nearest: a mean of depths on both sides of an edge would hang in the air.
    maps = _maps(intrinsics, distortion)
    flat = cv2.remap(depth_m, *maps, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=float("nan"))
    return np.asarray(flat, dtype=np.float32)


@lru_cache(maxsize=16)
def _maps(intrinsics: Intrinsics, distortion: Distortion) -> tuple[np.ndarray, np.ndarray]:
    size = (intrinsics.width, intrinsics.height)
    K, d = intrinsics.matrix, np.array(distortion.coefficients)
    if distortion.model == FISHEYE:
        return cv2.fisheye.initUndistortRectifyMap(K, d, np.eye(3), K, size, cv2.CV_32FC1)
    return cv2.initUndistortRectifyMap(K, d, np.eye(3), K, size, cv2.CV_32FC1)
