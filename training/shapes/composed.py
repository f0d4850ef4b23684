"""Objects of several parts: boxes and trays, books, tools, cutlery, towers, small furniture, toys and devices."""

from __future__ import annotations

import numpy as np
from manifold3d import JoinType, Manifold
from numpy.random import Generator

from . import organic
from .flat import regular
from .solids import ball, cuboid, cylinder, extruded, lathed, rounded, section, smooth_line, tube, union


def box(rng: Generator) -> Manifold:
    """Carton, block, tin or brick with sharp or rounded edges."""
    size = rng.uniform(0.2, 1.0, 3)
    made = cuboid(size, rng.choice([0.0, rng.uniform(0.03, 0.3)]) * size.min())
    if rng.random() < 0.25:  # a label or lid that stands proud
        proud = size * (1.03, 1.03, rng.uniform(0.15, 0.4))
        made += cuboid(proud, 0.03 * proud.min()).translate((0, 0, (size[2] - proud[2]) / 2 + 0.01))
    return made


def tray(rng: Generator) -> Manifold:
    """Open box, crate or tray, tapered or straight, some with dividers, a handle or holes to grip."""
    size = np.append(rng.uniform(0.5, 1.0, 2), rng.uniform(0.12, 0.8))
    wall, taper = rng.uniform(0.025, 0.07), rng.choice([1.0, rng.uniform(1.0, 1.25)])
    outline = section([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]).scale(tuple(size[:2]))
    outline = rounded(outline, rng.uniform(0.05, 0.3) * size[:2].min()) if rng.random() < 0.6 else outline
    inner = outline.offset(-wall, JoinType.Round)
    made = extruded(outline, size[2], top_scale=taper) - extruded(inner, size[2], top_scale=taper).translate(
        (0, 0, wall)
    )
    for axis in range(2):
        for _ in range(int(rng.integers(0, 3)) if rng.random() < 0.35 else 0):
            plate = np.where(np.arange(3) == axis, wall, size * (1, 1, 0.8) - (wall, wall, 0.0))
            offset = np.zeros(3)
            offset[axis], offset[2] = rng.uniform(-0.3, 0.3) * size[axis], 0.4 * size[2] + 0.1 * wall
            made += cuboid(plate).translate(tuple(offset))
    if rng.random() < 0.3:
        grip = cuboid((0.3 * size[0], 3.0, 0.18 * size[2]), 0.07 * size[2])
        made -= grip.translate((0, 0, 0.75 * size[2]))
    elif rng.random() < 0.3:
        turn = np.linspace(0, np.pi, 20)
        arc = np.column_stack(
            [0.5 * (size[0] * taper - wall) * np.cos(turn), 0 * turn, 0.96 * size[2] + 0.5 * np.sin(turn)]
        )
        made += tube(arc, 0.03, sides=12)
    return made


def lidded_box(rng: Generator) -> Manifold:
    """Chest or case with a lid, shut or half open, and a latch."""
    x, y, z = rng.uniform(0.6, 1.0), rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.6)
    wall = rng.uniform(0.03, 0.06)
    base = cuboid((x, y, z)) - cuboid((x - 2 * wall, y - 2 * wall, z)).translate((0, 0, wall))
    thick = rng.uniform(0.05, 0.15)
    lid = cuboid((1.03 * x, 1.03 * y, thick), 0.2 * thick).translate((0, y / 2, thick / 2))
    opening = rng.uniform(30, 110) if rng.random() < 0.5 else 0.0
    lid = lid.rotate((opening, 0, 0)).translate((0, -y / 2, z / 2 - 0.01))
    latch = cuboid((0.12 * x, 0.06, 0.12)).translate((0, y / 2 + 0.01, 0.3 * z))
    return base + lid + latch


