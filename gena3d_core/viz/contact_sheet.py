"""Thumbnails of the views kept, for a preview topic or a log."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..types import UInt8Array, View
from .canvas import MUTED, Canvas, fitted, resized

GAP, CAPTION = 6, 22


def contact_sheet(views: Sequence[View], cell_width: int = 320, columns: int | None = None) -> UInt8Array:
    """(H, W, 3) RGB: one captioned thumbnail a view, `cell_width` pixels wide, row by row in the order given.

    columns: default as many as make the sheet about as wide as 4:3. An empty set gives one cell that says so.
    """
    cell_height = cell_width * 3 // 4
    columns = columns or max(1, math.ceil(math.sqrt(len(views))))
    rows = max(1, math.ceil(len(views) / columns))
    canvas = Canvas(columns * (cell_width + GAP) + GAP, rows * (cell_height + CAPTION + GAP) + GAP)
    if not views:
        canvas.text((canvas.pixels.shape[1] // 2, cell_height // 2), "no views kept yet", 18, MUTED, anchor="mm")
    for index, view in enumerate(views):
        left = GAP + (index % columns) * (cell_width + GAP)
        top = GAP + (index // columns) * (cell_height + CAPTION + GAP)
        canvas.paste(resized(view.color, cell_width, cell_height), (left, top), radius=5)
        canvas.text((left + 2, top + cell_height + 3), fitted(_caption(view), 14, cell_width), 14, MUTED)
    return canvas.pixels


def _caption(view: View) -> str:
    if view.depth_m is None:
        return f"{view.name} · {view.camera} · no depth"
    return f"{view.name} · {view.camera} · depth {100 * np.isfinite(view.depth_m).mean():.0f} %"
