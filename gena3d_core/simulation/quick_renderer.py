"""Pictures of scenes that are seen once: nothing is baked, one ray a pixel and one shadow ray a hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from ..geometry import mesh as meshes
from ..geometry import transforms
from ..geometry.camera import pixel_rays
from ..types import Float32Array, Float64Array, Int32Array, Intrinsics, Mesh, UInt8Array
from .parts import display_color
from .ray_casting import Hits, RayCaster, make_caster
from .renderer import corner_normals
from .textures import RGB, Texture, evaluate

BACKGROUND = -1
TABLE = 0
OBJECT = 1
GLOSS_POWER = 24


@dataclass(frozen=True, eq=False)
class QuickPart:
    """A mesh in the world, metres; coloured by `texture` at S_texture_world applied to the points, or by its vertices.

    instance  value in the instance image
    """

    mesh: Mesh
    instance: int
    texture: Texture | None = None
    S_texture_world: Float64Array | None = None


@dataclass(frozen=True)
class QuickLight:
    """One lamp far away and light from all around.

    direction  (3,) unit vector towards the lamp; strength, ambient: their light; color: RGB of the lamp
    """

    direction: tuple[float, float, float] = (0.3, 0.2, 0.93)
    strength: float = 0.7
    ambient: float = 0.5
    color: RGB = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class QuickScene:
    """Made by `quick_scene`. Faces count through all parts; those of part i start at first_face[i]."""

    parts: tuple[QuickPart, ...]
    light: QuickLight
    caster: RayCaster
    first_face: Int32Array
    face_part: Int32Array
    normals: Float32Array
    shadow_offset_m: float


@dataclass(frozen=True, eq=False)
class QuickImage:
    """One picture; faces count as in the scene.

    color (H, W, 3) uint8; depth_m (H, W) float32 along the optical axis, NaN on the background; normals (H, W, 3)
    float32, unit, world, NaN on the background; instance, face (H, W) int32, -1 = none
    """

    color: UInt8Array
    depth_m: Float32Array
    normals: Float32Array
    instance: Int32Array
    face: Int32Array


def quick_scene(parts: Sequence[QuickPart], light: QuickLight) -> QuickScene:
    """Scene ready to be pictured; raises `MissingDependencyError` without a ray casting engine."""
    world = meshes.concatenate([Mesh(part.mesh.vertices, part.mesh.faces) for part in parts])
    counts = [len(part.mesh.faces) for part in parts]
    return QuickScene(
        tuple(parts),
        light,
        make_caster(world.vertices, world.faces),
        np.cumsum([0, *counts[:-1]]).astype(np.int32),
        np.repeat(np.arange(len(parts), dtype=np.int32), counts),
        corner_normals(world, meshes.vertex_normals(world)),
        2e-3 * float(np.ptp(parts[0].mesh.vertices, axis=0).max()),
    )


def render_quick(
    scene: QuickScene, T_world_camera: np.ndarray, intrinsics: Intrinsics, backdrop: np.ndarray
) -> QuickImage:
    """The scene seen by a pinhole camera at `T_world_camera` (4, 4) before `backdrop` (H, W, 3) uint8."""
    eye = T_world_camera[:3, 3].astype(np.float32)
    directions = pixel_rays(intrinsics).reshape(-1, 3) @ T_world_camera[:3, :3].T.astype(np.float32)
    hits = scene.caster(np.broadcast_to(eye, directions.shape), directions)
    shape = (intrinsics.height, intrinsics.width)
    rows = np.flatnonzero(hits.face >= 0)
    color = backdrop.reshape(-1, 3).copy()
    instance = np.full(len(directions), BACKGROUND, dtype=np.int32)
    normals = np.full(directions.shape, np.nan, dtype=np.float32)
    if len(rows):
        seen = Hits(hits.face[rows], hits.distance[rows], hits.u[rows], hits.v[rows])
        weights = np.stack([1.0 - seen.u - seen.v, seen.u, seen.v], axis=1)
        normal = np.einsum("nk,nkc->nc", weights, scene.normals[seen.face])
        normals[rows] = normal / (np.linalg.norm(normal, axis=1, keepdims=True) + np.float32(1e-9))
        color[rows] = _shade(scene, eye, directions[rows], seen, weights, normals[rows])
        ids = np.array([part.instance for part in scene.parts], dtype=np.int32)
        instance[rows] = ids[scene.face_part[seen.face]]
    depth = np.where(hits.face >= 0, hits.distance, np.float32(np.nan)).astype(np.float32)
    return QuickImage(
        color.reshape(*shape, 3),
        depth.reshape(shape),
        normals.reshape(*shape, 3),
        instance.reshape(shape),
        hits.face.reshape(shape),
    )


def _shade(
    scene: QuickScene, eye: np.ndarray, directions: np.ndarray, hits: Hits, weights: np.ndarray, normal: np.ndarray
) -> UInt8Array:
    """(N, 3) colours of hits with barycentric `weights` (N, 3) and unit normals (N, 3)."""
    points = eye + directions * hits.distance[:, None]
    albedo = np.empty_like(points)
    gloss = np.zeros(len(points), dtype=np.float32)
    part_of = scene.face_part[hits.face]
    for index, part in enumerate(scene.parts):
        own = np.flatnonzero(part_of == index)
        if len(own):
            albedo[own] = _albedo(part, points[own], hits.face[own] - scene.first_face[index], weights[own])
            gloss[own] = 0.0 if part.texture is None else part.texture.gloss

    light = scene.light
    lamp = np.array(light.direction, dtype=np.float32)
    cosine = np.maximum(normal @ lamp, 0.0)
    lit = np.flatnonzero(cosine > 0)
    shadowed = scene.caster(points[lit] + normal[lit] * np.float32(scene.shadow_offset_m),
                            np.broadcast_to(lamp, (len(lit), 3)))  # fmt: skip
    cosine[lit[shadowed.face >= 0]] = 0.0
    sky = np.float32(light.ambient) * (np.float32(0.7) + np.float32(0.3) * normal[:, 2:])
    irradiance = sky + np.float32(light.strength) * cosine[:, None] * np.array(light.color, dtype=np.float32)
    view = -directions / np.linalg.norm(directions, axis=1, keepdims=True)
    half = view + lamp
    half /= np.linalg.norm(half, axis=1, keepdims=True) + np.float32(1e-6)
    shine = np.clip(np.einsum("nc,nc->n", half, normal), 0.0, 1.0) ** GLOSS_POWER * (cosine > 0) * gloss
    return display_color(albedo, irradiance, np.float32(light.strength) * shine[:, None])


def _albedo(part: QuickPart, points: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> Float32Array:
    if part.texture is not None:
        S = np.eye(4) if part.S_texture_world is None else part.S_texture_world
        return evaluate(part.texture, transforms.apply(S, points))
    if part.mesh.vertex_colors is None:
        return np.full_like(points, 0.7)
    corners = part.mesh.vertex_colors[part.mesh.faces[faces]] * np.float32(1.0 / 255.0)
    return np.einsum("nk,nkc->nc", weights, corners).astype(np.float32)


def random_backdrop(width: int, height: int, rng: np.random.Generator) -> UInt8Array:
    """(H, W, 3) uint8: blurred patches of a few colours, as walls and furniture out of focus look."""
    base = rng.uniform(30, 225, 3)
    coarse = np.clip(base + rng.normal(0.0, rng.uniform(5, 45), (4, 5, 3)), 0, 255).astype(np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth, 0, 255).astype(np.uint8)