def book(rng: Generator) -> Manifold:
    """Bound book or notebook: covers that stand over the pages, flat or upright."""
    x, y, thick = rng.uniform(0.5, 0.8), 1.0, rng.uniform(0.05, 0.3)
    cover = rng.uniform(0.008, 0.025)
    pages = cuboid((x - 0.05, y - 0.05, thick)).translate((-0.01, 0, 0))
    boards = [cuboid((x, y, cover)).translate((0, 0, s * thick / 2)) for s in (-1, 1)]
    spine = tube(np.array([[-x / 2, -y / 2, 0], [-x / 2, 0, 0], [-x / 2, y / 2, 0]]), thick / 2 + cover / 2)
    spine = spine ^ cuboid((2 * x, 2 * y, thick + cover))
    made = pages + boards[0] + boards[1] + spine.trim_by_plane((-1.0, 0.0, 0.0), x / 2 - 0.04)
    return made.rotate((90.0, 0.0, 0.0)) if rng.random() < 0.3 else made


def brick(rng: Generator) -> Manifold:
    """Building brick: a block with studs, hollow from below or with bores."""
    nx, ny = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    height = float(rng.choice([0.4, 1.2]))
    body = cuboid((nx, ny, height), 0.03)
    stud = cylinder(0.3, height / 2 + 0.22, segments=24)
    places = [(i - (nx - 1) / 2, j - (ny - 1) / 2, 0.0) for i in range(nx) for j in range(ny)]
    made = union([body, *(stud.translate(place) for place in places)])
    if rng.random() < 0.5:
        made -= cuboid((nx - 0.3, ny - 0.3, height)).translate((0, 0, -0.2))
    return made


def hammer(rng: Generator) -> Manifold:
    """Hammer, mallet, axe or pick, lying on its side."""
    length, grip = rng.uniform(0.8, 1.2), rng.uniform(0.03, 0.06)
    line = np.column_stack([np.linspace(0, length, 16), np.zeros(16), np.zeros(16)])
    shape = np.interp(
        np.linspace(0, 1, 16), [0, 0.1, 0.3, 1.0], [0.9, 1.15, rng.uniform(0.8, 1.1), rng.uniform(0.7, 0.9)]
    )
    handle = tube(line, grip * shape, flatness=rng.uniform(0.7, 1.2))
    face, width = rng.uniform(0.06, 0.14), rng.uniform(0.35, 0.6)
    kind = int(rng.integers(3))
    if kind == 0:  # claw hammer
        neck = lathed(
            [(0, 0), (face, 0), (face, 0.1), (0.6 * face, 0.16), (0.65 * face, 0.4 * width), (0, 0.4 * width)]
        )
        head = neck.rotate((90, 0, 0)).translate((length - 0.06, width / 2, 0))
        claw = smooth_line(
            [(length - 0.06, 0.2 * width, 0), (length - 0.06, -0.2 * width, 0), (length - 0.2, -0.55 * width, 0)], 12
        )
        head += tube(claw, np.linspace(0.65 * face, 0.15 * face, 12), flatness=1.3)
    elif kind == 1:  # mallet
        head = cuboid((2 * face, width, 1.8 * face), 0.4 * face).translate((length - 0.05, 0, 0))
    else:  # axe
        blade = section([(-0.06, -0.08), (0.12, -0.08), (0.3, -width), (-0.25, -width * 0.9), (-0.06, -0.05)])
        head = extruded(rounded(blade, 0.02), 1.2 * grip, top_scale=1.0).translate((length - 0.1, 0.04, -0.6 * grip))
        head += cuboid((0.2, 0.16, 2.6 * grip), 0.02).translate((length - 0.07, 0, 0))
    return handle + head


