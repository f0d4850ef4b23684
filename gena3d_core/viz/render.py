"""Pictures of meshes on their support plane: soft light, shadows on the plane, a grid of 10 cm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..geometry import camera, transforms
from ..geometry.mesh import concatenate, vertex_normals
from ..types import Float32Array, Int32Array, Intrinsics, Mesh, SupportPlane, UInt8Array
from .rasterizer import Fragments, rasterize

SUPERSAMPLING = 2
GRID_M = 0.1
_SHADOW_PIXELS = 384


@dataclass(frozen=True, eq=False)
class RenderStyle:
    """Colours in [0, 1] and the light's direction (towards the light, camera frame: x right, y down, z forward)."""

    background: tuple[float, float, float] = (0.975, 0.978, 0.982)
    ground: tuple[float, float, float] = (0.905, 0.915, 0.925)
    light_camera: tuple[float, float, float] = (-0.45, -0.75, -0.5)
    shadow: float = 0.5


def render_meshes(
    meshes: Sequence[Mesh],
    T_world_camera: np.ndarray,
    intrinsics: Intrinsics,
    support: SupportPlane | None = None,
    style: RenderStyle | None = None,
) -> UInt8Array:
    """(H, W, 3) uint8 RGB of `meshes` (world frame, metres; grey without vertex colours), antialiased."""
    style = style or RenderStyle()
    s = SUPERSAMPLING
    fine = Intrinsics(
        s * intrinsics.width,
        s * intrinsics.height,
        s * intrinsics.fx,
        s * intrinsics.fy,
        s * intrinsics.cx + (s - 1) / 2,
        s * intrinsics.cy + (s - 1) / 2,
    )
    light_world = T_world_camera[:3, :3] @ (np.array(style.light_camera) / np.linalg.norm(style.light_camera))
    light_world[2] = max(light_world[2], 0.5)
    light_world /= np.linalg.norm(light_world)
    picture: np.ndarray = np.empty((intrinsics.height, intrinsics.width, 3), dtype=np.float32)
    picture[:] = style.background
    whole = concatenate(meshes) if meshes else None
    if whole is not None:
        if support is not None:
            # Smooth as it is, the ground needs no supersampling.
            _paint_ground(picture, whole, T_world_camera, intrinsics, support, light_world, style)
        picture = cv2.resize(picture, (fine.width, fine.height), interpolation=cv2.INTER_LINEAR)
        _paint_meshes(picture, whole, fragments_of(whole, T_world_camera, fine), T_world_camera, light_world)
    small = cv2.resize(picture, (intrinsics.width, intrinsics.height), interpolation=cv2.INTER_AREA)
    return (np.clip(small, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def fragments_of(mesh: Mesh, T_world_camera: np.ndarray, intrinsics: Intrinsics) -> Fragments:
    """What each pixel of a camera sees of `mesh` (world frame)."""
    points = transforms.apply(transforms.inverse(T_world_camera), mesh.vertices)
    uv, z = camera.project(points, intrinsics)
    return rasterize(uv, z, mesh.faces, intrinsics.width, intrinsics.height)


def instance_map(meshes: Sequence[Mesh], T_world_camera: np.ndarray, intrinsics: Intrinsics) -> Int32Array:
    """(H, W) int32: index of the mesh that each pixel sees, -1 = none."""
    if not meshes:
        return np.full((intrinsics.height, intrinsics.width), -1, dtype=np.int32)
    owner = np.repeat(np.arange(len(meshes), dtype=np.int32), [len(mesh.faces) for mesh in meshes])
    face = fragments_of(concatenate([_bare(mesh) for mesh in meshes]), T_world_camera, intrinsics).face
    return np.where(face >= 0, owner[np.maximum(face, 0)], -1).astype(np.int32)


def _bare(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces)


def _paint_meshes(
    picture: np.ndarray, mesh: Mesh, fragments: Fragments, T_world_camera: np.ndarray, light_world: np.ndarray
) -> None:
    rows, cols = np.nonzero(fragments.face >= 0)
    if not len(rows):
        return
    corners = mesh.faces[fragments.face[rows, cols]]
    weights = fragments.weights[rows, cols]
    colors = np.full((len(mesh.vertices), 3), 190, np.uint8) if mesh.vertex_colors is None else mesh.vertex_colors
    linear = (np.arange(256, dtype=np.float32) / 255.0) ** 2.2
    attributes = np.hstack([linear[colors], vertex_normals(mesh), mesh.vertices]).astype(np.float32)
    a, b, c = (attributes[corners[:, k]] * weights[:, k : k + 1] for k in range(3))
    blended = a + b + c
    albedo, normals, points = blended[:, :3], blended[:, 3:6], blended[:, 6:]
    normals = _unit(normals)
    to_eye = _unit(T_world_camera[:3, 3].astype(np.float32) - points)
    facing = np.einsum("nk,nk->n", normals, to_eye)
    # An open surface shows its back: light it as if it faced the camera.
    normals *= np.where(facing < 0, np.float32(-1), np.float32(1))[:, None]
    light_world = light_world.astype(np.float32)
    key = np.clip(normals @ light_world, 0.0, 1.0)
    sky = 0.5 + 0.5 * normals[:, 2]
    shine = 0.06 * np.clip(np.einsum("nk,nk->n", normals, _unit(light_world + to_eye)), 0.0, 1.0) ** 24
    light = (0.62 * key + 0.34 * sky + 0.22 * np.abs(facing)) * _crevices(fragments.depth)[rows, cols]
    picture[rows, cols] = np.clip(albedo * light[:, None] + shine[:, None], 0.0, 1.0) ** np.float32(1 / 2.2)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.sqrt(np.einsum("nk,nk->n", vectors, vectors))
    return vectors / np.maximum(length, np.float32(1e-9))[:, None]


def _crevices(depth: np.ndarray) -> Float32Array:
    """(H, W) factor that darkens what lies behind its surroundings: ambient occlusion by eye, not by physics."""
    covered = np.isfinite(depth)
    if not covered.any():
        return np.ones(depth.shape, dtype=np.float32)
    flat = np.where(covered, depth, 0.0).astype(np.float32)
    sigma = depth.shape[0] / 60
    total = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), sigma)
    blurred = cv2.GaussianBlur(flat, (0, 0), sigma) / np.maximum(total, 1e-6)
    scale = 0.03 * np.median(depth[covered])
    return (1.0 - 0.45 * np.clip((flat - blurred) / scale, 0.0, 1.0)).astype(np.float32)


