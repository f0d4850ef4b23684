"""Watertight triangle surfaces by revolution, sweep, subdivided box and boolean operations: raw (vertices, faces)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..types import Float64Array, Mesh

SEGMENTS = 96
"""Sides of a full turn: a 10 cm wide object deviates from its circle by 0.03 mm."""


@dataclass(frozen=True, eq=False)
class Surface:
    """vertices (V, 3) float64 metres, faces (F, 3) int64, counter-clockwise seen from outside."""

    vertices: Float64Array
    faces: np.ndarray

    def moved(self, offset_m: np.ndarray) -> Surface:
        """The same surface shifted by (3,)."""
        return Surface(self.vertices + np.asarray(offset_m, dtype=np.float64), self.faces)


def outward(vertices: np.ndarray, faces: np.ndarray) -> Surface:
    """A closed surface with its faces turned outwards and without faces that repeat a vertex."""
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    corners = vertices[faces] - vertices.mean(axis=0)
    volume = np.einsum("fi,fi->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum()
    return Surface(np.asarray(vertices, dtype=np.float64), faces if volume >= 0 else faces[:, ::-1])


def resample(points: np.ndarray, max_edge_m: float, closed: bool = False) -> Float64Array:
    """Polyline (N, D) with extra points so that no segment exceeds `max_edge_m`; the given points stay."""
    points = np.asarray(points, dtype=np.float64)
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    starts = points if closed else points[:-1]
    counts = np.maximum(1, np.ceil(np.linalg.norm(ends - starts, axis=1) / max_edge_m)).astype(int)
    pieces = [
        start + (end - start) * (np.arange(count) / count)[:, None]
        for start, end, count in zip(starts, ends, counts, strict=True)
    ]
    return np.concatenate(pieces if closed else [*pieces, points[-1:]])


def arc(center: tuple[float, float], radius: float, start_deg: float, end_deg: float, count: int = 8) -> Float64Array:
    """(count, 2) points on a circle arc, both ends included."""
    angle = np.deg2rad(np.linspace(start_deg, end_deg, count))
    return np.stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)], axis=1)


def lathe(profile_rz_m: np.ndarray, max_edge_m: float = 0.006, segments: int = SEGMENTS) -> Surface:
    """Revolve a profile (N, 2) of (radius, height) around z.

    The profile runs from the axis to the axis (first and last radius 0) and does not cross itself. Raises `InputError`
    otherwise.
    """
    profile = np.asarray(profile_rz_m, dtype=np.float64)
    if profile.ndim != 2 or profile.shape[1] != 2 or len(profile) < 3 or not np.isfinite(profile).all():
        raise InputError(f"a lathe profile must be at least three finite (radius, height) pairs, got {profile.shape}")
    if profile[0, 0] != 0 or profile[-1, 0] != 0 or (profile[1:-1, 0] < 0).any():
        raise InputError("a lathe profile must start and end on the axis (radius 0) and stay at radius >= 0")
    rings = resample(profile, max_edge_m)[1:-1]
    angle = np.linspace(0.0, 2.0 * np.pi, segments, endpoint=False)
    xy = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    body = np.empty((len(rings), segments, 3))
    body[..., :2] = rings[:, None, :1] * xy
    body[..., 2] = rings[:, None, 1]
    poles = np.array([[0.0, 0.0, profile[0, 1]], [0.0, 0.0, profile[-1, 1]]])
    return outward(np.concatenate([body.reshape(-1, 3), poles]), _grid_faces(len(rings), segments, capped=True))


def sweep(path_xz_m: np.ndarray, half_widths_m: ArrayLike, closed: bool = False, sides: int = 40) -> Surface:
    """Elliptic tube along a planar path (N, 2) of (x, z).

    half_widths_m (N, 2) or (2,): half-axes in the plane and along y. Open tubes are capped at both ends.
    """
    path = np.asarray(path_xz_m, dtype=np.float64)
    widths = np.broadcast_to(np.asarray(half_widths_m, dtype=np.float64), (len(path), 2))
    if closed:
        tangent = np.roll(path, -1, axis=0) - np.roll(path, 1, axis=0)
    else:
        tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    in_plane = path[:, None, :] + widths[:, None, :1] * np.cos(angle)[None, :, None] * normal[:, None, :]
    across = widths[:, 1:] * np.sin(angle)
    body = np.stack([in_plane[..., 0], across, in_plane[..., 1]], axis=-1).reshape(-1, 3)
    if closed:
        return outward(body, _grid_faces(len(path), sides, wrap=True))
    poles = np.stack([path[[0, -1], 0], np.zeros(2), path[[0, -1], 1]], axis=1)
    return outward(np.concatenate([body, poles]), _grid_faces(len(path), sides, capped=True))


def _grid_faces(rings: int, sides: int, capped: bool = False, wrap: bool = False) -> np.ndarray:
    """Triangles between consecutive rings of `sides` vertices; `capped` adds fans to two poles stored at the end."""
    ring = np.arange(rings if wrap else rings - 1)[:, None]
    side = np.arange(sides)[None, :]
    following = (ring + 1) % rings
    a, b = ring * sides + side, ring * sides + (side + 1) % sides
    c, d = following * sides + (side + 1) % sides, following * sides + side
    faces = [np.stack([a, b, c], axis=-1).reshape(-1, 3), np.stack([a, c, d], axis=-1).reshape(-1, 3)]
    if capped:
        first, after = np.arange(sides), (np.arange(sides) + 1) % sides
        last = (rings - 1) * sides
        bottom, top = np.full(sides, rings * sides), np.full(sides, rings * sides + 1)
        faces += [np.stack([bottom, after, first], axis=1), np.stack([top, last + first, last + after], axis=1)]
    return np.concatenate(faces)


def box(size_m: np.ndarray, bevel_m: float = 0.0, max_edge_m: float = 0.006) -> Surface:
    """Box of (3,) extents around the origin, edges rounded with radius `bevel_m`."""
    half = np.asarray(size_m, dtype=np.float64) / 2.0
    if half.shape != (3,) or not (half > 0).all():
        raise InputError(f"a box needs three positive extents, got {np.asarray(size_m).tolist()}")
    bevel = min(float(bevel_m), 0.999 * half.min()) if bevel_m > 1e-6 else 0.0
    rounding = bevel * np.tan(np.deg2rad((11.25, 22.5, 33.75, 45.0))) if bevel > 0 else np.zeros(0)
    lines = []
    for h in half:
        flat = h - bevel
        inner = np.linspace(-flat, flat, max(1, int(np.ceil(2 * flat / max_edge_m))) + 1)
        lines.append(np.concatenate([-flat - rounding[::-1], inner, flat + rounding]))
    counts = [len(line) for line in lines]
    keys, faces, offset = [], [], 0
    for axis in range(3):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        index = np.arange(counts[u] * counts[v]).reshape(counts[u], counts[v])
        a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
        quads = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)
        for sign in (1, -1):
            step = np.empty((*index.shape, 3), dtype=np.int64)
            step[..., u], step[..., v] = np.arange(counts[u])[:, None], np.arange(counts[v])[None, :]
            step[..., axis] = counts[axis] - 1 if sign > 0 else 0
            keys.append(np.ravel_multi_index(tuple(step.reshape(-1, 3).T), counts))
            faces.append((quads if sign > 0 else quads[:, ::-1]) + offset)
            offset += index.size
    # the six sheets share their border points: one vertex for each position on the lines
    unique, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    vertices = np.stack([line[i] for line, i in zip(lines, np.unravel_index(unique, counts), strict=True)], axis=1)
    if bevel > 0:
        core = np.clip(vertices, -(half - bevel), half - bevel)
        offset_from_core = vertices - core
        vertices = core + bevel * offset_from_core / np.linalg.norm(offset_from_core, axis=1, keepdims=True)
    return outward(vertices, inverse.reshape(-1)[np.concatenate(faces)])


def boolean(operation: str, first: Surface, second: Surface) -> Surface:
    """`union` or `difference` of two closed surfaces; the result is closed."""
    import manifold3d

    a, b = (
        manifold3d.Manifold(
            manifold3d.Mesh64(np.ascontiguousarray(s.vertices), np.ascontiguousarray(s.faces, dtype=np.uint64))
        )
        for s in (first, second)
    )
    if a.status() != manifold3d.Error.NoError or b.status() != manifold3d.Error.NoError:
        raise InputError(f"boolean {operation} needs two closed surfaces, got {a.status()} and {b.status()}")
    # the operation merges coplanar triangles; colours and light are kept at the vertices and need small ones
    result = (a + b if operation == "union" else a - b).refine_to_length(0.008).to_mesh64()
    return Surface(np.array(result.vert_properties[:, :3]), np.array(result.tri_verts, dtype=np.int64))


def centred(surface: Surface) -> Mesh:
    """`Mesh` with the origin at the centre of the bounding box."""
    middle = (surface.vertices.min(axis=0) + surface.vertices.max(axis=0)) / 2.0
    return Mesh((surface.vertices - middle).astype(np.float32), np.ascontiguousarray(surface.faces, dtype=np.int32))
