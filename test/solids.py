"""Spheres, boxes and cylinders seen by ideal depth cameras: exact ray formulas, exact masks, known distances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gena3d_core.geometry import camera, transforms
from gena3d_core.types import Intrinsics, ObjectObservation, SupportPlane, View

INTRINSICS = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
TABLE = SupportPlane(np.array([0.0, 0.0, 1.0]), 0.0)
COLORS = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200]], dtype=np.uint8)
TABLE_COLOR = np.array([90, 90, 90], dtype=np.uint8)


@dataclass(frozen=True)
class Sphere:
    center: tuple[float, float, float]
    radius: float

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        offset = origin - np.array(self.center)
        a, b = (direction**2).sum(axis=1), direction @ offset
        q = b * b - a * (offset @ offset - self.radius**2)
        return np.where(q > 0, (-b - np.sqrt(np.maximum(q, 0))) / a, np.inf)

    def distance(self, points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - np.array(self.center), axis=1) - self.radius


@dataclass(frozen=True)
class Box:
    center: tuple[float, float, float]
    half: tuple[float, float, float]

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            low = (np.array(self.center) - self.half - origin) / direction
            high = (np.array(self.center) + self.half - origin) / direction
        enter, leave = np.minimum(low, high).max(axis=1), np.maximum(low, high).min(axis=1)
        return np.where((enter <= leave) & (enter > 0), enter, np.inf)

    def distance(self, points: np.ndarray) -> np.ndarray:
        q = np.abs(points - np.array(self.center)) - self.half
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


@dataclass(frozen=True)
class Cylinder:
    """Upright; `base` is the centre of its bottom."""

    base: tuple[float, float, float]
    radius: float
    height: float

    def hit(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray:
        offset = origin - np.array(self.base)
        flat = direction[:, :2]
        a, b = (flat**2).sum(axis=1), flat @ offset[:2]
        q = b * b - a * (offset[:2] @ offset[:2] - self.radius**2)
        side = np.where(q > 0, (-b - np.sqrt(np.maximum(q, 0))) / a, np.inf)
        with np.errstate(invalid="ignore"):
            z = offset[2] + side * direction[:, 2]
        side = np.where((z >= 0) & (z <= self.height) & (side > 0), side, np.inf)
        top = (self.height - offset[2]) / direction[:, 2]
        on_top = ((offset[:2] + top[:, None] * flat) ** 2).sum(axis=1) < self.radius**2
        return np.minimum(side, np.where(on_top & (top > 0), top, np.inf))

    def distance(self, points: np.ndarray) -> np.ndarray:
        local = points - np.array(self.base)
        q = np.stack(
            [np.hypot(local[:, 0], local[:, 1]) - self.radius, np.abs(local[:, 2] - self.height / 2) - self.height / 2],
            axis=1,
        )
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)


Solid = Sphere | Box | Cylinder


def ring(count: int, distance: float = 0.6, elevation_deg: float = 35.0, start_deg: float = 20.0) -> np.ndarray:
    """(count, 3) eyes around the origin."""
    azimuth = np.radians(start_deg + np.arange(count) * 360.0 / count)
    elevation = np.radians(elevation_deg)
    return distance * np.stack(
        [
            np.cos(azimuth) * np.cos(elevation),
            np.sin(azimuth) * np.cos(elevation),
            np.full(count, np.sin(elevation)),
        ],
        axis=1,
    )


def render(
    solids: Sequence[Solid], eye: Sequence[float], target: Sequence[float], table: bool = True, name: str = "view"
) -> tuple[View, np.ndarray]:
    """A view of solids on the table z = 0, and (H, W) int: the solid at each pixel, -1 elsewhere."""
    T = transforms.look_at(eye, target)
    direction = camera.pixel_rays(INTRINSICS).reshape(-1, 3).astype(np.float64) @ T[:3, :3].T
    with np.errstate(divide="ignore"):
        floor = -T[2, 3] / direction[:, 2]
    nearest = np.where(table & (floor > 0), floor, np.inf)
    index = np.full(len(direction), -1)
    for number, solid in enumerate(solids):
        hit = solid.hit(T[:3, 3], direction)
        index[hit < nearest] = number
        nearest = np.minimum(nearest, hit)
    shape = (INTRINSICS.height, INTRINSICS.width)
    depth_m = np.where(np.isfinite(nearest), nearest, np.nan).astype(np.float32).reshape(shape)
    index = index.reshape(shape)
    color = np.where(index[..., None] >= 0, COLORS[index % len(COLORS)], TABLE_COLOR)
    return View(color, INTRINSICS, T, depth_m, name=name), index


def observe(
    solids: Sequence[Solid],
    eyes: Sequence[Sequence[float]],
    number: int = 0,
    target: Sequence[float] = (0.0, 0.0, 0.03),
    support: SupportPlane | None = TABLE,
    depth_noise: float = 0.0,
) -> ObjectObservation:
    """What perfect segmentation sees of solid `number`; `depth_noise` times squared depth is added (sigma, metres)."""
    rng = np.random.default_rng(0)
    rendered = [render(solids, eye, target, name=f"view{n}") for n, eye in enumerate(eyes)]
    views, masks = [], []
    for view, index in rendered:
        noisy = view.depth_m + rng.normal(size=view.depth_m.shape) * depth_noise * view.depth_m**2
        views.append(View(view.color, view.intrinsics, view.T_world_camera, noisy.astype(np.float32), name=view.name))
        masks.append(index == number)
    points = [camera.world_points(view)[mask] for view, mask in zip(views, masks, strict=True)]
    return ObjectObservation(
        id=number,
        label=type(solids[number]).__name__.lower(),
        score=0.9,
        views=tuple(views),
        visible_masks=tuple(masks),
        occlusion_masks=tuple(np.zeros_like(mask) for mask in masks),
        points_m=np.concatenate(points).astype(np.float32),
        point_colors=np.concatenate([v.color[m] for v, m in zip(views, masks, strict=True)]),
        point_view=np.repeat(np.arange(len(views)), [len(p) for p in points]).astype(np.int32),
        support=support,
    )