def _paint_ground(
    picture: np.ndarray,
    mesh: Mesh,
    T_world_camera: np.ndarray,
    intrinsics: Intrinsics,
    support: SupportPlane,
    light_world: np.ndarray,
    style: RenderStyle,
) -> None:
    """The support plane as a disc that fades out, with grid lines and the meshes' shadows."""
    normal, offset = np.asarray(support.normal, dtype=np.float32), np.float32(support.offset_m)
    rays = camera.pixel_rays(intrinsics) @ T_world_camera[:3, :3].T.astype(np.float32)
    eye = T_world_camera[:3, 3].astype(np.float32)
    steepness = rays @ normal
    with np.errstate(divide="ignore", invalid="ignore"):
        reach = -(eye @ normal + offset) / steepness
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    center, radius = (low + high) / 2, float(np.linalg.norm((high - low)[:2])) / 2 + 0.12
    hit = np.isfinite(reach) & (reach > 0) & (eye @ normal + offset > 0)
    ground = eye + rays * np.where(hit, reach, 0.0)[..., None]
    from_center = np.linalg.norm(ground[..., :2] - center[:2], axis=-1) / radius
    fade = np.where(hit, np.clip((1.9 - from_center) / 0.9, 0.0, 1.0), 0.0)[..., None]
    color = np.broadcast_to(np.array(style.ground, dtype=np.float32), picture.shape)
    color = color * (1.0 - 0.06 * _grid_lines(ground[..., :2], reach / intrinsics.fx)[..., None])
    contact = _cast_shadow(mesh, support, normal.astype(np.float64), center, radius, 0.012)
    lit = _cast_shadow(mesh, support, light_world, center, radius, 0.008)
    shade = np.maximum(0.55 * _sample(contact, ground, center, radius), _sample(lit, ground, center, radius))
    color = color * (1.0 - style.shadow * shade[..., None])
    picture[:] = picture * (1 - fade) + color * fade


def _grid_lines(xy_m: np.ndarray, pixel_m: np.ndarray) -> Float32Array:
    """(H, W) in [0, 1]: 1 on lines every `GRID_M`, about 1.5 pixels wide."""
    from_line = np.abs((xy_m / GRID_M + 0.5) % 1.0 - 0.5) * GRID_M
    with np.errstate(invalid="ignore"):
        return np.clip(1.2 - from_line.min(axis=-1) / np.maximum(0.7 * np.abs(pixel_m), 1e-6), 0.0, 1.0)


def _cast_shadow(
    mesh: Mesh, support: SupportPlane, towards_light: np.ndarray, center: np.ndarray, radius: float, blur_m: float
) -> Float32Array:
    """Shadow map (N, N) of `mesh` on the plane around `center`, for parallel light; 1 = dark."""
    slope = max(float(towards_light @ support.normal), 0.2)
    height = np.maximum(support.height_m(mesh.vertices.astype(np.float64)), 0.0)
    on_plane = mesh.vertices - (height / slope)[:, None] * towards_light
    pixels_per_m = _SHADOW_PIXELS / (4 * radius)
    xy = (on_plane[:, :2] - center[:2]) * pixels_per_m + _SHADOW_PIXELS / 2
    covered = rasterize(xy, np.ones(len(xy)), mesh.faces, _SHADOW_PIXELS, _SHADOW_PIXELS).face >= 0
    blurred = cv2.GaussianBlur(covered.astype(np.float32), (0, 0), max(blur_m * pixels_per_m, 0.8))
    return np.asarray(blurred, dtype=np.float32)


def _sample(shadow: np.ndarray, ground_m: np.ndarray, center: np.ndarray, radius: float) -> np.ndarray:
    uv = ((ground_m[..., :2] - center[:2]) * (_SHADOW_PIXELS / (4 * radius)) + _SHADOW_PIXELS / 2).astype(np.float32)
    return cv2.remap(shadow, uv[..., 0], uv[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
