"""Charts of curves as small multiples, drawn with `canvas`: no plotting library needed."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from ..errors import InputError
from ..types import UInt8Array
from .canvas import CARD, FAINT, INK, MUTED, Canvas, Color, fitted, object_color, text_width

PANEL = (360, 260)
INSIDE = (48, 40, 340, 214)
"""Left, top, right, bottom of the plot in its panel."""
Place = Callable[[float, float], tuple[int, int]]
"""Values (x, y) to pixels."""
GAP, TOP, COLUMNS, TICKS = 12, 64, 3, 4


@dataclass(frozen=True)
class Curve:
    """Points (x, y) with standard errors; points whose y is not finite are left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    """One chart: title, unit of x, and its curves."""

    title: str
    unit: str
    curves: Sequence[Curve]


def curve_sheet(panels: Sequence[Panel], y_label: str) -> UInt8Array:
    """(H, W, 3) uint8: the panels beside one another, all with the y axis from 0, so that they can be compared.

    A label has the same colour everywhere. Raises `InputError` without a finite point.
    """
    tops = [y for panel in panels for curve in panel.curves for y in curve.y if math.isfinite(y)]
    if not tops:
        raise InputError("a chart needs a curve with at least one finite point")
    step = nice_step(max(max(tops), 1e-9) / TICKS)
    limit = step * math.ceil(max(tops) / step + 0.1)
    labels = list(dict.fromkeys(curve.label for panel in panels for curve in panel.curves))
    colors = {label: object_color(number) for number, label in enumerate(labels)}
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    canvas = Canvas(GAP + columns * (PANEL[0] + GAP), TOP + rows * (PANEL[1] + GAP))
    canvas.text((GAP, 10), y_label, 16)
    x = GAP
    for label in labels:
        x = canvas.chip((x, 36), label, 13, colors[label])[2] + 8
    for number, panel in enumerate(panels):
        at = (GAP + number % columns * (PANEL[0] + GAP), TOP + number // columns * (PANEL[1] + GAP))
        _draw_panel(canvas, at, panel, colors, step, limit)
    return canvas.pixels


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is no smaller than `rough` > 0."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough * (1 - 1e-9))


def _draw_panel(
    canvas: Canvas, at: tuple[int, int], panel: Panel, colors: dict[str, Color], step: float, limit: float
) -> None:
    canvas.box((at[0], at[1], at[0] + PANEL[0], at[1] + PANEL[1]), CARD, FAINT, radius=8)
    canvas.text((at[0] + 14, at[1] + 12), fitted(f"{panel.title} [{panel.unit}]", 14, PANEL[0] - 28), 14, INK)
    left, top, right, bottom = (edge + at[k % 2] for k, edge in enumerate(INSIDE))
    levels = sorted({x for curve in panel.curves for x in curve.x})
    low, high = levels[0], max(levels[-1], levels[0] + 1e-9)

    def place(x: float, y: float) -> tuple[int, int]:
        across = 0.5 if len(levels) == 1 else (x - low) / (high - low)
        return round(left + across * (right - left)), round(bottom - min(y / limit, 1.0) * (bottom - top))

    for number in range(round(limit / step) + 1):
        y = place(low, number * step)[1]
        canvas.line((left, y), (right, y), FAINT)
        canvas.text((left - 6, y), f"{number * step:g}", 12, MUTED, anchor="rm")
    written = -math.inf
    for level in levels:
        x, text = place(level, 0.0)[0], f"{level:g}"
        canvas.line((x, bottom), (x, bottom + 4), MUTED)
        if x - text_width(text, 12) / 2 > written + 3:
            canvas.text((x, bottom + 8), text, 12, MUTED, anchor="ma")
            written = x + text_width(text, 12) / 2
    for curve in panel.curves:
        _draw_curve(canvas, curve, colors[curve.label], place)


def _draw_curve(canvas: Canvas, curve: Curve, color: Color, place: Place) -> None:
    errors = curve.error or [math.nan] * len(curve.x)
    points = [(x, y, error) for x, y, error in zip(curve.x, curve.y, errors, strict=True) if math.isfinite(y)]
    spots = [place(x, y) for x, y, _ in points]
    for start, end in pairwise(spots):
        canvas.line(start, end, color, 2)
    for (x, y, error), spot in zip(points, spots, strict=True):
        if math.isfinite(error):
            canvas.line(place(x, y + error), place(x, max(0.0, y - error)), color)
        canvas.box((spot[0] - 3, spot[1] - 3, spot[0] + 3, spot[1] + 3), color, radius=3)


def png_bytes(picture: UInt8Array) -> bytes:
    """`picture` as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, "PNG")
    return buffer.getvalue()
