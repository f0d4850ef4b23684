"""Objects and tables with random looks for the quick renderer, metres, world z up."""

from __future__ import annotations

import numpy as np

from ..geometry import transforms
from ..geometry.mesh import make_mesh
from ..types import Mesh
from .appearance import TEXTURE_SIZE_M, is_textured, random_texture
from .quick_renderer import TABLE, QuickPart

TABLE_SIZE = (2.0, 8.0)
"""Half the side of tables, in sizes of what stands on them."""


def object_part(mesh: Mesh, instance: int, size_m: float, recolor_share: float, rng: np.random.Generator) -> QuickPart:
    """The mesh in its own colours, or with probability `recolor_share`, and where it has but one, in random ones."""
    recolored = rng.random() < recolor_share
    part = textured_part(mesh, instance, size_m, rng)
    return part if recolored or not is_textured(mesh) else QuickPart(mesh, instance)


def textured_part(mesh: Mesh, instance: int, size_m: float, rng: np.random.Generator) -> QuickPart:
    """The mesh with a random texture that suits an object `size_m` large."""
    shift = rng.uniform(-1.0, 1.0, 3)
    S = transforms.rigid(TEXTURE_SIZE_M / size_m * np.eye(3), shift)
    return QuickPart(mesh, instance, random_texture(rng), S)


def table_part(size_m: float, rng: np.random.Generator, height_m: float = 0.0) -> QuickPart:
    """Two triangles at height z for things `size_m` large around the axis; the table's edge may be in view."""
    low, high = -size_m * rng.uniform(*TABLE_SIZE, 2), size_m * rng.uniform(*TABLE_SIZE, 2)
    z = height_m
    corners = [[low[0], low[1], z], [high[0], low[1], z], [high[0], high[1], z], [low[0], high[1], z]]
    mesh = make_mesh(np.array(corners), np.array([[0, 1, 2], [0, 2, 3]]))
    S = transforms.rigid(TEXTURE_SIZE_M / size_m * np.eye(3), rng.uniform(-1.0, 1.0, 3))
    return QuickPart(mesh, TABLE, random_texture(rng, table=True), S)