def screwdriver(rng: Generator) -> Manifold:
    """Screwdriver, chisel, awl, pen or torch: a thick grip with a thin shaft along x."""
    grip, shaft = rng.uniform(0.06, 0.12), rng.uniform(0.02, 0.04)
    heights = np.array([0.0, 0.04, 0.2, 0.34, 0.42]) * rng.uniform(0.9, 1.5)
    radii = grip * np.array([0.8, 1.0, rng.uniform(0.75, 1.1), rng.uniform(0.6, 1.0), 0.8])
    handle = lathed([(0, 0), *zip(radii, heights, strict=True), (0, heights[-1])])
    if rng.random() < 0.5:
        flutes = cylinder(0.2 * grip, 2.0, segments=12).translate((1.08 * grip, 0, -0.1))
        handle -= union([flutes.rotate((0, 0, 60.0 * k)) for k in range(6)])
    length = rng.uniform(0.3, 0.8)
    tip = cylinder(shaft, length, shaft * rng.uniform(0.3, 1.0), 20).translate((0, 0, heights[-1] - 0.02))
    flat = cuboid((3 * shaft, 0.6 * shaft, 0.12)).translate((0, 0, heights[-1] + length - 0.05))
    made = handle + tip
    made = made + flat if rng.random() < 0.5 else made
    return made.rotate((0.0, 90.0, 0.0)) if rng.random() < 0.8 else made


def wrench(rng: Generator) -> Manifold:
    """Open-end or ring spanner, bottle opener or key: a flat bar with shaped ends."""
    thick, head = rng.uniform(0.05, 0.12), rng.uniform(0.1, 0.2)
    bar = section([(0, -0.4 * head), (1, -0.3 * head), (1, 0.3 * head), (0, 0.4 * head)])
    for place in ((0.0, 0.0), (1.0, 0.0)) if rng.random() < 0.6 else ((0.0, 0.0),):
        outward = 180.0 if place[0] == 0.0 else 0.0
        disc = section(regular(24, head)).translate(place)
        if rng.random() < 0.5:
            gap = section(
                [(0.2 * head, -0.5 * head), (2 * head, -0.5 * head), (2 * head, 0.5 * head), (0.2 * head, 0.5 * head)]
            )
            opening = gap.rotate(outward + rng.uniform(-20, 20)).translate(place)
        else:
            opening = section(regular(6, 0.6 * head)).translate(place)
        bar = (bar + disc) - opening
    return extruded(rounded(bar, 0.015), thick)


def spoon(rng: Generator) -> Manifold:
    """Spoon, ladle, spatula or fork-like scoop with a slender bent handle."""
    x, y = rng.uniform(0.14, 0.26), rng.uniform(0.09, 0.18)
    depth = rng.uniform(0.05, 0.14)
    cup = ball((x, y, depth)) - ball((0.9 * x, 0.88 * y, 0.85 * depth)).translate((0, 0, 0.2 * depth))
    cup = cup.trim_by_plane((0.0, 0.0, -1.0), 0.0)
    rise = rng.uniform(0.0, 0.4)
    path = smooth_line([(0.94 * x, 0, -0.04 * depth), (x + 0.25, 0, 0.3 * rise), (x + 0.8, 0, rise)], 18)
    thick = np.interp(np.linspace(0, 1, 18), [0, 0.3, 1], [0.028, 0.02, rng.uniform(0.025, 0.05)])
    made = cup + tube(path, thick, flatness=rng.uniform(1.0, 1.8), sides=12)
    return max(made.decompose(), key=lambda part: part.volume())


def brush(rng: Generator) -> Manifold:
    """Brush, roller, squeegee or broom head on a handle."""
    width, height = rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.4)
    thick = rng.uniform(0.08, 0.2)
    head = cuboid((0.14, width, thick), 0.03)
    tips = cuboid((height, 0.92 * width, 0.7 * thick)).translate((height / 2 + 0.05, 0, 0))
    path = smooth_line([(0, 0, 0), (-0.3, 0, rng.uniform(-0.1, 0.1)), (-0.9, 0, rng.uniform(-0.15, 0.15))], 16)
    shape = np.interp(np.linspace(0, 1, 16), [0, 0.3, 0.7, 1], [0.05, 0.035, 0.055, 0.04])
    return union([head, tips, tube(path, shape, sides=14)])


