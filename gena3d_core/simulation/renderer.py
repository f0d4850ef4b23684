"""Ray-cast colour, depth and instance images of a synthetic scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..geometry import transforms
from ..geometry.camera import pixel_rays
from ..geometry.mesh import face_cross, vertex_normals
from ..types import Float32Array, Int32Array, Intrinsics, Mesh, UInt8Array, View
from .lighting import bake
from .noise import color_noise, structured_light_noise
from .parts import BACKGROUND, Part, display_color, scene_parts
from .ray_casting import Hits, make_caster
from .scene import LightSpec, SceneSpec, object_mesh

_SUBPIXELS = np.array([(-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125)], dtype=np.float32)
_MISS_COLOR = np.array([184, 189, 194], dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class RenderedView:
    """One image of the scene without sensor noise.

    color         (H, W, 3) uint8 RGB
    depth_m       (H, W) float32 metres along the optical axis, NaN on the background
    instance_ids  (H, W) int32: -1 background, 0 table, i + 1 the object `spec.objects[i]`
    """

    color: UInt8Array
    depth_m: Float32Array
    instance_ids: Int32Array


class Renderer:
    """Renders one scene from any pose; building it casts the shadow rays once.

    `meshes` are the objects' meshes with vertex colours, in their own frames, in the order of `spec.objects`.
    `shadow_samples` rays for each vertex and lamp make the shadows; 0 renders without them and starts fastest.
    Raises `InputError` or `DataFormatError` for an object that cannot be made, `MissingDependencyError` without a ray
    casting engine.
    """

    def __init__(self, spec: SceneSpec, *, shadow_samples: int = 8) -> None:
        self.spec = spec
        self.meshes: tuple[Mesh, ...] = tuple(object_mesh(o) for o in spec.objects)
        self._parts = scene_parts(spec, self.meshes)
        vertices = np.concatenate([transforms.apply(p.T_world_part, p.mesh.vertices) for p in self._parts])
        counts = np.cumsum([0] + [len(p.mesh.vertices) for p in self._parts])
        faces = np.concatenate([p.mesh.faces + offset for p, offset in zip(self._parts, counts, strict=False)])
        self._caster = make_caster(vertices, faces)
        part_sizes = [len(p.mesh.faces) for p in self._parts]
        self._first_face = np.cumsum([0, *part_sizes])
        self._face_part = np.repeat(np.arange(len(self._parts), dtype=np.int16), part_sizes)
        self._part_instance = np.array([p.instance for p in self._parts], dtype=np.int32)
        world = Mesh(vertices, faces)
        smooth = vertex_normals(world)
        self._corner_normals = corner_normals(world, smooth)
        visible = bake(self._caster, vertices, smooth, faces, spec.lights, shadow_samples)
        self._corner_light = _irradiance(vertices[faces], self._corner_normals, visible[faces], spec)
        self._parts = [self._lit(index, part) for index, part in enumerate(self._parts)]
        self._rays: dict[Intrinsics, Float32Array] = {}

    def render(
        self, T_world_camera: np.ndarray, intrinsics: Intrinsics | None = None, *, antialias: bool = True
    ) -> RenderedView:
        """The scene seen by a pinhole camera at `T_world_camera` (4, 4), optical frame.

        `antialias` takes four colour samples in pixels on silhouettes; depth and ids are those of the pixel centre.
        """
        intrinsics = intrinsics or self.spec.intrinsics
        if intrinsics not in self._rays:
            self._rays[intrinsics] = pixel_rays(intrinsics).reshape(-1, 3)
        R = T_world_camera[:3, :3].astype(np.float32)
        eye = T_world_camera[:3, 3].astype(np.float32)
        directions = self._rays[intrinsics] @ R.T
        hits = self._cast(eye, directions)
        shape = (intrinsics.height, intrinsics.width)
        instance = np.where(hits.face >= 0, self._part_instance[self._face_part[hits.face]], BACKGROUND)
        instance = instance.astype(np.int32).reshape(shape)
        distance = np.where(hits.face >= 0, hits.distance, np.float32(np.inf)).reshape(shape)
        color = self._shade(eye, directions, hits)
        if antialias:
            edge = np.flatnonzero(_silhouettes(instance, distance))
            step = _SUBPIXELS / np.array([intrinsics.fx, intrinsics.fy], dtype=np.float32)
            rays = np.repeat(self._rays[intrinsics][edge], len(step), axis=0)
            rays[:, :2] += np.tile(step, (len(edge), 1))
            rays = rays @ R.T
            samples = self._shade(eye, rays, self._cast(eye, rays)).reshape(len(edge), len(step), 3)
            color[edge] = np.round(samples.mean(axis=1, dtype=np.float32))
        depth = np.where(instance >= 0, distance, np.float32(np.nan))
        return RenderedView(color.reshape(*shape, 3), depth, instance)

    def _cast(self, eye: np.ndarray, directions: np.ndarray) -> Hits:
        return self._caster(np.broadcast_to(eye, directions.shape), directions)

    def _shade(self, eye: np.ndarray, directions: np.ndarray, hits: Hits) -> UInt8Array:
        """(N, 3) colour of the hits."""
        color = np.broadcast_to(_MISS_COLOR, directions.shape).copy()
        part_of = np.where(hits.face >= 0, self._face_part[hits.face], np.int16(-1))
        order = np.argsort(part_of, kind="stable")
        bounds = np.searchsorted(part_of[order], np.arange(len(self._parts) + 1))
        for index in range(len(self._parts)):
            rows = order[bounds[index] : bounds[index + 1]]
            if len(rows):
                seen = Hits(hits.face[rows], hits.distance[rows], hits.u[rows], hits.v[rows])
                color[rows] = self._shade_part(index, eye, directions[rows], seen)
        return color

    def _shade_part(self, index: int, eye: np.ndarray, directions: np.ndarray, hits: Hits) -> UInt8Array:
        part: Part = self._parts[index]
        if part.plane is not None:
            return part.plane.seen(eye, directions, hits.distance)
        points = eye + directions * hits.distance[:, None]
        weights = np.stack([1.0 - hits.u - hits.v, hits.u, hits.v], axis=1)
        albedo = part.albedo(points, hits.face - self._first_face[index], weights)
        light = np.einsum("nk,nkc->nc", weights, self._corner_light[hits.face])
        if part.texture.gloss <= 0:
            return display_color(albedo, light)
        normal = np.einsum("nk,nkc->nc", weights, self._corner_normals[hits.face])
        shine = _highlight(points, directions, normal, self.spec.lights)
        return display_color(albedo, light, np.float32(part.texture.gloss) * shine)

    def _lit(self, index: int, part: Part) -> Part:
        """A part with a map gets its light painted into the map: most of the image is floor and table."""
        if part.plane is None:
            return part
        light = np.zeros_like(part.mesh.vertices)
        own = slice(self._first_face[index], self._first_face[index + 1])
        light[part.mesh.faces.reshape(-1)] = self._corner_light[own].reshape(-1, 3)
        return replace(part, plane=part.plane.lit(part.mesh.vertices, light))


def views_from_scene(
    spec: SceneSpec,
    poses: Sequence[np.ndarray] | np.ndarray | int | None = None,
    noise: bool = True,
    seed: int = 0,
    *,
    renderer: Renderer | None = None,
) -> list[View]:
    """Views of the scene as a depth camera would give them, for tests and offline runs.

    poses: (N, 4, 4) `T_world_camera`, or a number of poses on the scene's camera path (None: 4). With `noise` the
    scene's sensor noise is applied, reproducible by `seed`; a scene without noise stays clean.
    """
    if poses is None or isinstance(poses, int):
        poses = spec.camera_path.poses(4 if poses is None else poses)
    if not len(poses):
        raise InputError("views_from_scene needs at least one pose")
    renderer = renderer or Renderer(spec)
    views = []
    for index, T in enumerate(poses):
        image = renderer.render(np.asarray(T, dtype=np.float64))
        color, depth = apply_noise(image, spec, np.random.default_rng((seed, index))) if noise else (
            image.color, image.depth_m)  # fmt: skip
        pose = np.asarray(T, dtype=np.float64)
        views.append(View(color, spec.intrinsics, pose, depth, stamp_ns=index * 33_333_333, name=f"{index:06d}"))
    return views


def apply_noise(image: RenderedView, spec: SceneSpec, rng: np.random.Generator) -> tuple[UInt8Array, Float32Array]:
    """Colour and depth of an image with the scene's sensor noise (unchanged where the scene has none)."""
    if spec.noise is None:
        return image.color, image.depth_m
    depth = structured_light_noise(image.depth_m, rng, spec.intrinsics.fx, spec.noise)
    return color_noise(image.color, rng, spec.noise.color_sigma), depth


