"""One mesh file as a surface in its own units, with colours from textures, materials or vertices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from scipy.spatial import cKDTree

from gena3d_core.errors import DataFormatError
from gena3d_core.geometry.mesh import concatenate, make_mesh, sample_surface
from gena3d_core.types import Float32Array, Mesh, UInt8Array

SUFFIXES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".off", ".dae")
COLOR_SAMPLES = 150_000
"""Points at which textures are looked up; a closed mesh takes the colour of the nearest one."""
COLORED_EDGE = 0.025
"""Longest edge, in shares of the longest side, of a mesh that is to carry the colours of a texture."""
GREY = (178, 178, 178)
BESIDE = ("texture.png", "texture.jpg", "../materials/textures/texture.png")
"""Where sets keep an object's only texture when the material does not name it, relative to the mesh file."""


@dataclass(frozen=True, eq=False)
class ColoredSurface:
    """A mesh as its file holds it, with colours at points of its surface.

    points (N, 3) float32 in the mesh's frame, colors (N, 3) uint8; textured: colours vary within faces
    """

    mesh: Mesh
    points: Float32Array
    colors: UInt8Array
    textured: bool

    def colored(self, mesh: Mesh, points: np.ndarray) -> Mesh:
        """`mesh` with each vertex coloured like the nearest of `points` (N, 3), which are this surface's points
        in the frame of `mesh`.
        """
        _, nearest = cKDTree(points).query(mesh.vertices)
        return make_mesh(mesh.vertices, mesh.faces, vertex_colors=self.colors[nearest])


def load_surface(path: Path) -> ColoredSurface:
    """All meshes of a file in one; raises `DataFormatError` for a file that is not readable or holds no faces."""
    try:
        scene = trimesh.load_scene(path, process=False)
        bodies = [body for body in scene.dump() if isinstance(body, trimesh.Trimesh) and len(body.faces)]
    except Exception as error:  # readers of many formats raise what they like
        raise DataFormatError(f"{path}: not a readable mesh ({type(error).__name__}: {error})") from error
    if not bodies:
        raise DataFormatError(f"{path}: holds no faces")
    meshes = [make_mesh(body.vertices, body.faces) for body in bodies]
    whole = concatenate(meshes)
    if not np.isfinite(whole.vertices).all():
        raise DataFormatError(f"{path}: holds vertices that are not finite")
    points, faces = sample_surface(whole, COLOR_SAMPLES, np.random.default_rng(0))
    weights = barycentric(points, whole.vertices[whole.faces[faces]])
    body_of_face = np.repeat(np.arange(len(bodies)), [len(body.faces) for body in bodies])
    first_face = np.cumsum([0, *(len(body.faces) for body in bodies)])
    colors = np.empty((len(points), 3), dtype=np.uint8)
    for number, body in enumerate(bodies):
        chosen = body_of_face[faces] == number
        colors[chosen] = surface_colors(body, path, faces[chosen] - first_face[number], weights[chosen])
    return ColoredSurface(whole, points, colors, any(_texture(body, path) is not None for body in bodies))


def surface_colors(body: Any, path: Path, faces: np.ndarray, weights: np.ndarray) -> UInt8Array:
    """Colours (N, 3) of a trimesh body at `faces` (N,) with barycentric `weights` (N, 3)."""
    corners = body.faces[faces]
    visual, image = body.visual, _texture(body, path)
    if image is not None:
        uv = np.einsum("nk,nkc->nc", weights, np.asarray(visual.uv, dtype=np.float64)[corners])
        return _lookup(image, uv)
    if visual.kind == "texture":
        return np.broadcast_to(_main_color(visual.material), (len(faces), 3)).astype(np.uint8)
    if visual.kind == "face":
        return np.asarray(visual.face_colors)[faces, :3].astype(np.uint8)
    if visual.kind == "vertex":
        mixed = np.einsum("nk,nkc->nc", weights, np.asarray(visual.vertex_colors, dtype=np.float64)[corners, :3])
        return np.round(mixed).astype(np.uint8)
    return np.broadcast_to(np.array(GREY, np.uint8), (len(faces), 3)).copy()


def barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(N, 3) weights of the corners (N, 3, 3) of triangles that hold `points` (N, 3); a third each for flat ones."""
    a, b, c = corners.astype(np.float64).transpose(1, 0, 2)
    normal = np.cross(b - a, c - a)
    area = np.einsum("ni,ni->n", normal, normal)
    parts = [
        np.einsum("ni,ni->n", np.cross(second - first, points - first), normal) for first, second in ((b, c), (c, a))
    ]
    third = np.full(len(points), 1.0 / 3.0)
    weights = [np.divide(part, area, out=third.copy(), where=area > 0) for part in parts]
    return np.stack([*weights, 1.0 - weights[0] - weights[1]], axis=1)


def _texture(body: Any, path: Path) -> UInt8Array | None:
    """(H, W, 3) colour image of a body with texture coordinates; None if there is none."""
    visual = body.visual
    if visual.kind != "texture" or visual.uv is None or len(visual.uv) != len(body.vertices):
        return None
    material = visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        beside = next((path.parent / name for name in BESIDE if (path.parent / name).is_file()), None)
        image = None if beside is None else _open_image(beside)
    return None if image is None else np.asarray(image.convert("RGB"))


def _open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise DataFormatError(f"{path}: not a readable image ({error})") from error


def _lookup(image: UInt8Array, uv: np.ndarray) -> UInt8Array:
    """(N, 3) pixels at texture coordinates (N, 2), repeating; v runs upwards."""
    height, width = image.shape[:2]
    column = np.floor(np.nan_to_num(uv[:, 0]) % 1.0 * width).astype(np.int64) % width
    row = np.floor((1.0 - np.nan_to_num(uv[:, 1])) % 1.0 * height).astype(np.int64) % height
    return image[row, column]


def _main_color(material: Any) -> Sequence[int]:
    color = getattr(material, "main_color", None)
    return GREY if color is None else [int(c) for c in np.asarray(color)[:3]]