def bolt(rng: Generator) -> Manifold:
    """Bolt, screw, nail, peg or anchor: head, shank and perhaps ribs and a nut."""
    shank, length = rng.uniform(0.08, 0.2), rng.uniform(0.7, 1.4)
    corners = int(rng.choice([4, 6, 6, 32]))
    head = extruded(section(regular(corners, shank * rng.uniform(1.6, 2.6))), rng.uniform(0.1, 0.3))
    steps = np.linspace(0.1, length, 2 * int(rng.integers(6, 14)))
    radii = shank * np.where(np.arange(len(steps)) % 2 == 0, 1.0, rng.uniform(0.8, 1.0))
    body = lathed([(0, 0), (shank, 0.0), *zip(radii, steps, strict=True), (0, length + rng.uniform(0.01, 0.15))])
    made = head + body
    if rng.random() < 0.4:
        nut = extruded(section(regular(6, 2.2 * shank)), 0.2) - cylinder(0.5 * shank, 1.0)
        made += nut.translate((0, 0, rng.uniform(0.4, 0.8) * length))
    return made.rotate((180.0 if rng.random() < 0.5 else 90.0, 0, 0))


def tower(rng: Generator) -> Manifold:
    """Primitives stacked on each other: towers, lamps, chess-like and totem-like pieces."""
    level, parts, width = 0.0, [], rng.uniform(0.4, 0.7)
    for _ in range(int(rng.integers(2, 6))):
        height = rng.uniform(0.12, 0.6)
        kind = int(rng.integers(5))
        if kind == 0:
            part = cuboid((width, width * rng.uniform(0.5, 1), height), 0.1 * height).translate((0, 0, height / 2))
        elif kind == 1:
            part = cylinder(width / 2, height, width / 2 * rng.uniform(0.3, 1.2))
        elif kind == 2:
            part = ball((width / 2, width / 2, height / 2), 32).translate((0, 0, height / 2))
        elif kind == 3:
            part = extruded(section(regular(int(rng.integers(3, 7)), width / 2)), height)
        else:
            part = organic.superquadric(rng).scale((width / 2, width / 2, height / 2)).translate((0, 0, 0.4 * height))
        shift = rng.uniform(-0.08, 0.08, 2) * width
        low = part.bounding_box()[2]
        parts.append(part.rotate((0, 0, rng.uniform(0, 90))).translate((*shift, level - low)))
        top = parts[-1].bounding_box()[5]
        level, width = top - 0.03, width * rng.uniform(0.6, 1.1)
    return union(parts)


def table(rng: Generator) -> Manifold:
    """Table, stool, bench, shelf or chair as a model: top, legs, perhaps a back or a second board."""
    x, y, height = rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8), rng.uniform(0.35, 1.0)
    thick, leg = rng.uniform(0.04, 0.1), rng.uniform(0.03, 0.07)
    if rng.random() < 0.35:
        board = cylinder(0.5, thick).scale((x, y, 1.0)).translate((0, 0, -thick / 2))
        inset = 0.33
    else:
        board, inset = cuboid((x, y, thick), 0.2 * thick), 0.45
    parts = [board.translate((0, 0, height))]
    spread = rng.uniform(0.0, 0.08)
    if rng.random() < 0.25:
        parts += [cylinder(leg, height), cylinder(0.35 * min(x, y), thick)]
    else:
        for sx in (-1, 1):
            for sy in (-1, 1):
                top = np.array([sx * (inset * x - leg), sy * (inset * y - leg), height])
                foot = top * (1, 1, 0) + (sx * spread, sy * spread, 0.0)
                parts.append(tube(np.linspace(foot, top, 3), leg, sides=int(rng.choice([4, 12]))))
        if rng.random() < 0.4:
            low = rng.uniform(0.2, 0.6) * height
            parts.append(cuboid((2 * inset * x, 2 * inset * y, 0.5 * thick)).translate((0, 0, low)))
    if rng.random() < 0.35:
        back = rng.uniform(0.4, 0.9)
        parts.append(cuboid((thick, 0.9 * y, back), 0.2 * thick).translate((-inset * x, 0, height + back / 2)))
    return union(parts)