def corner_normals(mesh: Mesh, smooth: np.ndarray, crease_deg: float = 30.0) -> Float32Array:
    """(F, 3, 3) unit normals: smooth across shallow edges, flat at edges sharper than `crease_deg`."""
    cross = face_cross(mesh)
    flat = (cross / np.maximum(np.linalg.norm(cross, axis=1, keepdims=True), 1e-30)).astype(np.float32)
    corner = smooth[mesh.faces]
    shallow = np.einsum("fkc,fc->fk", corner, flat) > np.cos(np.deg2rad(crease_deg))
    return np.where(shallow[..., None], corner, flat[:, None, :])


def _irradiance(points: np.ndarray, normals: np.ndarray, visible: np.ndarray, spec: SceneSpec) -> Float32Array:
    """(F, 3, 3) RGB light at face corners from points, normals (F, 3, 3) and visibility (F, 3, L + 1)."""
    sky = 0.65 + 0.35 * normals[..., 2:]  # more light from above
    total = np.float32(spec.ambient) * visible[..., -1:] * sky * np.ones(3, dtype=np.float32)
    for index, light in enumerate(spec.lights):
        towards = np.asarray(light.position_m, dtype=np.float32) - points
        squared = np.einsum("...i,...i->...", towards, towards)
        cosine = np.einsum("...i,...i->...", towards, normals) / np.sqrt(squared)
        strength = light.intensity * np.clip(cosine, 0.0, None) / squared * visible[..., index]
        total = total + strength[..., None] * np.asarray(light.color, dtype=np.float32)
    return total.astype(np.float32)


