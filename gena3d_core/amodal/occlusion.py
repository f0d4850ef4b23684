"""Occlusion masks: pixels where a nearer surface hides what an object likely extends to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ..errors import InputError
from ..geometry import camera, transforms
from ..geometry.mesh import sphere_directions
from ..types import BoolArray, Float32Array, SupportPlane, View

NEARER_M = 0.01
"""A measured surface hides the extent if it lies at least this much in front of it."""
HULL_DIRECTIONS = 128
MAX_HULL_POINTS = 20_000
MIN_DEPTH_M = 0.02
"""Hull vertices nearer to the camera plane than this cannot be projected; such a view is left without a mask."""


@dataclass(frozen=True)
class OcclusionPair:
    """`occluder` covers `pixels` of the likely extent of object `hidden` in view number `view`."""

    hidden: int
    occluder: int
    view: int
    pixels: int


def likely_extent(points_m: np.ndarray, support: SupportPlane | None) -> ConvexHull | None:
    """Convex hull of the observed points (N, 3) and of their vertical shadows on the support; None if it is flat."""
    points = np.asarray(points_m, dtype=np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if support is not None and len(points):
        height = points @ support.normal + support.offset_m
        points = np.concatenate([points, points - height[:, None] * support.normal])
    if not len(points):
        return None
    # The extreme points in fixed directions hold all of the hull but slivers, with far fewer facets to intersect.
    thinned = points[:: max(1, len(points) // MAX_HULL_POINTS)]
    extreme = np.unique((thinned @ sphere_directions(HULL_DIRECTIONS).T).argmax(axis=0))
    points = thinned[extreme]
    try:
        return ConvexHull(points)
    except (QhullError, ValueError):
        return None


def occlusion_masks(
    views: Sequence[View],
    visible_masks: Sequence[np.ndarray],
    points_m: np.ndarray,
    support: SupportPlane | None,
    nearer_m: float = NEARER_M,
) -> tuple[BoolArray, ...]:
    """Per view (H, W) bool: pixels in the outline of the object's likely extent that a nearer surface covers.

    The likely extent is `likely_extent(points_m, support)`, in the world. A pixel counts if it is not visible (in
    `visible_masks`, (H, W) each) and its measured depth lies more than `nearer_m` before the extent's front. Views
    without depth, and points that span no volume, give empty masks. Raises `InputError` if masks and views differ.
    """
    if len(views) != len(visible_masks):
        raise InputError(f"{len(views)} views need as many masks, got {len(visible_masks)}")
    hull = likely_extent(points_m, support)
    return tuple(_occluded(view, visible, hull, nearer_m) for view, visible in zip(views, visible_masks, strict=True))


def _occluded(view: View, visible: np.ndarray, hull: ConvexHull | None, nearer_m: float) -> BoolArray:
    empty = np.zeros((view.intrinsics.height, view.intrinsics.width), dtype=bool)
    if hull is None or view.depth_m is None:
        return empty
    T_camera_world = transforms.inverse(view.T_world_camera)
    corners = transforms.apply(T_camera_world, hull.points[hull.vertices])
    if corners[:, 2].min() < MIN_DEPTH_M:
        return empty
    uv, _ = camera.project(corners, view.intrinsics)
    outline = cv2.convexHull(np.clip(np.round(uv), -30_000, 30_000).astype(np.int32))
    filled = cv2.fillConvexPoly(empty.astype(np.uint8), outline, 1).astype(bool)
    with np.errstate(invalid="ignore"):
        rows, cols = np.nonzero(filled & ~visible & (view.depth_m < corners[:, 2].max()))
    if not len(rows):
        return empty
    front = front_depth(hull, view.T_world_camera, camera.pixel_rays(view.intrinsics)[rows, cols])
    hidden = view.depth_m[rows, cols] < front - nearer_m
    empty[rows[hidden], cols[hidden]] = True
    return empty


def front_depth(hull: ConvexHull, T_world_camera: np.ndarray, rays: np.ndarray) -> Float32Array:
    """(N,) depth at which camera rays (N, 3, z = 1) enter a convex hull given in the world; NaN where they miss."""
    equations = np.unique(hull.equations.round(9), axis=0)
    speed = (rays @ (equations[:, :3] @ T_world_camera[:3, :3]).T.astype(np.float32)).astype(np.float32)
    start = (equations[:, :3] @ T_world_camera[:3, 3] + equations[:, 3]).astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -start / speed
    enter = np.where(speed < 0, crossing, -np.inf).max(axis=1)
    leave = np.where(speed > 0, crossing, np.inf).min(axis=1)
    # Outline pixels may miss by rounding: their front is where the ray passes closest, about the same depth.
    return np.where(enter <= leave * 1.02, enter, np.nan)


def occlusion_pairs(
    ids: Sequence[int],
    visible_masks: Sequence[Sequence[np.ndarray]],
    occlusions: Sequence[Sequence[np.ndarray]],
    min_pixels: int = 1,
) -> list[OcclusionPair]:
    """Who hides whom: for each view, which objects' visible pixels lie on which objects' occlusion masks.

    ids (N,), masks [object][view] of (H, W) bool. Sorted by hidden object, occluder, view.
    """
    if not ids:
        return []
    pairs = []
    for view in range(len(visible_masks[0])):
        visible = np.stack([masks[view].reshape(-1) for masks in visible_masks]).astype(np.float32)
        hidden = np.stack([masks[view].reshape(-1) for masks in occlusions]).astype(np.float32)
        pixels = hidden @ visible.T
        np.fill_diagonal(pixels, 0.0)
        pairs += [
            OcclusionPair(ids[row], ids[col], view, int(pixels[row, col]))
            for row, col in np.argwhere(pixels >= max(min_pixels, 1))
        ]
    return sorted(pairs, key=lambda pair: (pair.hidden, pair.occluder, pair.view))
