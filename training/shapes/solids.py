"""Building blocks of procedural shapes: solids in free units, z up, each with an identity that colours can follow."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from manifold3d import CrossSection, Error, JoinType, Manifold, Mesh, OpType
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline, PchipInterpolator

from gena3d_core.errors import InputError
from gena3d_core.geometry.mesh import sphere_directions
from gena3d_core.meshing.surface import surface_from_occupancy
from gena3d_core.simulation import surfaces
from gena3d_core.types import Float64Array

SEGMENTS = 48
"""Sides of a full turn."""

Polygon = ArrayLike
"""(N, 2) corners, counter-clockwise."""


def solid(vertices: np.ndarray, faces: np.ndarray) -> Manifold:
    """The solid of a closed surface; raises `InputError` if it is not a manifold."""
    made = Manifold(Mesh(np.ascontiguousarray(vertices, np.float32), np.ascontiguousarray(faces, np.uint32)))
    if made.status() != Error.NoError or made.is_empty():
        raise InputError(f"a shape's surface is not a closed manifold ({made.status()})")
    return made


def of_surface(surface: surfaces.Surface) -> Manifold:
    """The solid of one of the simulation's surfaces."""
    return solid(surface.vertices, surface.faces)


def lathed(profile_rz: ArrayLike, segments: int = SEGMENTS) -> Manifold:
    """Body of revolution around z; the profile (N, 2) of (radius, height) runs from the axis to the axis."""
    profile = np.asarray(profile_rz, dtype=np.float64)
    extent = float(np.ptp(profile, axis=0).max())
    return of_surface(surfaces.lathe(profile, max_edge_m=extent, segments=segments))


def cylinder(radius: float, height: float, top_radius: float | None = None, segments: int = SEGMENTS) -> Manifold:
    """Upright cylinder or frustum that stands on z = 0."""
    return Manifold.cylinder(height, radius, radius if top_radius is None else top_radius, segments).as_original()


def cuboid(size: ArrayLike, bevel: float = 0.0) -> Manifold:
    """Box around the origin with edges rounded by `bevel`."""
    extents = np.asarray(size, dtype=np.float64)
    if bevel > 0.02 * extents.min():
        return of_surface(surfaces.box(extents, float(bevel), max_edge_m=float(extents.max())))
    return Manifold.cube(tuple(extents), True).as_original()


def ball(radii: ArrayLike = 1.0, segments: int = SEGMENTS) -> Manifold:
    """Ellipsoid around the origin."""
    return Manifold.sphere(1.0, segments).scale(np.broadcast_to(np.asarray(radii, dtype=np.float64), 3)).as_original()


def hull(points: ArrayLike) -> Manifold:
    """Convex hull of (N, 3) points."""
    return Manifold.hull_points(np.asarray(points, dtype=np.float64)).as_original()


def extruded(section: CrossSection, height: float, *, twist_deg: float = 0.0, top_scale: float = 1.0) -> Manifold:
    """A flat section raised from z = 0 to `height`, turned and scaled on its way up."""
    divisions = 0 if twist_deg == 0 and top_scale == 1 else 12
    return Manifold.extrude(section, height, divisions, twist_deg, (top_scale, top_scale)).as_original()


def section(polygon: Polygon) -> CrossSection:
    """A flat section from the corners (N, 2) of a polygon."""
    return CrossSection([np.asarray(polygon, dtype=np.float64)])


def rounded(flat: CrossSection, radius: float) -> CrossSection:
    """The section with convex and concave corners rounded; as it was if that would erase it."""
    smooth = flat.offset(-radius, JoinType.Round, 2.0, 24).offset(2 * radius, JoinType.Round, 2.0, 24)
    smooth = smooth.offset(-radius, JoinType.Round, 2.0, 24)
    return flat if smooth.is_empty() else smooth


def stroke(points: ArrayLike, width: float) -> CrossSection:
    """A line (N, 2) drawn with a round pen."""
    pen = CrossSection.circle(width / 2.0, 16)
    places = [pen.translate(tuple(point)) for point in np.asarray(points, dtype=np.float64)]
    pieces = [CrossSection.batch_hull([a, b]) for a, b in pairwise(places)]
    return CrossSection.batch_boolean(pieces, OpType.Add)