def _highlight(
    points: np.ndarray, directions: np.ndarray, normals: np.ndarray, lights: Sequence[LightSpec]
) -> Float32Array:
    """(N, 3) Blinn-Phong highlights of the lamps."""
    eye_distance = np.sqrt(_dot(directions, directions))
    normal_length = np.sqrt(_dot(normals, normals)) + np.float32(1e-6)
    normal_eye = -_dot(normals, directions) / (eye_distance * normal_length)
    total = np.zeros_like(points)
    for light in lights:
        towards = np.asarray(light.position_m, dtype=np.float32) - points
        distance = np.sqrt(_dot(towards, towards))
        normal_light = _dot(normals, towards) / (distance * normal_length)
        eye_light = -_dot(directions, towards) / (eye_distance * distance)
        # normal · (light + eye) / |light + eye|, without forming the half vector
        cosine = (normal_light + normal_eye) / np.sqrt(np.maximum(2.0 + 2.0 * eye_light, 1e-6))
        power = np.clip(cosine, 0.0, 1.0)
        for _ in range(5):  # to the 32nd
            power *= power
        total += power[:, None] * (np.asarray(light.color, dtype=np.float32) * np.float32(light.intensity))
    return total


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ni,ni->n", a, b)


def _silhouettes(instance: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels on either side of a change of instance or a jump of depth."""
    edge = np.zeros(instance.shape, dtype=bool)
    for axis in (0, 1):
        a, b = (np.s_[:-1], np.s_[1:]) if axis == 0 else (np.s_[:, :-1], np.s_[:, 1:])
        with np.errstate(invalid="ignore"):
            change = (instance[a] != instance[b]) | (np.abs(distance[a] - distance[b]) > 0.02 * distance[a])
        edge[a] |= change
        edge[b] |= change
    return edge
