"""A scene as the renderer sees it: meshes in their places with the means to look up their colour quickly."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..geometry import transforms
from ..types import Float32Array, Float64Array, Mesh, UInt8Array
from . import surfaces
from .scene import RoomSpec, SceneSpec, TableSpec
from .textures import Texture, evaluate, paint

BACKGROUND = -1
TABLE = 0

_TABLE_EDGE_M = 0.008
_ROOM_EDGE_M = 0.12


@dataclass(frozen=True, eq=False)
class PlaneMap:
    """Texture of a horizontal plane, evaluated once: image (H, W, 3) uint8 of the rectangle that starts at `low_m`."""

    image: UInt8Array
    low_m: Float64Array
    pixel_m: float

    def seen(self, eye_m: np.ndarray, directions: np.ndarray, distance: np.ndarray) -> UInt8Array:
        """(N, 3) colours at eye (3,) + directions (N, 3) * distance (N,)."""
        count = len(distance)
        # OpenCV takes maps of fewer than 32768 rows: the list of points is folded into an image
        pixel = np.zeros((2, -(-count // 1024) * 1024), dtype=np.float32)
        scale = distance * np.float32(1.0 / self.pixel_m)
        for axis in (0, 1):
            start = np.float32((eye_m[axis] - self.low_m[axis]) / self.pixel_m - 0.5)
            pixel[axis, :count] = directions[:, axis] * scale + start
        x, y = pixel.reshape(2, -1, 1024)
        found = cv2.remap(self.image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(found, dtype=np.uint8).reshape(-1, 3)[:count]

    def lit(self, vertices_m: np.ndarray, light: np.ndarray) -> PlaneMap:
        """The map as seen under `light` (V, 3) at the vertices (V, 3), which lie on a grid of lines in x and y."""
        x_lines, columns = np.unique(np.round(vertices_m[:, 0], 5), return_inverse=True)
        y_lines, rows = np.unique(np.round(vertices_m[:, 1], 5), return_inverse=True)
        grid = np.zeros((len(y_lines), len(x_lines), 3), dtype=np.float32)
        grid[rows, columns] = light
        height, width = self.image.shape[:2]
        x_m = self.low_m[0] + (np.arange(width) + 0.5) * self.pixel_m
        y_m = self.low_m[1] + (np.arange(height) + 0.5) * self.pixel_m
        column, row = np.meshgrid(
            np.interp(x_m, x_lines, np.arange(len(x_lines))).astype(np.float32),
            np.interp(y_m, y_lines, np.arange(len(y_lines))).astype(np.float32),
        )
        smooth = np.asarray(cv2.remap(grid, column, row, cv2.INTER_LINEAR))
        return replace(self, image=display_color(self.image * np.float32(1.0 / 255.0), smooth))


def display_color(albedo: np.ndarray, light: np.ndarray, highlight: np.ndarray | float = 0.0) -> UInt8Array:
    """Colour as displayed, from `albedo` as displayed in [0, 1], whose square is close to its linear value."""
    return (
        np.sqrt(np.clip(albedo * albedo * light + highlight, 0.0, 1.0)) * np.float32(255.0) + np.float32(0.5)
    ).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Part:
    """A mesh in its place.

    instance  value in the instance image; texture  its look, in the mesh's frame
    painted   colours are taken from the mesh's vertices
    plane     colours are looked up in a map in the world frame
    """

    mesh: Mesh
    instance: int
    texture: Texture
    T_world_part: Float64Array
    painted: bool = False
    plane: PlaneMap | None = None

    def albedo(self, points_world_m: np.ndarray, faces: np.ndarray, weights: np.ndarray) -> Float32Array:
        """(N, 3) colour in [0, 1] at world points on the part's own `faces` (N,) with barycentric `weights` (N, 3)."""
        if self.painted and self.mesh.vertex_colors is not None:
            corners = self.mesh.vertex_colors[self.mesh.faces[faces]] * np.float32(1.0 / 255.0)
            return np.einsum("nk,nkc->nc", weights, corners)
        return evaluate(self.texture, transforms.apply(transforms.inverse(self.T_world_part), points_world_m))


