"""Image and CameraInfo messages to core arrays; where it is installed, cv_bridge decodes uncommon encodings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.calibration import image_intrinsics
from gena3d_core.geometry.undistortion import Distortion, undistort_color, undistort_depth
from gena3d_core.io.ros_images import PIXEL_BYTES, color_from_message, depth_from_message
from gena3d_core.types import Float32Array, Intrinsics, UInt8Array

try:
    from cv_bridge import CvBridge

    _bridge: Any = CvBridge()
except Exception:  # built against another numpy, cv_bridge fails with more than ImportError
    _bridge = None


def color_from_msg(topic: str, message: Image | CompressedImage) -> UInt8Array:
    """(H, W, 3) uint8 RGB; raises `DataFormatError` that names `topic` for an image that cannot be read."""
    if _bridge is not None and isinstance(message, Image) and message.encoding not in PIXEL_BYTES:
        try:
            return np.asarray(_bridge.imgmsg_to_cv2(message, "rgb8"), dtype=np.uint8)
        except Exception as error:
            raise DataFormatError(f"{topic}: cannot read encoding '{message.encoding}': {error}") from error
    return color_from_message(message, topic)


def depth_from_msg(topic: str, message: Image | CompressedImage, min_m: float, max_m: float) -> Float32Array:
    """(H, W) float32 metres; NaN where zero, negative, not finite or outside [min_m, max_m].

    Raises `DataFormatError` that names `topic` for an image that cannot be read.
    """
    depth_m = depth_from_message(message, topic)
    with np.errstate(invalid="ignore"):
        depth_m[~((depth_m >= np.float32(min_m)) & (depth_m <= np.float32(max_m)))] = np.nan
    return depth_m


@dataclass(frozen=True)
class CameraModel:
    """What camera_info says of the images of one camera: their pinhole and the distortion to remove first."""

    intrinsics: Intrinsics
    distortion: Distortion

    def check_size(self, topic: str, image: np.ndarray) -> None:
        """Raise `DataFormatError` unless the image (H, W, ...) has the size that camera_info announces."""
        height, width = image.shape[:2]
        expected = self.intrinsics
        if (width, height) != (expected.width, expected.height):
            raise DataFormatError(
                f"{topic}: the image is {width}x{height}, camera_info says {expected.width}x{expected.height}; "
                "publish camera_info (and depth) of the colour image's own size"
            )

    def color(self, color: UInt8Array) -> UInt8Array:
        """(H, W, 3) without distortion; the same array if there was none."""
        return undistort_color(color, self.intrinsics, self.distortion)

    def depth(self, depth_m: Float32Array) -> Float32Array:
        """(H, W) without distortion, never interpolated."""
        return undistort_depth(depth_m, self.intrinsics, self.distortion)


def camera_model_from_msg(topic: str, info: CameraInfo, rectified: bool = False) -> CameraModel:
    """Model of the images that belong to `info`, its region of interest and binning applied (REP-104).

    rectified: the images are rectified already (`image_rect`), so their camera matrix is P and nothing is undistorted.
    Raises `DataFormatError` that names `topic` for a camera without calibration and for an unknown distortion model.
    """
    roi = info.roi
    roi_xywh = (roi.x_offset, roi.y_offset, roi.width, roi.height) if roi.width and roi.height else None
    binning = (max(info.binning_x, 1), max(info.binning_y, 1))
    matrix = [*info.p[0:3], *info.p[4:7], *info.p[8:11]] if rectified else list(info.k)
    try:
        return CameraModel(
            image_intrinsics(info.width, info.height, [float(v) for v in matrix], binning, roi_xywh),
            Distortion() if rectified else Distortion.from_ros(info.distortion_model, np.asarray(info.d)),
        )
    except InputError as error:
        raise DataFormatError(f"{topic}: {error}") from error
