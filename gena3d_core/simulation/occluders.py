"""Things that stand beside an object on its table and hide parts of it."""

from __future__ import annotations

import numpy as np

from ..geometry.mesh import make_mesh, transformed
from ..geometry.transforms import rigid
from ..types import Float64Array, Mesh
from .surfaces import box, lathe

SIDES = 20
_GAP = 0.03
_TRIES = 20


def random_occluder(size_m: float, rng: np.random.Generator) -> Mesh:
    """A box or a turned body (can, bottle, bowl, cone) about `size_m` large, standing on z = 0 around the z axis."""
    height, width = size_m * rng.uniform(0.6, 1.3), size_m * rng.uniform(0.25, 0.8)
    if rng.random() < 0.4:
        extents = np.array([width, width * rng.uniform(0.4, 1.5), height])
        shape = box(extents, max_edge_m=2.0 * size_m).moved(np.array([0.0, 0.0, height / 2.0]))
    else:
        levels = np.sort(rng.uniform(0.05, 0.95, int(rng.integers(1, 5))))
        radius = 0.5 * width * rng.uniform(0.35, 1.0, len(levels) + 2)
        heights = height * np.concatenate([[0.0], levels, [1.0]])
        profile = np.concatenate([[(0.0, 0.0)], np.stack([radius, heights], axis=1), [(0.0, height)]])
        shape = lathe(profile, max_edge_m=10.0 * size_m, segments=SIDES)
    return make_mesh(shape.vertices, shape.faces)


def place_occluders(
    target: Mesh, size_m: float, count: int, towards: float, rng: np.random.Generator, own: tuple[Mesh, ...] = ()
) -> list[Mesh]:
    """Up to `count` things on the table z = 0 around `target`, mostly at azimuth `towards` (radians) of a camera.

    None reaches into the target or another: each stays behind a vertical plane before the target, and circles around
    the things are apart. own: meshes (unit cube, z up) to choose from besides random shapes.
    """
    flat = target.vertices[:, :2].astype(np.float64)
    center = (flat.min(axis=0) + flat.max(axis=0)) / 2.0
    placed: list[Mesh] = []
    circles: list[tuple[Float64Array, float]] = []
    for number in range(count):
        shape = _shape(size_m * rng.uniform(0.5, 1.1), rng, own)
        radius = float(np.linalg.norm(shape.vertices[:, :2], axis=1).max())
        for _ in range(_TRIES):
            # The first stands in the line of sight of the camera, the others around.
            spread = 0.35 if number == 0 else 1.2
            azimuth = towards + rng.normal(0.0, spread)
            direction = np.array([np.cos(azimuth), np.sin(azimuth)])
            reach = float((flat @ direction).max() - center @ direction)
            gap = size_m * (_GAP + rng.exponential(0.12))
            across = np.array([-direction[1], direction[0]]) * rng.normal(0.0, 0.25) * size_m
            at = center + direction * (reach + gap + radius) + across
            if all(np.linalg.norm(at - other) > radius + r + _GAP * size_m for other, r in circles):
                circles.append((at, radius))
                placed.append(transformed(shape, rigid(_yaw(rng), np.array([*at, 0.0]))))
                break
    return placed


def _shape(size_m: float, rng: np.random.Generator, own: tuple[Mesh, ...]) -> Mesh:
    if not own or rng.random() < 0.5:
        return random_occluder(size_m, rng)
    mesh = own[int(rng.integers(len(own)))]
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    scale = size_m / float((high - low).max())
    foot = np.array([*(low + high)[:2] / 2.0, low[2]])
    return transformed(mesh, rigid(scale * np.eye(3), -scale * foot))


def _yaw(rng: np.random.Generator) -> Float64Array:
    angle = rng.uniform(0.0, 2.0 * np.pi)
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
