"""Random looks of procedural shapes: a palette, a solid texture for each part or for the whole, as vertex colours."""

from __future__ import annotations

import colorsys

import manifold3d
import numpy as np
from manifold3d import Manifold
from numpy.random import Generator

from gena3d_core.geometry.mesh import make_mesh
from gena3d_core.meshing.simplification import simplify
from gena3d_core.simulation.textures import RGB, Texture, evaluate
from gena3d_core.types import Mesh

from .solids import solid

MAX_FACES = 6000
EDGES = (0.03, 0.04, 0.055, 0.075, 0.11, 0.16)
"""Longest edges tried, in shares of the longest side, until the mesh has at most `MAX_FACES` faces."""
TOLERANCES = (0.0005, 0.001, 0.002, 0.004, 0.008)
"""By how much of the longest side a surface may move to save faces, tried in turn."""
SIZE_M = 0.15
"""Longest side at which textures are evaluated, whose own sizes are metric."""
KINDS = ("plain", "noise", "marble", "speckle", "checker", "patches", "stripes", "bands", "wood", "label", "package")
KIND_WEIGHTS = np.array([10, 3, 2, 2, 1.5, 1.5, 2, 2, 2, 2, 2])


def triangulated(made: Manifold) -> Manifold:
    """The same solid, of longest side 1, with small even triangles, at most `MAX_FACES` of them."""
    for tolerance in TOLERANCES:
        coarse = made.set_tolerance(tolerance)
        if coarse.num_tri() <= 0.75 * MAX_FACES:
            break
    if coarse.num_tri() > MAX_FACES:  # older versions of manifold3d hardly simplify
        mesh = simplify(_bare_mesh(coarse.to_mesh()), MAX_FACES)
        return solid(mesh.vertices, mesh.faces)
    for edge in EDGES:
        fine = coarse.refine_to_length(edge)
        if fine.num_tri() <= MAX_FACES:
            return fine
    return coarse


def _bare_mesh(raw: manifold3d.Mesh) -> Mesh:
    """A mesh with copies of the arrays, which manifold3d lends for reading only."""
    return make_mesh(np.array(raw.vert_properties[:, :3], np.float32), np.array(raw.tri_verts, np.int32))


def painted(made: Manifold, rng: Generator) -> Mesh:
    """The mesh of a solid of longest side 1 with random vertex colours, mostly other ones for each part."""
    raw = made.to_mesh()
    mesh = _bare_mesh(raw)
    part = vertex_parts(raw.run_index, raw.run_original_id, mesh.faces, len(mesh.vertices))
    palette = random_palette(rng)
    parts = int(part.max()) + 1
    same_for_all = parts == 1 or rng.random() < 0.3
    colors = np.zeros((len(mesh.vertices), 3))
    metric = mesh.vertices * np.float32(SIZE_M)
    for number in range(1 if same_for_all else parts):
        chosen = slice(None) if same_for_all else part == number
        # The first part is mostly the body, and few objects have more than one patterned part.
        texture = random_texture(rng, palette, metric[chosen], plain=number > 0 and rng.random() < 0.7)
        colors[chosen] = evaluate(texture, metric[chosen])
    return make_mesh(mesh.vertices, mesh.faces, vertex_colors=np.round(colors * 255).astype(np.uint8))


def vertex_parts(run_index: np.ndarray, run_original_id: np.ndarray, faces: np.ndarray, count: int) -> np.ndarray:
    """(V,) number of the original part of each vertex, from the runs of faces of a boolean's result."""
    lengths = np.diff(np.asarray(run_index)) // 3
    _, number = np.unique(np.asarray(run_original_id), return_inverse=True)
    face_part = np.repeat(number.reshape(-1), lengths)
    part = np.zeros(count, dtype=np.int64)
    np.maximum.at(part, faces.reshape(-1), np.repeat(face_part, 3))
    _, dense = np.unique(part, return_inverse=True)
    return dense.reshape(-1)


def random_palette(rng: Generator) -> list[RGB]:
    """Five colours: everyday mixtures of white, greys, woods, metals, and one or two saturated hues."""
    hue = rng.random()
    hues = (hue + rng.choice([0.0, 0.03, 0.33, 0.5], 5) + rng.normal(0, 0.02, 5)) % 1.0
    saturation = np.clip(rng.beta(1.6, 1.4) + rng.normal(0, 0.15, 5), 0.0, 1.0)
    value = np.clip(rng.uniform(0.15, 1.0, 5), 0.05, 1.0)
    if rng.random() < 0.3:
        saturation *= 0.15
    colors = [colorsys.hsv_to_rgb(*hsv) for hsv in zip(hues, saturation, value, strict=True)]
    if rng.random() < 0.4:
        grey = rng.choice([0.95, 0.85, 0.5, 0.12])
        colors[int(rng.integers(5))] = (grey, grey, grey)
    return [(float(r), float(g), float(b)) for r, g, b in colors]


def random_texture(rng: Generator, palette: list[RGB], points: np.ndarray, plain: bool = False) -> Texture:
    """A texture in colours of the palette for points (N, 3), metres."""
    kind = "plain" if plain else str(rng.choice(KINDS, p=KIND_WEIGHTS / KIND_WEIGHTS.sum()))
    order = rng.permutation(len(palette))
    count = {"plain": 1, "label": 4, "package": 4, "speckle": 3}.get(kind, int(rng.integers(2, 5)))
    low, high = (float(f(points[:, 2], initial=0.0)) for f in (np.min, np.max))
    limits: tuple[float, ...] = ()
    scale = float(10 ** rng.uniform(-2.1, -1.2))
    if kind == "bands":
        limits = tuple(np.sort(rng.uniform(low, high, count - 1)))
    elif kind == "label":
        limits = tuple(low + (high - low) * np.array([rng.uniform(0.1, 0.35), rng.uniform(0.5, 0.9)]))
    elif kind == "package":
        scale = max(high, 0.01)
    elif kind == "wood":
        scale = float(10 ** rng.uniform(-2.4, -1.8))
    return Texture(
        kind=kind,
        colors=tuple(palette[k] for k in order[:count]),
        scale_m=scale,
        grain=float(rng.uniform(0.0, 0.25) * (rng.random() < 0.6)),
        limits_m=limits,
        seed=int(rng.integers(2**31)),
    )
