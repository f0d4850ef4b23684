"""From the calibration of a whole sensor to the intrinsics of the images that it sends (REP-104)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..types import Intrinsics


def image_intrinsics(
    width: int,
    height: int,
    matrix: Sequence[float],
    binning: tuple[int, int] = (1, 1),
    roi_xywh: tuple[int, int, int, int] | None = None,
) -> Intrinsics:
    """Intrinsics of images that show the region `roi_xywh` of a `width` x `height` sensor, binned (x, y).

    matrix: the nine numbers of the sensor's camera matrix, row-major. The centre of a binned pixel lies midway between
    the centres of the pixels it is made of. Raises `InputError` for a camera that is not calibrated or has skew.
    """
    K = np.asarray(matrix, dtype=np.float64)
    if K.shape != (9,) or not np.isfinite(K).all() or K[0] <= 0 or K[4] <= 0:
        raise InputError(f"the camera is not calibrated: its matrix is {list(matrix)}")
    if abs(K[1]) > 1e-6 * K[0]:
        raise InputError(f"cameras with skewed pixels are not supported: the matrix is {list(matrix)}")
    x, y, roi_width, roi_height = roi_xywh or (0, 0, width, height)
    bin_x, bin_y = binning
    if bin_x < 1 or bin_y < 1 or roi_width < bin_x or roi_height < bin_y:
        raise InputError(f"an image of {roi_width}x{roi_height} pixels binned {bin_x}x{bin_y} holds nothing")
    return Intrinsics(
        width=roi_width // bin_x,
        height=roi_height // bin_y,
        fx=float(K[0] / bin_x),
        fy=float(K[4] / bin_y),
        cx=float((K[2] - x + 0.5) / bin_x - 0.5),
        cy=float((K[5] - y + 0.5) / bin_y - 0.5),
    )