def tube(
    path: ArrayLike, radius: ArrayLike, *, sides: int = 16, flatness: float = 1.0, closed: bool = False
) -> Manifold:
    """A tube along (N, 3) points; radius (N,) or one for all, `flatness` scales it across the plane of the first bend.

    Open tubes have flat ends. The cross section is carried along without twisting about the path.
    """
    line = np.asarray(path, dtype=np.float64)
    radii = np.broadcast_to(np.asarray(radius, dtype=np.float64), len(line))
    if closed:
        tangent = np.roll(line, -1, axis=0) - np.roll(line, 1, axis=0)
    else:
        tangent = np.gradient(line, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    first = _across(tangent, closed)
    second = np.cross(tangent, first)
    angle = np.linspace(0.0, 2.0 * np.pi, sides, endpoint=False)
    ring = np.cos(angle)[:, None] * first[:, None] + flatness * np.sin(angle)[:, None] * second[:, None]
    body = (line[:, None] + radii[:, None, None] * ring).reshape(-1, 3)
    count = len(line)
    ring_number = np.arange(count if closed else count - 1)[:, None]
    side = np.arange(sides)[None]
    a, b = ring_number * sides + side, ring_number * sides + (side + 1) % sides
    c, d = (a + sides) % (count * sides), (b + sides) % (count * sides)
    faces = [np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)]
    if not closed:
        start, end = count * sides, count * sides + 1
        first_ring, next_ring = np.arange(sides), (np.arange(sides) + 1) % sides
        last = (count - 1) * sides
        faces.append(np.stack([np.full(sides, start), next_ring, first_ring], axis=1))
        faces.append(np.stack([np.full(sides, end), last + first_ring, last + next_ring], axis=1))
        body = np.concatenate([body, line[[0, -1]]])
    surface = surfaces.outward(body, np.concatenate(faces))
    return of_surface(surface)


def _across(tangent: Float64Array, closed: bool) -> Float64Array:
    """(N, 3) unit vectors across the tangents (N, 3), each the one before it brought along with the least turn."""
    start = np.eye(3)[np.argmin(np.abs(tangent[0]))]
    normals = np.empty_like(tangent)
    current = start
    for number, direction in enumerate(tangent):  # a chain: each depends on the one before
        current = current - direction * (current @ direction)
        current /= np.linalg.norm(current)
        normals[number] = current
    if closed:
        final = normals[-1] - tangent[0] * (normals[-1] @ tangent[0])
        gap = np.arctan2(np.cross(final, normals[0]) @ tangent[0], final @ normals[0])
        turn = (gap * np.arange(len(tangent)) / len(tangent))[:, None]
        normals = normals * np.cos(turn) + np.cross(tangent, normals) * np.sin(turn)
    return normals


def star_shaped(radius_of: np.ndarray, directions: np.ndarray, faces: np.ndarray) -> Manifold:
    """The body whose surface lies at `radius_of` (N,) > 0 in the `directions` (N, 3)."""
    return solid(directions * np.asarray(radius_of)[:, None], faces)


def direction_grid(cells: int = 16) -> tuple[Float64Array, np.ndarray]:
    """Unit vectors (N, 3) and faces (F, 3) of a sphere made of a cube with `cells`^2 squares on each side."""
    cube = surfaces.box(np.full(3, 2.0), max_edge_m=2.0 / cells + 1e-9)
    # Equal angles between the lines of the cube make the triangles of the sphere about alike.
    bent = np.tan(cube.vertices * (np.pi / 4))
    return bent / np.linalg.norm(bent, axis=1, keepdims=True), cube.faces


def smooth_line(points: ArrayLike, count: int, closed: bool = False) -> Float64Array:
    """(count, D) points on a smooth curve through `points` (N, D)."""
    knots = np.asarray(points, dtype=np.float64)
    if closed:
        knots = np.concatenate([knots, knots[:1]])
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots, axis=0), axis=1))])
    curve = CubicSpline(lengths, knots, bc_type="periodic" if closed else "natural")
    return curve(np.linspace(0.0, lengths[-1], count, endpoint=not closed))


def smooth_profile(heights: ArrayLike, radii: ArrayLike, count: int = 32) -> Float64Array:
    """(count, 2) of (radius, height) that pass the given pairs and never overshoot between them."""
    z = np.linspace(np.min(heights), np.max(heights), count)
    return np.stack([PchipInterpolator(heights, radii)(z), z], axis=1)


def from_field(field: np.ndarray, low: np.ndarray, spacing: float) -> Manifold:
    """The solid where the field (X, Y, Z) is positive; grid point (0, 0, 0) lies at `low`."""
    T = np.eye(4)
    T[:3, 3] = low
    mesh = surface_from_occupancy(field, spacing, T, level=0.0)
    return solid(mesh.vertices, mesh.faces)


def union(parts: Sequence[Manifold]) -> Manifold:
    """All parts merged."""
    return Manifold.batch_boolean(list(parts), OpType.Add)


def even_directions(count: int) -> Float64Array:
    """(count, 3) unit vectors, even over the sphere."""
    return sphere_directions(count)[:count]
