"""Rounded and abstract bodies: superquadrics, supertoroids, rocks, blobs, figures of soft limbs, random CSG."""

from __future__ import annotations

import numpy as np
from manifold3d import Manifold
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from gena3d_core.simulation.surfaces import outward

from .solids import (
    ball,
    cuboid,
    cylinder,
    direction_grid,
    even_directions,
    from_field,
    hull,
    of_surface,
    star_shaped,
    union,
)


def superquadric(rng: Generator) -> Manifold:
    """Between box, cylinder, ellipsoid and double pyramid."""
    directions, faces = direction_grid(18)
    north, east = rng.uniform(0.25, 1.9, 2)
    size = np.abs(directions) + 1e-9
    flat = (size[:, 0] ** (2 / east) + size[:, 1] ** (2 / east)) ** (east / north)
    radius = (flat + size[:, 2] ** (2 / north)) ** (-north / 2)
    return star_shaped(radius, directions, faces).scale(tuple(rng.uniform(0.35, 1.0, 3))).as_original()


def supertoroid(rng: Generator) -> Manifold:
    """Ring whose outline and section are superellipses."""
    sides, around = 20, 56
    u, v = np.arange(around) * (2 * np.pi / around), np.arange(sides) * (2 * np.pi / sides)
    outline, cut = rng.uniform(0.4, 1.6, 2)
    hole = rng.uniform(0.15, 0.4)
    x, y = _superellipse(u, outline)
    r, z = _superellipse(v, cut)
    reach = 1.0 + hole * r
    points = np.stack([reach * x[:, None], reach * y[:, None], np.broadcast_to(hole * z, (around, sides))], axis=-1)
    row, side = np.arange(around)[:, None], np.arange(sides)[None]
    a, b = row * sides + side, row * sides + (side + 1) % sides
    c, d = (row + 1) % around * sides + (side + 1) % sides, (row + 1) % around * sides + side
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    made = of_surface(outward(points.reshape(-1, 3), faces))
    return made.scale((1.0, rng.uniform(0.5, 1.0), rng.uniform(0.6, 2.0))).as_original()


