"""Pictures of occupancy grids for the log: shaded from the front and above, truth and result side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gena3d_core.types import BoolArray, UInt8Array
from gena3d_core.viz.canvas import MUTED, Canvas, fitted, resized

CELL, GAP, CAPTION = 128, 6, 18


def shaded(occupied: BoolArray) -> UInt8Array:
    """(R, R, 3) RGB of a grid (R, R, R) seen along +y, z up: light by the slope of the depth, darker farther away."""
    R = occupied.shape[1]
    hit = occupied.any(axis=1)
    depth = np.where(hit, occupied.argmax(axis=1), R).astype(np.float64)
    slope_x, slope_z = np.gradient(depth)
    light = 0.75 + 0.35 * (slope_z - slope_x) / np.sqrt(1.0 + slope_x**2 + slope_z**2)
    gray = np.where(hit, np.clip(light, 0.15, 1.0) * (1.0 - 0.4 * depth / R), 1.0)
    picture = np.repeat((235 * gray)[:, :, None], 3, axis=2)
    return np.ascontiguousarray(picture.transpose(1, 0, 2)[::-1]).astype(np.uint8)


def comparison_sheet(columns: Sequence[np.ndarray], captions: Sequence[str]) -> UInt8Array:
    """(H, W, 3): one row per example, one cell per column.

    Each column holds grids (N, R, R, R) bool or pictures (N, h, w, 3) uint8.
    """
    rows, width = len(captions), len(columns) * (CELL + GAP) + GAP
    canvas = Canvas(width, rows * (CELL + CAPTION + GAP) + GAP)
    for row, caption in enumerate(captions):
        top = GAP + row * (CELL + CAPTION + GAP)
        for number, column in enumerate(columns):
            cell = column[row]
            picture = shaded(cell) if cell.dtype == bool else cell
            canvas.paste(resized(picture, CELL, CELL), (GAP + number * (CELL + GAP), top))
        canvas.text((GAP, top + CELL + 2), fitted(caption, 12, width - 2 * GAP), 12, MUTED)
    return canvas.pixels
