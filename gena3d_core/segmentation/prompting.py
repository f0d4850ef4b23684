"""Objects that the user boxed or clicked in one view, carried to the other views by geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import BoolArray, BoxPrompt, Int32Array, ObjectMask, PointPrompt, Segmentation, SupportPlane, View
from . import masks
from .height_map import HeightMap
from .support import Heights, Surface

MIN_PIXELS = 30
"""Fewer pixels above the plane inside a box are no object."""
CLICK_REACH = 4
"""Pixels by which a click may miss its object."""


def prompted(
    views: Sequence[View],
    surfaces: Sequence[Surface],
    heights: Sequence[Heights],
    grid: HeightMap,
    regions: Int32Array,
    prompts: Sequence[BoxPrompt | PointPrompt],
    plane: SupportPlane,
) -> Segmentation:
    """One object for each box or click that holds something above the plane; ids follow the prompts, from 1.

    A box takes the regions of the map that it encloses for the most part, whatever their shape (the user knows that
    a magazine is meant); a region that reaches out of the box is cut at the box's footprint. Clicks take the regions
    that they hit, but for those that clicks beside the object hit.
    """
    names = [view.name for view in views]
    chosen = np.zeros_like(regions)
    problems: list[str] = []
    for number, prompt in enumerate(prompts, start=1):
        index = names.index(prompt.view)
        where = (surfaces[index], heights[index], grid, regions)
        footprint = _footprint(prompt, *where) if isinstance(prompt, BoxPrompt) else _clicked(prompt, *where)
        if footprint is None:
            problems.append(
                f"{_told(prompt)} in view '{prompt.view}' holds nothing above the support plane; no object was made "
                "for it"
            )
            continue
        chosen[footprint & (chosen == 0)] = number
    labels = [
        masks.fill_to_edges(
            masks.foot_pixels(masks.pixel_labels(chosen, grid.frame, s, _above(h)), chosen, grid.frame, s, h), s
        )
        for s, h in zip(surfaces, heights, strict=True)
    ]
    objects = []
    for number, prompt in enumerate(prompts, start=1):
        if not (chosen == number).any():
            continue
        shape = labels[names.index(prompt.view)].shape
        inside = _box(prompt, shape) if isinstance(prompt, BoxPrompt) else True
        visible = tuple(
            (image == number) & (inside if name == prompt.view else True)
            for image, name in zip(labels, names, strict=True)
        )
        objects.append(ObjectMask(number, prompt.label or "object", 1.0, visible))
    return Segmentation(tuple(objects), plane, tuple(problems))


def _above(heights: Heights) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return heights.height_m > np.maximum(0.005, 3.0 * heights.sigma_m)


def _told(prompt: BoxPrompt | PointPrompt) -> str:
    if isinstance(prompt, BoxPrompt):
        return f"box {tuple(round(x) for x in prompt.box_xyxy)}"
    return f"click {', '.join(f'({x:.0f}, {y:.0f})' for x, y in prompt.points_xy)}"


def _box(prompt: BoxPrompt, shape: tuple[int, ...]) -> BoolArray:
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    rows, cols = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    return (rows >= y_min) & (rows <= y_max) & (cols >= x_min) & (cols <= x_max)


def _footprint(
    prompt: BoxPrompt, surface: Surface, heights: Heights, grid: HeightMap, regions: Int32Array
) -> BoolArray | None:
    """(I, J) cells of the boxed object, or None."""
    inside = _box(prompt, heights.height_m.shape)
    count = int(regions.max(initial=0)) + 1
    labels = masks.pixel_labels(regions, grid.frame, surface, _above(heights))
    total = np.bincount(labels.ravel(), minlength=count)
    boxed = np.bincount(labels[inside], minlength=count)
    boxed[0] = 0
    whole = (boxed > 0.6 * total) & (boxed >= MIN_PIXELS)
    if whole.any():
        main = boxed >= 0.2 * boxed[whole].max()
        return np.isin(regions, np.flatnonzero(whole & main))
    if boxed.max(initial=0) < MIN_PIXELS:
        return None
    part = pixel_cells(grid, surface, inside & (labels == int(boxed.argmax())))
    return part & (regions == int(boxed.argmax()))


def _clicked(
    prompt: PointPrompt, surface: Surface, heights: Heights, grid: HeightMap, regions: Int32Array
) -> BoolArray | None:
    """(I, J) cells of the clicked object, or None."""
    labels = masks.pixel_labels(regions, grid.frame, surface, _above(heights))
    height, width = labels.shape
    wanted: set[int] = set()
    beside: set[int] = set()
    for (x, y), on_object in zip(prompt.points_xy, prompt.on_object, strict=True):
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            continue
        hit = _hit(labels, min(max(round(y), 0), height - 1), min(max(round(x), 0), width - 1), on_object)
        (wanted if on_object else beside).add(hit)
    chosen = np.array(sorted(wanted - beside - {0}), dtype=regions.dtype)
    return np.isin(regions, chosen) if len(chosen) else None


def _hit(labels: Int32Array, row: int, col: int, forgiving: bool) -> int:
    """The label at a pixel; where there is none and `forgiving`, the one that most pixels near it have; else 0."""
    if labels[row, col] or not forgiving:
        return int(labels[row, col])
    near = labels[max(row - CLICK_REACH, 0) : row + CLICK_REACH + 1, max(col - CLICK_REACH, 0) : col + CLICK_REACH + 1]
    counts = np.bincount(near.ravel())
    counts[0] = 0
    return int(counts.argmax())


def pixel_cells(grid: HeightMap, surface: Surface, chosen: BoolArray) -> BoolArray:
    """(I, J) cells that hold at least one of the `chosen` pixels (H, W)."""
    cells, on_map = grid.frame.cells(surface.points[chosen])
    hit = np.zeros(grid.frame.shape[0] * grid.frame.shape[1], dtype=bool)
    hit[cells[on_map]] = True
    return hit.reshape(grid.frame.shape)
