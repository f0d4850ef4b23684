"""Random looks: textures of objects and tables, lamps."""

from __future__ import annotations

import colorsys

import numpy as np

from ..types import Mesh
from .quick_renderer import QuickLight
from .textures import RGB, Texture

TEXTURE_SIZE_M = 0.15
"""Textures of objects are looked up as if the object were this large, so that patterns suit objects of any size."""
ONE_COLOR_STD = 2.0
"""Vertex colours that differ by less than this (of 255) are no texture."""

_OBJECT_KINDS = ("plain", "plain", "plain", "noise", "marble", "speckle", "checker", "patches", "stripes", "wood")
_TABLE_KINDS = ("plain", "wood", "wood", "noise", "marble", "speckle", "checker")


def random_texture(rng: np.random.Generator, table: bool = False) -> Texture:
    """A texture with muted to strong colours; for an object `TEXTURE_SIZE_M` large, or for a table."""
    kinds = _TABLE_KINDS if table else _OBJECT_KINDS
    count = int(rng.integers(2, 5))
    first = random_color(rng)
    # Half of the textures are shades of one colour, as most real surfaces are.
    related = rng.random() < 0.5
    colors = [first]
    for _ in range(count - 1):
        shade = np.clip(np.array(first) * rng.uniform(0.5, 1.4) + rng.normal(0.0, 0.03, 3), 0.02, 0.98)
        colors.append((float(shade[0]), float(shade[1]), float(shade[2])) if related else random_color(rng))
    return Texture(
        kind=str(rng.choice(kinds)),
        colors=tuple(colors),
        scale_m=float(np.exp(rng.uniform(np.log(0.008), np.log(0.05)))),
        grain=float(rng.uniform(0.0, 0.2)),
        gloss=float(rng.uniform(0.0, 0.4)) if rng.random() < 0.5 else 0.0,
        seed=int(rng.integers(1 << 16)),
    )


def random_color(rng: np.random.Generator) -> RGB:
    """RGB in [0, 1]: any hue, greys as often as colours."""
    saturation = rng.uniform(0.0, 0.9) if rng.random() < 0.6 else rng.uniform(0.0, 0.1)
    return colorsys.hsv_to_rgb(rng.random(), saturation, rng.uniform(0.15, 0.95))


def random_light(rng: np.random.Generator) -> QuickLight:
    """A lamp above the scene and light from around, from dim to bright, slightly tinted."""
    elevation, azimuth = np.deg2rad(rng.uniform(25.0, 85.0)), rng.uniform(0.0, 2.0 * np.pi)
    tint = np.clip(1.0 + rng.uniform(-0.12, 0.12) * np.array([1.0, 0.1, -1.0]), 0.0, 1.2)
    return QuickLight(
        (float(np.cos(azimuth) * np.cos(elevation)), float(np.sin(azimuth) * np.cos(elevation)),
         float(np.sin(elevation))),
        strength=float(rng.uniform(0.2, 0.8)),
        ambient=float(rng.uniform(0.35, 0.75)),
        color=(float(tint[0]), float(tint[1]), float(tint[2])),
    )  # fmt: skip


def is_textured(mesh: Mesh) -> bool:
    """True if the vertices have colours that differ."""
    colors = mesh.vertex_colors
    return colors is not None and len(colors) > 0 and float(colors.astype(np.float32).std(axis=0).max()) > ONE_COLOR_STD
