"""Turned and thrown objects: vessels with walls, lids and handles, and solid turned pieces."""

from __future__ import annotations

import numpy as np
from manifold3d import Manifold
from numpy.random import Generator

from gena3d_core.types import Float64Array

from .solids import cylinder, lathed, smooth_line, smooth_profile, tube, union


def vessel(outside: Float64Array, wall: float, base: float) -> Manifold:
    """A hollow body of revolution from its outside (N, 2) of (radius, height), lowest point first, open at the top."""
    low, high = outside[0, 1], outside[-1, 1]
    inside = outside[outside[:, 1] > low + base + 1e-6].copy()
    floor = np.interp(low + base, outside[:, 1], outside[:, 0])
    inside = np.concatenate([[[floor, low + base]], inside])
    inside[:, 0] = np.maximum(inside[:, 0] - wall, 0.25 * inside[:, 0])
    rim = [((outside[-1, 0] + inside[-1, 0]) / 2.0, high + 0.35 * wall)]
    return lathed(np.concatenate([[(0.0, low)], outside, rim, inside[::-1], [(0.0, low + base)]]))


def _cup_outside(rng: Generator, height: float) -> Float64Array:
    foot = rng.uniform(0.55, 1.0)
    belly = rng.uniform(0.85, 1.15)
    lip = rng.uniform(0.9, 1.15)
    return smooth_profile([0.0, 0.06, 0.45, 1.0], np.array([0.93 * foot, foot, belly, lip]) * 0.5, 20) * (1.0, height)


def cup(rng: Generator) -> Manifold:
    """Tumbler, beaker or pot, straight or bellied."""
    height = rng.uniform(0.8, 2.2)
    return vessel(_cup_outside(rng, height), rng.uniform(0.02, 0.07), rng.uniform(0.04, 0.1))


def mug(rng: Generator) -> Manifold:
    """Cup with one handle."""
    height = rng.uniform(0.85, 1.5)
    outside = _cup_outside(rng, height)
    wall = rng.uniform(0.03, 0.06)
    body = vessel(outside, wall, rng.uniform(0.05, 0.09))
    return _with_handle(rng, body, outside, wall, height)


def _with_handle(rng: Generator, body: Manifold, outside: Float64Array, wall: float, height: float) -> Manifold:
    low, high = rng.uniform(0.12, 0.3) * height, rng.uniform(0.68, 0.9) * height
    reach = rng.uniform(0.22, 0.5)
    radius = np.interp([low, high], outside[:, 1], outside[:, 0]) - 0.5 * wall
    square = rng.uniform(0.55, 1.0)
    far = radius.max() + reach
    points = [
        (radius[0], 0.0, low),
        (far - (1 - square) * reach, 0.0, low + 0.04 * height),
        (far, 0.0, (low + high) / 2.0),
        (far - (1 - square) * reach, 0.0, high - 0.02 * height),
        (radius[1], 0.0, high),
    ]
    thick = rng.uniform(0.045, 0.08)
    handle = tube(smooth_line(points, 24), thick, flatness=rng.uniform(0.7, 1.7))
    # What the handle pokes into the hollow is cut away: the wall is thicker than the cut is deep.
    hollow = np.column_stack([np.maximum(outside[:, 0] - 0.9 * wall, 0.01), outside[:, 1]])
    core = lathed(np.concatenate([[(0.0, hollow[0, 1])], hollow, [(0.0, hollow[-1, 1])]]))
    return body + (handle - core)


def pitcher(rng: Generator) -> Manifold:
    """Jug or teapot: a bellied vessel with a handle and a spout."""
    height = rng.uniform(0.8, 1.5)
    radii = np.array([rng.uniform(0.3, 0.45), 0.5, rng.uniform(0.3, 0.5), rng.uniform(0.28, 0.42)])
    outside = smooth_profile([0.0, 0.4, 0.8, 1.0], radii, 24) * (1.0, height)
    wall = rng.uniform(0.03, 0.05)
    body = _with_handle(rng, vessel(outside, wall, 0.06), outside, wall, height)
    start = rng.uniform(0.3, 0.65) * height
    root = float(np.interp(start, outside[:, 1], outside[:, 0]))
    path = [
        (-root + 0.08, 0.0, start),
        (-root - 0.15, 0.0, start + 0.12),
        (-root - 0.3, 0.0, height * rng.uniform(0.85, 1.1)),
    ]
    line = smooth_line(path, 14)
    thick = np.linspace(0.11, 0.055, 14)
    spout = tube(line, thick)
    solid_body = lathed(np.concatenate([[(0.0, 0.0)], outside, [(0.0, height)]]))
    made = body + (spout - solid_body)
    if rng.random() < 0.5:
        rim = outside[-1, 0]
        made += _lid(rng, rim).translate((0.0, 0.0, height))
    return made


