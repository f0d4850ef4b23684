"""Objects cut from sheet or bar: prisms, brackets, gears, letters, frames, keys and bent tubes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from manifold3d import CrossSection, JoinType, Manifold, OpType
from numpy.random import Generator

from .solids import cylinder, extruded, rounded, section, smooth_line, stroke, tube, union

GLYPHS: dict[str, tuple[tuple[tuple[float, float], ...], ...]] = {
    "A": (((0, 0), (0.5, 1.2), (1, 0)), ((0.2, 0.45), (0.8, 0.45))),
    "C": (((0.9, 1.0), (0.5, 1.2), (0.1, 0.95), (0.05, 0.3), (0.45, 0), (0.9, 0.2)),),
    "E": (((0.9, 0), (0, 0), (0, 1.2), (0.9, 1.2)), ((0, 0.6), (0.7, 0.6))),
    "F": (((0, 0), (0, 1.2), (0.9, 1.2)), ((0, 0.6), (0.7, 0.6))),
    "H": (((0, 0), (0, 1.2)), ((0.9, 0), (0.9, 1.2)), ((0, 0.6), (0.9, 0.6))),
    "K": (((0, 0), (0, 1.2)), ((0.9, 1.2), (0, 0.5)), ((0.3, 0.75), (0.9, 0))),
    "M": (((0, 0), (0, 1.2), (0.5, 0.5), (1, 1.2), (1, 0)),),
    "P": (((0, 0), (0, 1.2), (0.7, 1.15), (0.85, 0.85), (0.7, 0.58), (0, 0.55)),),
    "R": (((0, 0), (0, 1.2), (0.7, 1.15), (0.85, 0.85), (0.7, 0.58), (0, 0.55)), ((0.4, 0.55), (0.9, 0))),
    "S": (((0.9, 1.05), (0.5, 1.2), (0.1, 0.95), (0.5, 0.6), (0.9, 0.3), (0.5, 0), (0.05, 0.15)),),
    "X": (((0, 0), (0.9, 1.2)), ((0, 1.2), (0.9, 0))),
    "Y": (((0, 1.2), (0.45, 0.6), (0.9, 1.2)), ((0.45, 0.6), (0.45, 0))),
    "Z": (((0, 1.2), (0.9, 1.2), (0, 0), (0.9, 0)),),
    "2": (((0.05, 0.95), (0.45, 1.2), (0.85, 0.9), (0.05, 0), (0.9, 0)),),
    "4": (((0.7, 0), (0.7, 1.2), (0, 0.35), (0.95, 0.35)),),
    "7": (((0, 1.2), (0.9, 1.2), (0.35, 0)),),
}
"""Strokes of letters and digits, each a line of (x, y)."""


def regular(corners: int, radius: float = 0.5, inner: float = 1.0) -> np.ndarray:
    """(N, 2) a regular polygon, or a star when `inner` < 1 pulls every second corner in."""
    count = corners if inner == 1.0 else 2 * corners
    angle = np.arange(count) * (2 * np.pi / count)
    reach = np.where(np.arange(count) % 2 == 0, radius, radius * inner)
    return np.column_stack([reach * np.cos(angle), reach * np.sin(angle)])


def prism(rng: Generator) -> Manifold:
    """Prism or pyramid stump over a polygon or star, straight, tapered or twisted."""
    corners = int(rng.integers(3, 9))
    star = rng.random() < 0.35
    outline = section(regular(corners, inner=rng.uniform(0.4, 0.8) if star else 1.0))
    outline = outline.scale((1.0, rng.uniform(0.5, 1.0)))
    if rng.random() < 0.5:
        outline = rounded(outline, rng.uniform(0.02, 0.08))
    twist = rng.uniform(-90, 90) if rng.random() < 0.3 else 0.0
    top = rng.uniform(0.05, 1.0) if rng.random() < 0.4 else 1.0
    made = extruded(outline, rng.uniform(0.1, 1.6), twist_deg=twist, top_scale=top)
    if top == 1.0 and rng.random() < 0.3:
        made -= extruded(outline.scale((0.6, 0.6)), 5.0, twist_deg=0.0).translate((0, 0, -1.0 if twist == 0 else 0.1))
    return made


def bracket(rng: Generator) -> Manifold:
    """Profiled bar: L, T, U, H, Z, plus; some with holes and rounded inner corners."""
    a, b, t = rng.uniform(0.5, 1.0), rng.uniform(0.4, 1.0), rng.uniform(0.07, 0.2)
    lines: dict[str, list[list[tuple[float, float]]]] = {
        "L": [[(0, b), (0, 0), (a, 0)]],
        "T": [[(0, b), (a, b)], [(a / 2, b), (a / 2, 0)]],
        "U": [[(0, b), (0, 0), (a, 0), (a, b)]],
        "H": [[(0, 0), (0, b)], [(a, 0), (a, b)], [(0, b / 2), (a, b / 2)]],
        "Z": [[(0, b), (a / 2, b), (a / 2, 0), (a, 0)]],
        "+": [[(a / 2, 0), (a / 2, b)], [(0, b / 2), (a, b / 2)]],
    }
    chosen = lines[str(rng.choice(list(lines)))]
    pen = [_bar(line, t) for line in chosen]
    flat = CrossSection.batch_boolean(pen, OpType.Add)
    if rng.random() < 0.4:
        flat = rounded(flat, 0.3 * t)
    width = rng.uniform(0.15, 1.2)
    made = extruded(flat, width).rotate((90.0, 0.0, 0.0))
    if rng.random() < 0.5:
        hole = cylinder(rng.uniform(0.12, 0.3) * min(width, a), 6.0, segments=24).translate((0, 0, -3))
        made -= hole.translate((a * rng.uniform(0.55, 0.8), -width / 2, 0.0))
    return made


def _bar(line: list[tuple[float, float]], width: float) -> CrossSection:
    """A line of axis-parallel legs with square ends."""
    legs = []
    for start, end in pairwise(line):
        low, high = np.minimum(start, end) - width / 2, np.maximum(start, end) + width / 2
        legs.append(CrossSection.square(tuple(high - low)).translate(tuple(low)))
    return CrossSection.batch_boolean(legs, OpType.Add)


def gear(rng: Generator) -> Manifold:
    """Gear, cog, knob or sprocket with a hub, a bore and openings."""
    teeth = int(rng.integers(6, 25))
    root, height = 0.5 * rng.uniform(0.7, 0.9), rng.uniform(0.08, 0.45)
    phase = np.array([0.0, 0.18, 0.32, 0.5]) * rng.uniform(0.7, 1.2)
    angle = (np.arange(teeth)[:, None] + phase).reshape(-1) * (2 * np.pi / teeth)
    radius = np.tile([root, 0.5, 0.5, root], teeth)
    flat = section(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]))
    bore = rng.uniform(0.05, 0.25)
    twist = rng.uniform(-30, 30) if rng.random() < 0.3 else 0.0
    made = extruded(flat, height, twist_deg=twist)
    if rng.random() < 0.6:
        made += cylinder(bore + rng.uniform(0.04, 0.1), height + rng.uniform(0.05, 0.3))
    if rng.random() < 0.8:
        made -= cylinder(bore, 3.0).translate((0, 0, -1))
    count = int(rng.choice([0, 0, 3, 4, 5, 6]))
    ring = (bore + root) / 2
    if count and root - bore > 0.2:
        hole = cylinder(min(0.35 * (root - bore), 0.6 * ring * np.pi / count), 3.0, segments=24).translate(
            (ring, 0, -1)
        )
        made -= union([hole.rotate((0, 0, 360.0 * k / count)) for k in range(count)])
    return made


def letter(rng: Generator) -> Manifold:
    """A letter or digit, lying or standing, with round strokes."""
    strokes = GLYPHS[str(rng.choice(list(GLYPHS)))]
    width = rng.uniform(0.16, 0.3)
    flat = CrossSection.batch_boolean([stroke(line, width) for line in strokes], OpType.Add)
    made = extruded(flat, rng.uniform(0.12, 0.5))
    return made.rotate((90.0, 0.0, 0.0)) if rng.random() < 0.5 else made


def blob_plate(rng: Generator) -> Manifold:
    """Flat piece of any smooth outline, such as a puzzle piece, coaster or cookie, some with holes."""
    count = int(rng.integers(4, 10))
    angle = np.arange(count) * (2 * np.pi / count)
    radius = rng.uniform(0.25, 0.5, count)
    outline = smooth_line(np.column_stack([radius * np.cos(angle), radius * np.sin(angle)]), 72, closed=True)
    flat = rounded(section(outline), 0.02)
    for _ in range(int(rng.integers(0, 4))):
        place = rng.uniform(-0.2, 0.2, 2)
        flat -= CrossSection.circle(rng.uniform(0.02, 0.08), 24).translate(tuple(place))
    parts = flat.decompose()
    return extruded(max(parts, key=lambda part: part.area()), rng.uniform(0.05, 0.5), top_scale=rng.uniform(0.8, 1.0))


def frame(rng: Generator) -> Manifold:
    """Frame, buckle, washer or nut: an outline with an opening."""
    corners = int(rng.choice([4, 4, 6, 8, 48]))
    outline = section(regular(corners)).rotate(180.0 / corners).scale((1.0, rng.uniform(0.5, 1.0)))
    inner = rounded(outline, 0.03).offset(-rng.uniform(0.05, 0.13), JoinType.Miter, 2.0, 24)
    made = extruded(outline, rng.uniform(0.05, 0.5)) - extruded(inner, 4.0).translate((0, 0, -1))
    if rng.random() < 0.3:
        made += extruded(outline, 0.03)
    return made.rotate((80.0, 0, 0)) if rng.random() < 0.3 else made


def comb(rng: Generator) -> Manifold:
    """Comb, fork, rake or heat sink: a back with teeth."""
    teeth, length = int(rng.integers(3, 13)), rng.uniform(0.2, 0.8)
    thick = rng.uniform(0.05, 0.35)
    pitch = 1.0 / teeth
    back = CrossSection.square((1.0, rng.uniform(0.08, 0.25))).translate((0.0, -0.05))
    share = rng.uniform(0.35, 0.65)
    rods = [
        CrossSection.square((share * pitch, length)).translate(((k + 0.5 - share / 2) * pitch, 0.0))
        for k in range(teeth)
    ]
    flat = CrossSection.batch_boolean([back, *rods], OpType.Add)
    made = extruded(flat, thick)
    return made.rotate((90.0, 0.0, 0.0)) if rng.random() < 0.4 else made


def bent_tube(rng: Generator) -> Manifold:
    """Tube, hose, hook, banana or handle along a smooth curve, even or tapered, some hollow at the ends."""
    knots = rng.uniform(-0.5, 0.5, (int(rng.integers(3, 6)), 3)) * (1.0, 1.0, rng.choice([0.15, 1.0]))
    knots = np.cumsum(knots, axis=0) + np.outer(np.arange(len(knots)), rng.uniform(0.2, 0.5, 3))
    line = smooth_line(knots, 40)
    bends = np.linalg.norm(np.diff(line, n=2, axis=0), axis=1) / np.linalg.norm(np.diff(line, axis=0), axis=1)[:-1] ** 2
    # A tube thicker than its tightest bend would cut into itself.
    limit = 0.8 / max(float(bends.max()), 1e-6)
    thick = min(rng.uniform(0.07, 0.24), limit)
    ends = rng.uniform(0.3, 1.0, 2)
    taper = np.interp(np.linspace(0, 1, 40), [0, 0.5, 1], [ends[0], 1.0, ends[1]])
    return tube(line, thick * taper, sides=18, flatness=rng.uniform(0.6, 1.0))


def ring(rng: Generator) -> Manifold:
    """Closed loop of tube: ring, wreath, bracelet, wavy or flat."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    waves, height = int(rng.integers(2, 7)), rng.uniform(0.0, 0.15) * (rng.random() < 0.5)
    wide = rng.uniform(0.6, 1.0)
    line = np.column_stack([0.5 * np.cos(angle), 0.5 * wide * np.sin(angle), height * np.sin(waves * angle)])
    made = tube(line, rng.uniform(0.05, 0.17), sides=16, closed=True)
    return made.scale((1.0, 1.0, rng.uniform(0.4, 2.0)))


def spring(rng: Generator) -> Manifold:
    """Coil spring or corkscrew."""
    turns = rng.uniform(2.0, 4.5)
    angle = np.linspace(0, 2 * np.pi * turns, int(20 * turns))
    pitch = rng.uniform(0.2, 0.4)
    line = np.column_stack([0.4 * np.cos(angle), 0.4 * np.sin(angle), pitch * angle / (2 * np.pi)])
    return tube(line, rng.uniform(0.04, 0.4 * pitch), sides=12)
