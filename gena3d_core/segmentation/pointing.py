"""Prompts from places in the world: points that a user clicked, and objects that are known from before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..geometry import camera, transforms
from ..types import BoolArray, BoxPrompt, PointPrompt, ReconstructedObject, View

NEAR_M = 0.03
NEAR_SHARE = 0.02
"""A view sees a place when its depth there differs by at most so much, plus this share of the distance."""
LEAST_SEEN, LEAST_SEEN_SHARE = 3, 0.02
"""Of a mesh's vertices and triangles, a view must see so many to be asked for the object."""
MARGIN_SHARE = 0.03
"""What a box around known vertices is wider on each side: meshes are smoother than outlines."""


def click_prompts(
    views: Sequence[View], points_m: np.ndarray | Sequence[Sequence[float]], labels: Sequence[str] = ()
) -> list[PointPrompt]:
    """A click for each of points_m (N, 3), world, in the view that sees its place from nearest by.

    Views without depth are trusted to see what lies in their image. Raises `InputError` for a place that no view
    sees, or that is not finite.
    """
    places_m = np.asarray(points_m, dtype=np.float64).reshape(-1, 3)
    if not np.isfinite(places_m).all():
        raise InputError(f"clicked points must be finite, got {places_m.tolist()}")
    seen = [_seen(view, places_m) for view in views]
    prompts = []
    for number, place in enumerate(places_m):
        distances = [depth_m[number] if visible[number] else np.inf for _, depth_m, visible in seen]
        if not np.isfinite(distances).any():
            where = ", ".join(f"{value:.3f}" for value in place)
            raise InputError(
                f"no view sees the clicked point ({where}) m of the world frame: it lies outside of all images, or "
                "something is in front of it"
            )
        view = int(np.argmin(distances))
        u, v = seen[view][0][number]
        label = labels[number] if number < len(labels) else ""
        prompts.append(PointPrompt(views[view].name, ((float(u), float(v)),), label=label))
    return prompts


def object_boxes(views: Sequence[View], objects: Sequence[ReconstructedObject]) -> list[BoxPrompt]:
    """A box for each object, around what is seen of its mesh in the view that sees most of it.

    Raises `InputError` for an object that no view sees.
    """
    prompts = []
    for item in objects:
        points_m = transforms.apply(item.T_world_object, _mesh_points(item))
        seen = [_seen(view, points_m) for view in views]
        counts = [int(visible.sum()) for _, _, visible in seen]
        best = int(np.argmax(counts)) if counts else 0
        if not counts or counts[best] < max(LEAST_SEEN, LEAST_SEEN_SHARE * len(points_m)):
            raise InputError(
                f"object {item.id} is seen in none of the {len(views)} views: it cannot be asked for again"
            )
        pixels = seen[best][0][seen[best][2]]
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        margin = 1.0 + MARGIN_SHARE * (high - low)
        limit = (views[best].intrinsics.width - 1.0, views[best].intrinsics.height - 1.0)
        (x_min, y_min), (x_max, y_max) = np.maximum(low - margin, 0.0), np.minimum(high + margin, limit)
        box = (float(x_min), float(y_min), float(x_max), float(y_max))
        prompts.append(BoxPrompt(views[best].name, box, item.label))
    return prompts


def _mesh_points(item: ReconstructedObject) -> np.ndarray:
    """(N, 3) vertices and middles of triangles in the object's frame: meshes of flat sides have few vertices."""
    vertices = item.mesh.vertices.astype(np.float64)
    return np.concatenate([vertices, vertices[item.mesh.faces].mean(axis=1).reshape(-1, 3)])


def _seen(view: View, points_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, BoolArray]:
    """Pixels (N, 2) and depth (N,) of places (N, 3), and whether the view sees them (N,)."""
    in_camera = transforms.apply(transforms.inverse(view.T_world_camera), points_m)
    pixels, depth_m = camera.project(in_camera, view.intrinsics)
    rows, cols, _, inside = camera.pixel_index(points_m, view)
    if view.depth_m is None:
        return pixels, depth_m, inside
    measured = view.depth_m[rows, cols]
    with np.errstate(invalid="ignore"):
        near = np.abs(measured - depth_m) <= NEAR_M + NEAR_SHARE * np.abs(depth_m)
    return pixels, depth_m, inside & near
