"""Everyday objects from simple primitives: watertight meshes in metres, z up, origin at the bounding box centre."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ..errors import InputError
from ..types import Mesh
from .surfaces import arc, boolean, centred, lathe, resample, sweep
from .surfaces import box as _box


def box(size_m: Sequence[float] = (0.08, 0.06, 0.12), bevel_m: float = 0.002) -> Mesh:
    """Box with rounded edges; `size_m` (3,) extents."""
    size = np.asarray(size_m, dtype=np.float64)
    return centred(_box(size, bevel_m, max_edge_m=max(0.006, size.max() / 40)))


def cylinder(radius_m: float = 0.033, height_m: float = 0.12, bevel_m: float = 0.002) -> Mesh:
    """Upright cylinder with rounded edges."""
    bevel = min(bevel_m, 0.49 * height_m, 0.99 * radius_m)
    low, high = arc((radius_m - bevel, bevel), bevel, -90, 0), arc((radius_m - bevel, height_m - bevel), bevel, 0, 90)
    edge = [low, high] if bevel > 0 else [[(radius_m, 0.0)], [(radius_m, height_m)]]
    return centred(lathe(np.concatenate([[(0.0, 0.0)], *edge, [(0.0, height_m)]])))


def can(radius_m: float = 0.033, height_m: float = 0.115) -> Mesh:
    """Drinks can: chamfered shoulders, sunken lid, raised foot ring."""
    r, h = radius_m, height_m
    profile = [(0, 0.006), (0.70 * r, 0.004), (0.76 * r, 0), (0.82 * r, 0), (r, 0.010), (r, h - 0.012)]
    profile += [(0.86 * r, h - 0.002), (0.84 * r, h), (0.79 * r, h), (0.78 * r, h - 0.005), (0, h - 0.005)]
    return centred(lathe(np.array(profile)))


def cone(radius_m: float = 0.04, height_m: float = 0.10, top_radius_m: float = 0.0) -> Mesh:
    """Cone, or frustum when `top_radius_m` > 0."""
    top = [(top_radius_m, height_m)] if top_radius_m > 0 else []
    return centred(lathe(np.array([(0.0, 0.0), (radius_m, 0.0), *top, (0.0, height_m)])))


def ellipsoid(radii_m: Sequence[float] = (0.04, 0.04, 0.04)) -> Mesh:
    """Ellipsoid with half-axes (3,)."""
    radii = np.asarray(radii_m, dtype=np.float64)
    if radii.shape != (3,) or not (radii > 0).all():
        raise InputError(f"an ellipsoid needs three positive half-axes, got {radii.tolist()}")
    angle = np.deg2rad(np.linspace(-90.0, 90.0, 61))
    profile = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    profile[[0, -1], 0] = 0.0
    unit = lathe(profile, max_edge_m=1.0)
    return centred(type(unit)(unit.vertices * radii, unit.faces))


def sphere(radius_m: float = 0.04) -> Mesh:
    """Sphere."""
    return ellipsoid((radius_m, radius_m, radius_m))


def capsule(radius_m: float = 0.02, height_m: float = 0.10) -> Mesh:
    """Upright capsule of total height `height_m` >= 2 radius."""
    if height_m < 2 * radius_m:
        raise InputError(f"a capsule's height must be at least twice its radius, got {height_m} and {radius_m}")
    low = arc((0.0, radius_m), radius_m, -90, 0, 16)
    high = arc((0.0, height_m - radius_m), radius_m, 0, 90, 16)
    profile = np.concatenate([low, high])
    profile[[0, -1], 0] = 0.0
    return centred(lathe(profile))


def torus(major_radius_m: float = 0.05, minor_radius_m: float = 0.015) -> Mesh:
    """Torus lying flat."""
    if not 0 < minor_radius_m < major_radius_m:
        raise InputError(f"a torus needs 0 < minor < major radius, got {minor_radius_m} and {major_radius_m}")
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    ring = sweep(major_radius_m * np.stack([np.cos(angle), np.sin(angle)], axis=1), (minor_radius_m,) * 2, closed=True)
    return centred(type(ring)(ring.vertices[:, [0, 2, 1]], ring.faces[:, ::-1]))


def mug(radius_m: float = 0.041, height_m: float = 0.095, wall_m: float = 0.004, handle_m: float = 0.032) -> Mesh:
    """Hollow mug with a handle that reaches `handle_m` out along +x."""
    if not 0 < wall_m < 0.5 * radius_m:
        raise InputError(f"a mug's wall must be thinner than half its radius, got {wall_m} and {radius_m}")
    r, h, lip = radius_m, height_m, wall_m / 2.0
    foot, rim = arc((r - 0.006, 0.006), 0.006, -90, 0), arc((r - lip, h - lip), lip, 0, 90)
    outer = lathe(np.concatenate([[(0, 0)], foot, rim, [(0, h)]]))
    inner_radius, above = r - wall_m, h + 0.001
    floor = arc((inner_radius - 0.008, wall_m + 0.009), 0.008, -90, 0)
    opening = [(inner_radius, h - lip), (inner_radius + lip, above), (0, above)]
    cavity = lathe(np.concatenate([[(0, wall_m + 0.001)], floor, opening]))
    turn = np.deg2rad(np.linspace(-90.0, 90.0, 40))
    # the tube starts inside the wall so that the union has no gap; what reaches into the cavity is cut off with it
    root, half_height = r - wall_m, 0.34 * h
    path = np.stack([root + (handle_m + wall_m - 0.005) * np.cos(turn) ** 0.7, 0.5 * h + half_height * np.sin(turn)], 1)
    body = boolean("union", outer, sweep(path, (0.0050, 0.0075)))
    return centred(boolean("difference", body, cavity))


def bowl(radius_m: float = 0.075, height_m: float = 0.06, wall_m: float = 0.004) -> Mesh:
    """Open bowl on a foot ring."""
    foot, turn = 0.42 * radius_m, np.deg2rad(np.linspace(0.0, 90.0, 24))
    outside = np.stack([foot + (radius_m - foot) * np.sin(turn), 0.004 + (height_m - 0.004) * (1 - np.cos(turn))], 1)
    base = 0.004 + wall_m
    inside = np.stack(
        [
            foot - wall_m + (radius_m - foot) * np.sin(turn),
            base + (height_m - base) * (1 - np.cos(turn)),
        ],
        axis=1,
    )[::-1]
    start = [(0.0, 0.002), (foot - 0.004, 0.002), (foot - 0.003, 0.0), (foot, 0.0)]
    return centred(lathe(np.concatenate([start, outside, inside, [(0.0, base)]])))


def plate(radius_m: float = 0.10, height_m: float = 0.018, wall_m: float = 0.004) -> Mesh:
    """Flat plate with a raised rim."""
    r, h, w = radius_m, height_m, wall_m
    profile = [(0, 0), (0.62 * r, 0), (r, h - w), (r + 0.001, h - w / 2), (r, h), (0.60 * r, w), (0, w)]
    return centred(lathe(np.array(profile)))


def bottle(radius_m: float = 0.034, height_m: float = 0.22, neck_radius_m: float = 0.013) -> Mesh:
    """Closed bottle: body, curved shoulder, neck, cap."""
    r, h, n = radius_m, height_m, neck_radius_m
    if not 0 < n < r:
        raise InputError(f"a bottle's neck must be narrower than its body, got {n} and {r}")
    blend = np.linspace(0.0, 1.0, 14)
    shoulder = np.stack([r + (n - r) * (3 * blend**2 - 2 * blend**3), h * (0.56 + 0.22 * blend)], axis=1)
    foot = arc((r - 0.005, 0.005), 0.005, -90, 0)
    cap = np.array([(n, 0.88 * h), (1.18 * n, 0.885 * h), (1.18 * n, h - 0.002), (1.05 * n, h), (0.0, h)])
    return centred(lathe(np.concatenate([[(0.0, 0.003), (0.6 * r, 0.003), (0.7 * r, 0.0)], foot, shoulder, cap])))


def apple(radius_m: float = 0.038) -> Mesh:
    """Apple: a sphere pulled in at both poles."""
    angle = np.deg2rad(np.linspace(-90.0, 90.0, 61))
    radius = radius_m * np.cos(angle) * (1.0 + 0.06 * np.sin(angle))
    height = radius_m * (
        0.92 * np.sin(angle) - 0.30 * np.sign(angle) * np.exp(-((np.abs(angle) - np.pi / 2) ** 2) / 0.05)
    )
    profile = np.stack([radius, height], axis=1)
    profile[[0, -1], 0] = 0.0
    return centred(lathe(profile))


def banana(length_m: float = 0.18, radius_m: float = 0.017) -> Mesh:
    """Banana lying on its side, bent in the horizontal plane."""
    turn = np.deg2rad(np.linspace(-52.0, 52.0, 60))
    bend = length_m / (2 * np.deg2rad(52.0))
    along = np.linspace(-1.0, 1.0, 60)
    width = radius_m * np.clip(1.0 - np.abs(along) ** 3.2, 0.16, None)
    tube = sweep(bend * np.stack([np.sin(turn), np.cos(turn)], axis=1), np.stack([width, width], axis=1))
    return centred(type(tube)(tube.vertices[:, [0, 2, 1]], tube.faces[:, ::-1]))


def l_bracket(
    length_m: float = 0.10, height_m: float = 0.08, width_m: float = 0.05, thickness_m: float = 0.012
) -> Mesh:
    """Angle bracket: a foot along x and a wall along z."""
    if not 0 < thickness_m < min(length_m, height_m):
        raise InputError(f"an L-bracket must be thinner than its legs, got {thickness_m}")
    foot = _box(np.array([length_m, width_m, thickness_m])).moved(np.array([length_m / 2, 0, thickness_m / 2]))
    wall = _box(np.array([thickness_m, width_m, height_m])).moved(np.array([thickness_m / 2, 0, height_m / 2]))
    return centred(boolean("union", foot, wall))


def revolved(profile_rz_m: Sequence[Sequence[float]] = ((0, 0), (0.03, 0), (0.02, 0.08), (0, 0.08))) -> Mesh:
    """Any body of revolution from (radius, height) pairs that start and end on the axis."""
    return centred(lathe(resample(np.asarray(profile_rz_m, dtype=np.float64), 0.006)))


PRIMITIVES: Mapping[str, Callable[..., Mesh]] = {
    f.__name__: f
    for f in (box, cylinder, can, cone, sphere, ellipsoid, capsule, torus, mug, bowl, plate, bottle, apple, banana)
} | {"l_bracket": l_bracket, "lathe": revolved}
"""Name in a scene file -> function; its keyword arguments are the scene file's `params`."""


def make_primitive(kind: str, params: Mapping[str, object] | None = None) -> Mesh:
    """Mesh of a primitive by name; raises `InputError` for an unknown name, an unknown or a non-positive parameter."""
    if kind not in PRIMITIVES:
        raise InputError(f"unknown primitive '{kind}'; known: {', '.join(sorted(PRIMITIVES))}")
    function, params = PRIMITIVES[kind], dict(params or {})
    known = inspect.signature(function).parameters
    for name, value in params.items():
        if name not in known:
            raise InputError(f"primitive '{kind}' has no parameter '{name}'; known: {', '.join(known)}")
        numbers = np.asarray(value)
        if numbers.dtype.kind not in "fiu" or not np.isfinite(numbers).all() or (numbers < 0).any():
            raise InputError(f"parameter '{name}' of primitive '{kind}' must be finite and not negative, got {value!r}")
        if name != "profile_rz_m" and numbers.ndim == 0 and numbers == 0 and not name.startswith(("bevel", "top")):
            raise InputError(f"parameter '{name}' of primitive '{kind}' must be positive, got {value!r}")
    return function(**params)