def _superellipse(angle: np.ndarray, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    c, s = np.cos(angle), np.sin(angle)
    reach = (np.abs(c) ** (2 / exponent) + np.abs(s) ** (2 / exponent)) ** (-exponent / 2)
    return reach * c, reach * s


def blob(rng: Generator) -> Manifold:
    """Star-shaped body with smooth bumps: potato, pebble, sponge."""
    directions, faces = direction_grid(18)
    waves = even_directions(40)[rng.integers(0, 40, 8)] * rng.uniform(1.0, 4.0, (8, 1))
    bumps = np.cos(directions @ waves.T + rng.uniform(0, 2 * np.pi, 8)) @ rng.uniform(0.0, 0.11, 8)
    return star_shaped(np.exp(bumps), directions, faces).scale(tuple(rng.uniform(0.45, 1.0, 3))).as_original()


def rock(rng: Generator) -> Manifold:
    """Convex polyhedron of few random corners, some with others cut off: stone, gem, crystal."""
    count = int(rng.integers(6, 24))
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    made = hull(points * rng.uniform(0.7, 1.0, (count, 1)))
    return made.scale(tuple(rng.uniform(0.4, 1.0, 3))).as_original()


def metaball(rng: Generator) -> Manifold:
    """Several balls that melt into each other."""
    count = int(rng.integers(3, 8))
    centers, radii = rng.uniform(-0.35, 0.35, (count, 3)), rng.uniform(0.13, 0.28, count)
    # Each ball touches one before it, so that all is one piece.
    for k in range(1, count):
        other = centers[int(rng.integers(k))]
        offset = centers[k] - other
        centers[k] = other + offset / np.linalg.norm(offset) * 0.9 * (radii[k] + radii[k - 1])
    return _soft_union([(c, c, r) for c, r in zip(centers, radii, strict=True)], rng.uniform(0.03, 0.12))


def figure(rng: Generator) -> Manifold:
    """Toy animal or doll: trunk, head, limbs and perhaps tail and ears, melted together."""
    upright = rng.random() < 0.4
    length, thick = rng.uniform(0.3, 0.55), rng.uniform(0.12, 0.22)
    limb, leg = rng.uniform(0.045, 0.085), rng.uniform(0.2, 0.5)
    parts: list[tuple[np.ndarray, np.ndarray, float]] = []
    side = thick * rng.uniform(0.5, 1.0)

    def add(start: tuple[float, ...], end: tuple[float, ...], radius: float) -> None:
        parts.append((np.array(start), np.array(end), radius))

    if upright:
        top = leg + length
        add((0, 0, leg), (0, 0, top), thick)
        add((0, 0, top + thick), (0, 0, top + 1.4 * thick), thick * rng.uniform(0.7, 1.3))
        reach = rng.uniform(-0.3, 0.4)
        for sign in (-1, 1):
            add((0, sign * side, leg), (rng.uniform(-0.05, 0.1), sign * side * 1.2, 0.0), limb * 1.2)
            add((0, sign * thick, top - 0.05), (0.1, sign * (thick + 0.25), top - 0.05 + reach), limb)
    else:
        add((-length / 2, 0, leg), (length / 2, 0, leg + rng.uniform(-0.02, 0.06)), thick)
        neck = rng.uniform(0.05, 0.35)
        head = (length / 2 + 0.1 + 0.4 * neck, 0, leg + neck + 0.08)
        add((length / 2, 0, leg), head, 0.6 * thick)
        add(head, (head[0] + rng.uniform(0.05, 0.2), 0, head[2] - 0.02), thick * rng.uniform(0.5, 0.8))
        for x in (-length / 2, length / 2):
            for sign in (-1, 1):
                add((x, sign * side, leg), (x + rng.uniform(-0.05, 0.05), sign * side, 0.0), limb)
        if rng.random() < 0.7:
            add(
                (-length / 2, 0, leg + 0.05),
                (-length / 2 - rng.uniform(0.15, 0.4), 0, leg + rng.uniform(-0.1, 0.3)),
                limb * 0.7,
            )
        if rng.random() < 0.6:
            for sign in (-1, 1):
                add(head, (head[0] - 0.03, sign * 0.12, head[2] + rng.uniform(0.12, 0.25)), limb * 0.7)
    return _soft_union(parts, rng.uniform(0.015, 0.06))


def _soft_union(parts: list[tuple[np.ndarray, np.ndarray, float]], softness: float, cells: int = 44) -> Manifold:
    """Capsules (start, end, radius) joined with smooth transitions."""
    starts, ends = (np.array([p[k] for p in parts], dtype=np.float64) for k in (0, 1))
    radii = np.array([p[2] for p in parts])
    margin = radii.max() + 2 * softness
    low, high = np.minimum(starts, ends).min(axis=0) - margin, np.maximum(starts, ends).max(axis=0) + margin
    spacing = float((high - low).max()) / cells
    axes = [np.arange(low[k], high[k] + spacing, spacing) for k in range(3)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    spread = np.zeros(grid.shape[:3])
    for start, end, radius in zip(starts, ends, radii, strict=True):
        along = end - start
        share = np.clip((grid - start) @ along / max(float(along @ along), 1e-12), 0.0, 1.0)
        distance = np.linalg.norm(grid - start - share[..., None] * along, axis=-1) - radius
        spread += np.exp(-distance / softness)
    field = softness * np.log(np.maximum(spread, 1e-30))
    return _largest(from_field(field, low, spacing))


def grown(rng: Generator) -> Manifold:
    """A trunk from which limbs grow, and limbs from those: of uneven blocks, of faceted or round bodies, or melted."""
    centers, halves = [np.zeros(3)], [rng.uniform(0.15, 0.6, 3)]
    for _ in range(int(rng.integers(1, 8))):
        parent = int(rng.integers(len(centers)))
        axis, sign = int(rng.integers(3)), float(rng.choice([-1.0, 1.0]))
        half = halves[parent] * rng.uniform(0.25, 0.95, 3)
        half[axis] = rng.uniform(0.08, 0.5)
        offset = rng.uniform(-1, 1, 3) * rng.choice([0.0, 1.0]) * (halves[parent] - half)
        offset[axis] = sign * (halves[parent][axis] + 0.75 * half[axis])
        centers.append(centers[parent] + offset)
        halves.append(half)
    kind = rng.random()
    if kind < 0.6:
        return union([_uneven_block(rng, c, h) for c, h in zip(centers, halves, strict=True)])
    if kind < 0.8:
        sides = int(rng.choice([8, 12, 32]))
        return union([ball(1.25 * h, sides).translate(tuple(c)) for c, h in zip(centers, halves, strict=True)])
    limbs = []
    for center, half in zip(centers, halves, strict=True):
        along = np.where(half == half.max(), half.max() - np.median(half), 0.0)
        limbs.append((center - along, center + along, float(np.median(half))))
    return _soft_union(limbs, rng.uniform(0.03, 0.1))


def _uneven_block(rng: Generator, center: np.ndarray, half: np.ndarray) -> Manifold:
    corners = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), axis=-1).reshape(8, 3)
    return hull(center + half * corners * (1.0 + rng.normal(0, rng.choice([0.0, 0.1]), (8, 3))))