def _lid(rng: Generator, radius: float) -> Manifold:
    knob = rng.uniform(0.12, 0.25) * radius
    dome = rng.uniform(0.05, 0.35) * radius
    cap = lathed(
        np.concatenate(
            [
                [(0.0, -0.04), (0.85 * radius, -0.04), (1.04 * radius, 0.0), (1.04 * radius, 0.04)],
                smooth_profile([0.0, 1.0], [1.0, 0.0], 8)[1:-1] * (radius, dome) + (0.0, 0.05),
                [(0.0, dome + 0.05)],
            ]
        )
    )
    return cap + Manifold.sphere(knob, 24).as_original().translate((0.0, 0.0, dome + 0.05 + 0.6 * knob))


def bowl(rng: Generator) -> Manifold:
    """Bowl or deep plate on a foot."""
    height, foot = rng.uniform(0.15, 0.65), rng.uniform(0.2, 0.38)
    curve = rng.uniform(0.35, 1.3)
    z = np.linspace(0.0, 1.0, 20)
    radius = foot + (0.5 - foot) * z**curve
    outside = np.column_stack([radius, height * (0.06 + 0.94 * z)])
    outside = np.concatenate([[[foot * 0.95, 0.0]], outside])
    return vessel(outside, rng.uniform(0.015, 0.04), rng.uniform(0.03, 0.07))


def plate(rng: Generator) -> Manifold:
    """Flat plate, saucer or lid with a raised rim."""
    height, wall = rng.uniform(0.05, 0.14), rng.uniform(0.015, 0.03)
    flat = rng.uniform(0.28, 0.4)
    profile = [(0, 0), (flat, 0), (0.5, height - wall), (0.505, height - wall / 2), (0.5, height)]
    return lathed([*profile, (flat - 0.5 * wall, wall), (0, wall)])


def bottle(rng: Generator) -> Manifold:
    """Closed bottle, flask or jar with its cap."""
    slim = rng.uniform(0.14, 0.3)
    neck = slim * rng.uniform(0.25, 0.75)
    shoulder, top = rng.uniform(0.4, 0.7), rng.uniform(0.75, 0.86)
    waist = slim * rng.uniform(0.8, 1.05)
    body = smooth_profile(
        [0.0, 0.03, 0.25, shoulder, top, 0.9], [0.9 * slim, slim, waist, slim * rng.uniform(0.9, 1.0), neck, neck], 34
    )
    wide = neck * rng.uniform(1.05, 1.35)
    cap = cylinder(wide, rng.uniform(0.07, 0.14), wide * rng.uniform(0.9, 1.0)).translate((0.0, 0.0, 0.88))
    glass = lathed(np.concatenate([[(0.0, rng.uniform(0.0, 0.02))], body, [(0.0, 0.9)]]))
    if rng.random() < 0.35:  # flat flasks
        glass = glass.scale((1.0, rng.uniform(0.5, 0.9), 1.0))
    return glass + cap


def vase(rng: Generator) -> Manifold:
    """Hollow vase, amphora or carafe of any profile."""
    count = int(rng.integers(4, 7))
    radii = rng.uniform(0.12, 0.38, count)
    radii[0] = max(radii[0], 0.15)
    outside = smooth_profile(np.linspace(0.0, 1.0, count), radii, 36)
    return vessel(outside, rng.uniform(0.02, 0.045), rng.uniform(0.03, 0.08))


def goblet(rng: Generator) -> Manifold:
    """Stemmed glass, egg cup or cake stand."""
    stem, foot, lip = rng.uniform(0.025, 0.07), rng.uniform(0.18, 0.3), rng.uniform(0.18, 0.42)
    start = rng.uniform(0.3, 0.6)
    belly = lip * rng.uniform(0.85, 1.25)
    bowl_outside = smooth_profile([start, start + 0.12, (start + 1) / 2, 1.0], [stem, 0.75 * belly, belly, lip], 18)
    wall = rng.uniform(0.02, 0.035)
    inside = bowl_outside[bowl_outside[:, 0] > wall + 0.03].copy()
    inside[:, 0] -= wall
    base = inside[0, 1] + 0.01
    inside[0, 1] = base
    profile = [(0.0, 0.0), (foot, 0.0), (foot, 0.02), (0.4 * foot + 0.6 * stem, 0.05), (stem, 0.12)]
    return lathed(np.concatenate([profile, bowl_outside, inside[::-1], [(0.0, base)]]))


def jar(rng: Generator) -> Manifold:
    """Wide closed vessel with a lid: sugar bowl, tin, cookie jar."""
    height = rng.uniform(0.5, 1.4)
    radii = 0.5 * np.array([rng.uniform(0.7, 1.0), 1.0, rng.uniform(0.85, 1.0), rng.uniform(0.7, 0.95)])
    outside = smooth_profile([0.0, 0.35, 0.75, 1.0], radii, 24) * (1.0, height)
    body = lathed(np.concatenate([[(0.0, 0.02)], outside, [(0.0, height)]]))
    return body + _lid(rng, outside[-1, 0]).translate((0.0, 0.0, height))


