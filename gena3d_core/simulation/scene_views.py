"""Pictures of whole scenes with everything that is known of them: depth, instances, how much of each object is seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.camera import pixel_rays
from ..types import Float32Array, Float64Array, Int32Array, Intrinsics, Mesh, SupportPlane, UInt8Array
from .appearance import random_light
from .noise import color_noise
from .quick_parts import object_part, table_part
from .quick_renderer import OBJECT, QuickScene, quick_scene, random_backdrop, render_quick
from .ray_casting import RayCaster, make_caster
from .scene_layout import SceneCamera

Range = tuple[float, float]
STRIDE = 2
"""Only every so many-th row and column is cast at each object alone, to tell how much of it is hidden."""


@dataclass(frozen=True)
class SceneViewSettings:
    """How scenes are pictured; what is given as a range (low, high) is drawn for each view.

    image_width, image_height   pixels
    elevation_deg               of cameras over the horizon
    field_of_view_deg           of the wider side of the image
    fill                        diameter of the scene's ball in narrower sides of the image
    spread_deg                  how far the azimuths of further views may be off an even distribution
    recolor_share               probability that an object gets another texture; objects of one colour always do
    color_sigma                 noise of the colours, of 255
    """

    image_width: int = 320
    image_height: int = 240
    elevation_deg: Range = (15.0, 55.0)
    field_of_view_deg: Range = (35.0, 65.0)
    fill: Range = (0.75, 1.05)
    spread_deg: float = 30.0
    recolor_share: float = 0.3
    color_sigma: float = 1.5

    def __post_init__(self) -> None:
        if min(self.image_width, self.image_height) < 16:
            raise InputError(f"images must have 16 pixels a side, got {self.image_width}x{self.image_height}")
        limits = {"elevation_deg": (1.0, 85.0), "field_of_view_deg": (5.0, 120.0), "fill": (0.1, 3.0)}
        for name, (low, high) in limits.items():
            ends = getattr(self, name)
            if not low <= ends[0] <= ends[1] <= high:
                raise InputError(f"{name} must be a range within {low:g} .. {high:g}, got {ends}")


@dataclass(frozen=True, eq=False)
class SceneView:
    """One picture of a scene of N objects.

    color      (H, W, 3) uint8 with noise; depth_m (H, W) float32 without, along the optical axis, NaN = background
    instances  (H, W) int32: -1 background, 0 support, i + 1 the object i
    visibility (N,) share of the pixels inside the image that each object would have alone
    pixels     (N,) int32: visible pixels of each object
    """

    camera: SceneCamera
    color: UInt8Array
    depth_m: Float32Array
    instances: Int32Array
    visibility: Float64Array
    pixels: Int32Array


def draw_cameras(
    meshes: Sequence[Mesh], count: int, settings: SceneViewSettings, rng: np.random.Generator
) -> list[SceneCamera]:
    """`count` cameras around the objects (world, metres, z up) that look at their middle from all sides."""
    points = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float64)
    center = (points.min(axis=0) + points.max(axis=0)) / 2.0
    radius = float(np.linalg.norm(points - center, axis=1).max())
    first = rng.uniform(0.0, 2.0 * np.pi)
    cameras = []
    for number in range(count):
        spread = 0.0 if number == 0 else np.deg2rad(rng.uniform(-settings.spread_deg, settings.spread_deg))
        azimuth = first + 2.0 * np.pi * number / count + spread
        elevation = np.deg2rad(rng.uniform(*settings.elevation_deg))
        width, height = settings.image_width, settings.image_height
        focal = 0.5 * max(width, height) / np.tan(0.5 * np.deg2rad(rng.uniform(*settings.field_of_view_deg)))
        half_angle = np.arctan(0.5 * min(width, height) / focal)
        distance = radius / np.sin(half_angle) / rng.uniform(*settings.fill)
        direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
        target = center + rng.uniform(-0.1, 0.1, 3) * radius
        T = transforms.look_at(center + max(distance, 1.2 * radius) * np.array(direction), target)
        intrinsics = Intrinsics(width, height, float(focal), float(focal), (width - 1) / 2.0, (height - 1) / 2.0)
        cameras.append(SceneCamera(T, intrinsics))
    return cameras


def resized_camera(camera: SceneCamera, longer_side: int) -> SceneCamera:
    """The camera with images of that longer side, in pixels, and the same field of view."""
    given = camera.intrinsics
    scale = longer_side / max(given.width, given.height)
    width, height = (max(1, round(side * scale)) for side in (given.width, given.height))
    x, y = width / given.width, height / given.height
    intrinsics = Intrinsics(
        width, height, given.fx * x, given.fy * y, (given.cx + 0.5) * x - 0.5, (given.cy + 0.5) * y - 0.5
    )
    return SceneCamera(camera.T_world_camera, intrinsics)


def render_scene_views(
    meshes: Sequence[Mesh],
    support: SupportPlane | None,
    cameras: Sequence[SceneCamera],
    settings: SceneViewSettings,
    rng: np.random.Generator,
) -> list[SceneView]:
    """Pictures of objects (world, metres, z up) with random looks, one lamp and backdrop for all cameras.

    The support must be horizontal; it shows as a table. Raises `InputError` for another one or without objects.
    """
    if not meshes:
        raise InputError("a scene without objects cannot be pictured")
    size = max(float(np.ptp(mesh.vertices, axis=0).max()) for mesh in meshes)
    low, high = mesh_ops.bounds(mesh_ops.concatenate([Mesh(mesh.vertices, mesh.faces) for mesh in meshes]))
    spread = max(float((high - low).max()) / 2.0, size)
    parts = [
        object_part(mesh, OBJECT + number, float(np.ptp(mesh.vertices, axis=0).max()), settings.recolor_share, rng)
        for number, mesh in enumerate(meshes)
    ]
    if support is not None:
        if support.normal[2] < 1.0 - 1e-6:
            raise InputError(f"the support must be horizontal, got the normal {support.normal.tolist()}")
        parts.append(table_part(spread, rng, -float(support.offset_m)))
    scene = quick_scene(parts, random_light(rng))
    casters = [make_caster(mesh.vertices, mesh.faces) for mesh in meshes]
    return [_view(scene, casters, camera, settings, rng) for camera in cameras]


def _view(
    scene: QuickScene,
    casters: Sequence[RayCaster],
    camera: SceneCamera,
    settings: SceneViewSettings,
    rng: np.random.Generator,
) -> SceneView:
    intrinsics, T = camera.intrinsics, camera.T_world_camera
    backdrop = random_backdrop(intrinsics.width, intrinsics.height, rng)
    image = render_quick(scene, T, intrinsics, backdrop)
    rays = pixel_rays(intrinsics)[::STRIDE, ::STRIDE].reshape(-1, 3) @ T[:3, :3].T.astype(np.float32)
    eyes = np.broadcast_to(T[:3, 3].astype(np.float32), rays.shape)
    shown = image.instance[::STRIDE, ::STRIDE].reshape(-1)
    whole = np.array([(caster(eyes, rays).face >= 0).sum() for caster in casters])
    seen = np.array([(shown == OBJECT + number).sum() for number in range(len(casters))])
    pixels = np.bincount(image.instance.reshape(-1) + 1, minlength=len(casters) + 2)[2:]
    return SceneView(
        camera,
        color_noise(image.color, rng, settings.color_sigma),
        image.depth_m,
        image.instance,
        np.minimum(seen / np.maximum(whole, 1), 1.0),
        pixels.astype(np.int32),
    )