def carved(rng: Generator) -> Manifold:
    """Threshold of smooth noise inside a body: sponge, coral, driftwood, abstract sculpture."""
    cells = 40
    axis = np.linspace(-1, 1, cells)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    noise = gaussian_filter(rng.standard_normal((cells,) * 3), rng.uniform(3.5, 6.0))
    noise /= noise.std()
    body = 1.0 - (np.abs(grid / rng.uniform(0.55, 0.95, 3)) ** rng.uniform(2, 5)).sum(axis=-1)
    return _largest(
        from_field(np.minimum(body, 0.35 * (noise + rng.uniform(0.2, 1.0))), np.full(3, -1.0), 2 / (cells - 1))
    )


def _largest(made: Manifold) -> Manifold:
    return max(made.decompose(), key=lambda part: part.volume())


def csg(rng: Generator) -> Manifold:
    """A body of primitives added to and cut from each other."""
    made = _primitive(rng)
    for _ in range(int(rng.integers(1, 5))):
        offset = tuple(rng.uniform(-0.45, 0.45, 3))
        other = _primitive(rng).scale(tuple(rng.uniform(0.35, 0.9, 3))).translate(offset)
        cut = made - other if rng.random() < 0.45 else made + other
        # A cut that takes nearly all is not made.
        made = cut if cut.volume() > 0.35 * made.volume() else made
    return _largest(made)


def _primitive(rng: Generator) -> Manifold:
    kind = int(rng.integers(5))
    if kind == 0:
        return cuboid(rng.uniform(0.4, 1.0, 3), rng.choice([0.0, rng.uniform(0.03, 0.15)]))
    if kind == 1:
        made = cylinder(rng.uniform(0.2, 0.5), 1.0).translate((0, 0, -0.5))
    elif kind == 2:
        made = cylinder(0.5, 1.0, rng.uniform(0.02, 0.3)).translate((0, 0, -0.5))
    elif kind == 3:
        made = ball(rng.uniform(0.3, 0.6, 3), 32)
    else:
        made = superquadric(rng).scale((0.6, 0.6, 0.6))
    return made.rotate(tuple(rng.choice([0.0, 90.0], 3) + rng.choice([0.0, 1.0]) * rng.uniform(-45, 45, 3)))
