"""The eight symmetries of an upright grid: quarter turns about z, and their mirror images.

Grids stand upright around the cloud's axis-aligned box, so a turned or mirrored scene has the turned or mirrored grid.
Images do not change under turns of the world; those of the mirrored world are mirrored left to right.
"""

from __future__ import annotations

from typing import Any

import numpy as np

ORDER = ((0, False), (0, True), (2, False), (2, True), (1, False), (1, True), (3, False), (3, True))
"""Variant -> quarter turns about z, then whether x is mirrored."""


def transformed_grids(grids: Any, variant: int) -> Any:
    """Arrays (..., X, Y, Z) as views in that variant."""
    turns, mirrored = ORDER[variant]
    turned = np.rot90(grids, turns, axes=(-3, -2))
    return np.flip(turned, axis=-3) if mirrored else turned


def transformed_crops(crops: Any, variant: int) -> Any:
    """Crops (..., H, W) of the variant."""
    return np.flip(crops, axis=-1) if ORDER[variant][1] else crops
