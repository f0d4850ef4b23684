"""Objects that the user boxed in one view, carried to the other views by geometry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import BoolArray, BoxPrompt, Int32Array, ObjectMask, Segmentation, SupportPlane, View
from . import masks
from .height_map import HeightMap
from .support import Heights, Surface

MIN_PIXELS = 30
"""Fewer pixels above the plane inside a box are no object."""


def prompted(
    views: Sequence[View],
    surfaces: Sequence[Surface],
    heights: Sequence[Heights],
    grid: HeightMap,
    regions: Int32Array,
    prompts: Sequence[BoxPrompt],
    plane: SupportPlane,
) -> Segmentation:
    """One object for each box that holds something above the plane; ids follow the boxes, from 1.

    A box takes the regions of the map that it encloses for the most part, whatever their shape (the user knows that
    a magazine is meant); a region that reaches out of the box is cut at the box's footprint.
    """
    names = [view.name for view in views]
    chosen = np.zeros_like(regions)
    problems: list[str] = []
    for number, prompt in enumerate(prompts, start=1):
        index = names.index(prompt.view)
        footprint = _footprint(prompt, surfaces[index], heights[index], grid, regions)
        if footprint is None:
            problems.append(
                f"box {tuple(round(x) for x in prompt.box_xyxy)} in view '{prompt.view}' holds nothing above "
                "the support plane; no object was made for it"
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
        inside = _box(prompt, labels[names.index(prompt.view)].shape)
        visible = tuple(
            (image == number) & (inside if name == prompt.view else True)
            for image, name in zip(labels, names, strict=True)
        )
        objects.append(ObjectMask(number, prompt.label or "object", 1.0, visible))
    return Segmentation(tuple(objects), plane, tuple(problems))


def _above(heights: Heights) -> BoolArray:
    with np.errstate(invalid="ignore"):
        return heights.height_m > np.maximum(0.005, 3.0 * heights.sigma_m)


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


def pixel_cells(grid: HeightMap, surface: Surface, chosen: BoolArray) -> BoolArray:
    """(I, J) cells that hold at least one of the `chosen` pixels (H, W)."""
    cells, on_map = grid.frame.cells(surface.points[chosen])
    hit = np.zeros(grid.frame.shape[0] * grid.frame.shape[1], dtype=bool)
    hit[cells[on_map]] = True
    return hit.reshape(grid.frame.shape)
