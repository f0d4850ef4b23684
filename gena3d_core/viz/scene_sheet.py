"""A generated scene beside the pictures that it was imagined from."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ..geometry import transforms
from ..geometry.camera import project
from ..geometry.mesh import transformed
from ..types import Scene, SceneObservation, SupportPlane, UInt8Array
from .cameras import orbit_camera
from .canvas import FAINT, MUTED, Canvas, Color, fitted, object_color, wrapped
from .masks import annotated_image
from .render import render_meshes

WIDTH, MARGIN, GAP, HEADER, CAPTION = 1600, 28, 14, 74, 26
MAX_IMAGES = 4
SIDES = ((-90.0, 30.0, "as the camera looks"), (-35.0, 35.0, "from the right"), (-90.0, 75.0, "from above"))
"""Azimuth and elevation of the sides in degrees: the world's y axis points ahead of the camera."""


def scene_sheet(observation: SceneObservation, scene: Scene) -> UInt8Array:
    """(H, 1600, 3) RGB: the pictures with their masks, then the scene from three sides, its objects in turn."""
    images = observation.images[:MAX_IMAGES]
    width = (WIDTH - 2 * MARGIN - GAP) // 2
    cell = (width - GAP) // 2 if len(images) > 1 else width
    heights = [max(1, round(cell * image.shape[0] / image.shape[1])) for image in images]
    columns = 2 if len(images) > 1 else 1
    rows = [max(heights[i : i + columns]) for i in range(0, len(heights), columns)]
    left_height = sum(rows) + CAPTION * len(rows)
    hero = max(round(width * 0.72), 360)
    small = (width - GAP) // 2
    right_height = hero + CAPTION + round(small * 0.72) + CAPTION
    notes = [line for text in scene.warnings[:6] for line in wrapped(text, 15, WIDTH - 2 * MARGIN)]
    body = max(left_height, right_height)
    canvas = Canvas(WIDTH, HEADER + body + 22 * len(notes) + MARGIN)
    _header(canvas, observation, scene)
    names = [label or f"#{id}" for id, label in zip(observation.ids, observation.labels, strict=True)]
    colors = [object_color(n) for n in range(len(names))]
    top = HEADER
    for index, (image, masks) in enumerate(zip(images, observation.masks, strict=False)):
        marked = annotated_image(image, list(masks), [], colors, names, cell, heights[index])
        canvas.paste(marked, (MARGIN + (index % columns) * (cell + GAP), top), radius=8)
        if index % columns == columns - 1:
            top += rows[index // columns] + CAPTION
    left = MARGIN + width + GAP
    chips = dict(zip(observation.ids, zip(names, colors, strict=True), strict=True))
    _renders(canvas, scene, chips, left, width, hero, small)
    for row, line in enumerate(notes):
        canvas.text((MARGIN, HEADER + body + 22 * row), line, 15, MUTED)
    return canvas.pixels


def _header(canvas: Canvas, observation: SceneObservation, scene: Scene) -> None:
    count = len(scene.objects)
    canvas.text((MARGIN, 20), f"{count} of {len(observation.ids)} objects, generated together", 28)
    unit = "metres" if scene.metric else "size in metres unknown"
    seconds = scene.timings_s.get("total", math.nan)
    canvas.text((WIDTH - MARGIN, 30), fitted(f"{unit} · {seconds:.1f} s", 17, 700), 17, MUTED, anchor="ra")
    canvas.line((MARGIN, HEADER - 12), (WIDTH - MARGIN, HEADER - 12), FAINT)


def _renders(
    canvas: Canvas, scene: Scene, chips: Mapping[int, tuple[str, Color]], left: int, width: int, hero: int, small: int
) -> None:
    """The scene from its sides; in the first, objects are named as in the pictures."""
    if not scene.objects:
        canvas.text((left + width // 2, HEADER + hero // 2), "no objects came out", 22, MUTED, anchor="mm")
        return
    meshes = [transformed(item.mesh, item.T_world_object) for item in scene.objects]
    points = np.concatenate([mesh.vertices for mesh in meshes])
    support = scene.support
    if support is None and scene.frame_id == "scene":
        support = SupportPlane(np.array([0.0, 0.0, 1.0]), -float(points[:, 2].min()))
    small_height = round(small * 0.72)
    places = [(left, HEADER, width, hero)]
    places += [(left + k * (small + GAP), HEADER + hero + CAPTION, small, small_height) for k in (0, 1)]
    for (azimuth, elevation, text), (x, y, wide, high) in zip(SIDES, places, strict=True):
        T, intrinsics = orbit_camera(points, math.radians(azimuth), math.radians(elevation), wide, high)
        canvas.paste(render_meshes(meshes, T, intrinsics, support), (x, y), radius=8)
        canvas.text((x + 2, y + high + 4), text, 14, MUTED)
        if wide == width:
            centers = np.stack([item.T_world_object[:3, 3] for item in scene.objects])
            at, _ = project(transforms.apply(transforms.inverse(T), centers), intrinsics)
            for item, (column, row) in zip(scene.objects, at, strict=True):
                name, color = chips[item.id]
                canvas.chip((x + round(float(column)) - 12, y + round(float(row)) - 8), name, 12, color)