def scene_parts(spec: SceneSpec, meshes: Sequence[Mesh]) -> list[Part]:
    """Room, table and objects; `meshes` are those of `spec.objects`."""
    parts = [] if spec.room is None else _room_parts(spec.room)
    parts += _table_parts(spec.table)
    for index, (item, mesh) in enumerate(zip(spec.objects, meshes, strict=True)):
        parts.append(Part(mesh, index + 1, item.texture, item.T_world_object, painted=item.kind == "mesh"))
    return parts


@functools.lru_cache(maxsize=8)
def _plane_map(texture: Texture, size_m: tuple[float, float], z_m: float, pixel_m: float) -> PlaneMap:
    """Map of a horizontal rectangle around the z axis; scenes share tables and floors, hence the cache."""
    width, height = (max(1, round(s / pixel_m)) for s in size_m)
    low = -np.asarray(size_m, dtype=np.float64) / 2.0
    x, y = (low[0] + (np.arange(width) + 0.5) * pixel_m), (low[1] + (np.arange(height) + 0.5) * pixel_m)
    points = np.stack([*np.meshgrid(x, y), np.full((height, width), z_m)], axis=-1).astype(np.float32)
    color = evaluate(texture, points.reshape(-1, 3)).reshape(height, width, 3)
    return PlaneMap(np.round(color * 255.0).astype(np.uint8), low, pixel_m)


def _table_parts(table: TableSpec) -> list[Part]:
    """Top with a colour map, rim, and underside; only the upper side is fine enough to carry shadows."""
    slab = surfaces.box(np.array([*table.size_m, table.thickness_m]), bevel_m=0.004, max_edge_m=_TABLE_EDGE_M)
    slab = slab.moved(np.array([0.0, 0.0, -table.thickness_m / 2]))
    height = slab.vertices[slab.faces][:, :, 2]
    top, bottom = (height > -1e-6).all(axis=1), (height < 1e-6 - table.thickness_m).all(axis=1)
    half_x, half_y = (s / 2 - 0.004 for s in table.size_m)
    corners = [[-half_x, -half_y], [-half_x, half_y], [half_x, half_y], [half_x, -half_y]]
    vertices = np.column_stack([corners, np.full(4, -table.thickness_m)]).astype(np.float32)
    under = Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32))
    texture = table.texture
    return [
        Part(_submesh(slab, top), TABLE, texture, np.eye(4), plane=_plane_map(texture, table.size_m, 0.0, 0.0015)),
        Part(_submesh(slab, ~top & ~bottom), TABLE, texture, np.eye(4)),
        Part(under, TABLE, texture, np.eye(4)),
    ]


def _room_parts(room: RoomSpec) -> list[Part]:
    """Floor with a colour map, and walls with ceiling with colours at their vertices, all facing inwards."""
    shell = surfaces.box(np.asarray(room.size_m), max_edge_m=_ROOM_EDGE_M)
    shell = shell.moved(np.array([0.0, 0.0, room.floor_z_m + room.size_m[2] / 2]))
    inward = surfaces.Surface(shell.vertices, shell.faces[:, ::-1])
    floor = (np.abs(inward.vertices[inward.faces][:, :, 2] - room.floor_z_m) < 1e-6).all(axis=1)
    walls = paint(_submesh(inward, ~floor), room.walls)
    plane = _plane_map(room.floor, room.size_m[:2], room.floor_z_m, 0.01)
    return [
        Part(_submesh(inward, floor), BACKGROUND, room.floor, np.eye(4), plane=plane),
        Part(walls, BACKGROUND, room.walls, np.eye(4), painted=True),
    ]


def _submesh(surface: surfaces.Surface, chosen: np.ndarray) -> Mesh:
    """The chosen faces (F,) bool with the vertices that they use."""
    used, index = np.unique(surface.faces[chosen], return_inverse=True)
    return Mesh(surface.vertices[used].astype(np.float32), index.reshape(-1, 3).astype(np.int32))