def can(rng: Generator) -> Manifold:
    """Tin, drum, roll or puck, with rings or a hole."""
    height, edge = rng.uniform(0.25, 2.6), rng.uniform(0.01, 0.06)
    profile = [(0, edge * 0.5), (0.38, edge * 0.5), (0.4, 0), (0.5 - edge, 0), (0.5, edge), (0.5, height - edge)]
    profile += [(0.5 - edge, height), (0.42, height), (0.41, height - edge * 0.7), (0, height - edge * 0.7)]
    body = lathed(profile)
    if rng.random() < 0.3:
        body -= cylinder(rng.uniform(0.1, 0.36), height + 1.0).translate((0.0, 0.0, -0.5))
    return body


def turned(rng: Generator) -> Manifold:
    """Solid turned piece: pawn, candlestick, knob, spinning top, bell, pin."""
    count = int(rng.integers(4, 9))
    height = rng.uniform(0.8, 2.8)
    radii = rng.uniform(0.1, 0.5, count)
    radii[0] = rng.uniform(0.2, 0.5)
    profile = smooth_profile(np.linspace(0.0, height, count), radii, 40)
    if rng.random() < 0.4:  # sharp steps instead of curves
        profile = np.repeat(profile[:: 40 // count], 2, axis=0)
        profile[1:, 1] = np.concatenate([profile[2:, 1], [height]])
        profile[:, 1] += np.arange(len(profile)) * 1e-3
    top = profile[-1, 1]
    made = lathed(np.concatenate([[(0.0, 0.0)], profile, [(0.0, top + rng.choice([1e-3, 0.5 * profile[-1, 0]]))]]))
    if rng.random() < 0.4:
        made += Manifold.sphere(rng.uniform(0.12, 0.4), 32).as_original().translate((0.0, 0.0, top))
    return made


def fruit(rng: Generator) -> Manifold:
    """Apple, pear, lemon, egg or pumpkin, some with a stalk."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 36)
    pear, dent = rng.uniform(-0.1, 0.45), rng.uniform(0.0, 0.3)
    radius = 0.5 * np.cos(angle) * (1.0 - pear * np.sin(angle))
    near_pole = np.exp(-((np.abs(angle) - np.pi / 2) ** 2) / 0.06)
    height = rng.uniform(0.4, 0.65) * (np.sin(angle) - dent * np.sign(angle) * near_pole)
    profile = np.column_stack([radius, height])
    profile[[0, -1], 0] = 0.0
    made = lathed(profile)
    ribs = int(rng.choice([0, 0, 0, 6, 8, 10]))
    if ribs:
        depth = rng.uniform(0.04, 0.12)
        made = made.warp_batch(lambda p: _ribbed(p, ribs, depth)).as_original()
    if rng.random() < 0.6:
        top = height[-1]
        lean = rng.uniform(-0.1, 0.1, 2)
        stalk = smooth_line([(0, 0, top - 0.08), (0, 0, top + 0.08), (*lean, top + 0.2)], 8)
        made += tube(stalk, np.linspace(0.025, 0.04, 8), sides=10)
    return made


def _ribbed(points: np.ndarray, ribs: int, depth: float) -> np.ndarray:
    points = np.array(points)
    factor = 1.0 - depth * np.abs(np.sin(0.5 * ribs * np.arctan2(points[:, 1], points[:, 0])))
    points[:, :2] *= factor[:, None]
    return points


def pan(rng: Generator) -> Manifold:
    """Frying pan, saucepan or ladle cup with a straight handle, or a pot with two ears."""
    height, wall = rng.uniform(0.12, 0.7), rng.uniform(0.02, 0.04)
    outside = smooth_profile([0.0, 0.15, 1.0], [0.42, 0.46, rng.uniform(0.46, 0.56)], 12) * (1.0, height)
    body = vessel(outside, wall, 0.04)
    edge = float(np.interp(0.8 * height, outside[:, 1], outside[:, 0]))
    thick = rng.uniform(0.03, 0.05)
    if rng.random() < 0.6:
        length = rng.uniform(0.5, 1.1)
        rise = rng.uniform(0.0, 0.25)
        path = [
            (edge - 0.4 * wall, 0, 0.8 * height),
            (edge + 0.4 * length, 0, 0.8 * height + rise),
            (edge + length, 0, 0.8 * height + rise),
        ]
        return body + tube(smooth_line(path, 14), np.linspace(thick, 1.3 * thick, 14), flatness=rng.uniform(1.0, 1.8))
    turn = np.linspace(-np.pi / 2, np.pi / 2, 14)
    ear = np.column_stack([edge - 0.4 * wall + 0.18 * np.cos(turn), 0.16 * np.sin(turn), np.full(14, 0.75 * height)])
    left = tube(ear, thick, sides=12)
    return union([body, left, left.rotate((0.0, 0.0, 180.0))])