def vehicle(rng: Generator) -> Manifold:
    """Toy car, truck, train or cart on wheels."""
    length, width, height = rng.uniform(0.7, 1.1), rng.uniform(0.3, 0.5), rng.uniform(0.12, 0.3)
    wheel = rng.uniform(0.08, 0.16)
    parts = [cuboid((length, width, height), 0.2 * height).translate((0, 0, wheel + height / 2))]
    cab = (rng.uniform(0.25, 0.6) * length, 0.86 * width, rng.uniform(0.15, 0.35))
    place = rng.uniform(-0.3, 0.3) * length
    parts.append(cuboid(cab, 0.15 * min(cab)).translate((place, 0, wheel + height + 0.4 * cab[2])))
    axles = np.linspace(-0.36, 0.36, int(rng.integers(2, 4))) * length
    disc = cylinder(wheel, 0.25 * width, segments=28).rotate((90, 0, 0))
    for x in axles:
        parts += [disc.translate((x, side, wheel)) for side in (-0.36 * width, 0.61 * width)]
    if rng.random() < 0.3:
        parts.append(cylinder(0.06, 0.3).translate((-0.38 * length, 0, wheel + height - 0.05)))
    return union(parts)


def device(rng: Generator) -> Manifold:
    """Remote, phone, game pad, calculator, radio or camera: a slab with buttons, a screen, an aerial or a lens."""
    x, y, thick = rng.uniform(0.35, 1.0), 1.0, rng.uniform(0.06, 0.4)
    made = cuboid((x, y, thick), rng.uniform(0.1, 0.45) * thick)
    if rng.random() < 0.6:
        made -= cuboid((0.76 * x, 0.3 * y, 0.1 * thick)).translate((0, 0.28 * y, 0.49 * thick))
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    pitch = (0.76 * x / columns, 0.5 * y / rows)
    size = 0.33 * min(pitch)
    key = (
        cylinder(size, 0.25 * thick, segments=16)
        if rng.random() < 0.5
        else cuboid((1.6 * size, 1.6 * size, 0.3 * thick))
    )
    for row in range(rows):
        for column in range(columns):
            place = ((column + 0.5) * pitch[0] - 0.38 * x, (row + 0.5) * pitch[1] - 0.42 * y, 0.4 * thick)
            made += key.translate(place)
    if rng.random() < 0.25:
        made += cylinder(0.04, rng.uniform(0.3, 0.6)).rotate((-90, 0, 0)).translate((0.35 * x, 0.45 * y, 0))
    if rng.random() < 0.25:
        lens = cylinder(0.32 * x, thick, 0.28 * x) - cylinder(0.24 * x, thick).translate((0, 0, 0.85 * thick))
        made += lens.translate((0, 0.2 * y, 0.3 * thick))
    standing = rng.random() < 0.35
    return made.rotate((90.0, 0.0, 0.0)) if standing else made


def lamp(rng: Generator) -> Manifold:
    """Desk lamp, mushroom or umbrella stand: foot, straight or bent stem and a hollow shade."""
    foot, height = rng.uniform(0.2, 0.4), rng.uniform(0.7, 1.4)
    base = lathed([(0, 0), (foot, 0), (foot, 0.04), (0.3 * foot, 0.12), (0, 0.12)])
    lean = rng.uniform(0.0, 0.5) if rng.random() < 0.5 else 0.0
    top = np.array([lean, 0.0, height])
    stem = tube(
        smooth_line([(0, 0, 0.05), (-0.3 * lean, 0, 0.5 * height), tuple(top)], 16), rng.uniform(0.025, 0.05), sides=12
    )
    wide, narrow, deep, wall = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.25), rng.uniform(0.2, 0.5), 0.03
    profile = [(0, 0), (narrow, 0), (wide, -deep), (wide - wall, -deep), (narrow - 0.5 * wall, -wall), (0, -wall)]
    shade = lathed(profile).rotate((0.0, rng.uniform(0, 50) * (lean > 0), 0.0)).translate((lean, 0.0, height + 0.02))
    return union([base, stem, shade])
