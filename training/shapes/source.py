"""The table of procedural families and the source that draws from it by (seed, index)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from manifold3d import Manifold
from numpy.random import Generator

from gena3d_core.errors import InputError
from gena3d_core.meshing.solid_closing import LONGEST_SIDE, normalise

from ..mesh_source import PROCEDURAL, TrainingMesh
from . import composed, flat, organic, turned
from .looks import painted, triangulated

ATTEMPTS = 5
"""Draws before a shape is given up: a family may draw parameters that leave nothing or fall apart."""
MIN_FILL = 0.0008
"""Least volume of a shape of longest side 1."""
MAX_LOOSE = 0.03
"""Largest share of the volume in pieces that hang in the air, which are left away."""


@dataclass(frozen=True)
class Family:
    """A kind of shape.

    weight  how often it is drawn, relative to the others
    size_m  range of the longest side in metres
    tumbles whether it may lie in any pose; else it stands as made
    """

    make: Callable[[Generator], Manifold]
    weight: float
    size_m: tuple[float, float]
    tumbles: bool = False


FAMILIES: dict[str, Family] = {
    "cup": Family(turned.cup, 2, (0.06, 0.16)),
    "mug": Family(turned.mug, 4, (0.08, 0.16)),
    "pitcher": Family(turned.pitcher, 2, (0.12, 0.30)),
    "bowl": Family(turned.bowl, 3, (0.08, 0.30)),
    "plate": Family(turned.plate, 1, (0.10, 0.30)),
    "bottle": Family(turned.bottle, 3, (0.10, 0.32)),
    "vase": Family(turned.vase, 2, (0.10, 0.35)),
    "goblet": Family(turned.goblet, 1.5, (0.08, 0.25)),
    "jar": Family(turned.jar, 2, (0.08, 0.22)),
    "can": Family(turned.can, 2, (0.05, 0.20)),
    "turned": Family(turned.turned, 2, (0.04, 0.25)),
    "fruit": Family(turned.fruit, 2, (0.05, 0.20)),
    "pan": Family(turned.pan, 2, (0.15, 0.45)),
    "box": Family(composed.box, 4, (0.05, 0.35)),
    "tray": Family(composed.tray, 3, (0.10, 0.40)),
    "lidded_box": Family(composed.lidded_box, 1.5, (0.08, 0.35)),
    "book": Family(composed.book, 2, (0.12, 0.32)),
    "brick": Family(composed.brick, 1.5, (0.03, 0.15)),
    "hammer": Family(composed.hammer, 2, (0.15, 0.40)),
    "screwdriver": Family(composed.screwdriver, 2, (0.12, 0.30)),
    "wrench": Family(composed.wrench, 1.5, (0.06, 0.30)),
    "spoon": Family(composed.spoon, 1.5, (0.12, 0.35)),
    "brush": Family(composed.brush, 1.5, (0.12, 0.35)),
    "bolt": Family(composed.bolt, 1.5, (0.03, 0.15)),
    "tower": Family(composed.tower, 3, (0.08, 0.35)),
    "table": Family(composed.table, 3, (0.10, 0.60)),
    "vehicle": Family(composed.vehicle, 2.5, (0.06, 0.30)),
    "device": Family(composed.device, 3, (0.08, 0.30)),
    "lamp": Family(composed.lamp, 1.5, (0.15, 0.50)),
    "prism": Family(flat.prism, 2, (0.04, 0.20)),
    "bracket": Family(flat.bracket, 2, (0.05, 0.25)),
    "gear": Family(flat.gear, 1.5, (0.04, 0.20)),
    "letter": Family(flat.letter, 1.5, (0.05, 0.20)),
    "blob_plate": Family(flat.blob_plate, 1.5, (0.05, 0.20)),
    "frame": Family(flat.frame, 1.5, (0.05, 0.30)),
    "comb": Family(flat.comb, 1.5, (0.08, 0.25)),
    "bent_tube": Family(flat.bent_tube, 3, (0.08, 0.30), tumbles=True),
    "ring": Family(flat.ring, 1.5, (0.05, 0.25)),
    "spring": Family(flat.spring, 1, (0.05, 0.20), tumbles=True),
    "superquadric": Family(organic.superquadric, 3, (0.04, 0.25), tumbles=True),
    "supertoroid": Family(organic.supertoroid, 1.5, (0.05, 0.25), tumbles=True),
    "blob": Family(organic.blob, 3, (0.05, 0.25), tumbles=True),
    "rock": Family(organic.rock, 2, (0.04, 0.25), tumbles=True),
    "metaball": Family(organic.metaball, 3, (0.06, 0.25), tumbles=True),
    "figure": Family(organic.figure, 4, (0.06, 0.30)),
    "grown": Family(organic.grown, 7, (0.06, 0.30), tumbles=True),
    "carved": Family(organic.carved, 2, (0.06, 0.25), tumbles=True),
    "csg": Family(organic.csg, 5, (0.05, 0.30), tumbles=True),
}
"""Name -> family; the name is the category of its shapes."""


@dataclass(frozen=True)
class ProceduralSource:
    """Shapes `procedural_SEED_INDEX`, each drawn from (seed, index) alone."""

    count: int
    seed: int = 0
    split: str = "train"

    @property
    def name(self) -> str:
        return f"{PROCEDURAL}{self.count}:{self.seed}"

    def ids(self) -> Sequence[str]:
        return [f"procedural_{self.seed}_{index:06d}" for index in range(self.count)]

    def load(self, id: str) -> TrainingMesh:
        prefix, _, index = id.rpartition("_")
        if prefix != f"procedural_{self.seed}" or not index.isdecimal() or int(index) >= self.count:
            raise InputError(f"{self.name} has no shape '{id}'")
        return make_shape(self.seed, int(index))


def open_procedural(text: str) -> ProceduralSource:
    """`procedural:COUNT[:SEED]`; raises `InputError` for anything else."""
    numbers = text.removeprefix(PROCEDURAL).split(":")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or int(numbers[0]) < 1:
        raise InputError(f"mesh source '{text}': want {PROCEDURAL}COUNT[:SEED], such as {PROCEDURAL}20000:1")
    return ProceduralSource(int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0)


def make_shape(seed: int, index: int) -> TrainingMesh:
    """Shape number `index` of `seed`: family, form, pose, colours and size; the same for the same numbers."""
    rng = np.random.default_rng((seed, index))
    names = list(FAMILIES)
    weights = np.array([FAMILIES[name].weight for name in names])
    for _ in range(ATTEMPTS):
        name = str(rng.choice(names, p=weights / weights.sum()))
        family = FAMILIES[name]
        made = one_piece(family.make(rng))
        if made is None:
            continue
        made = posed(made, rng, family.tumbles)
        if made.volume() > MIN_FILL:
            break
    else:
        raise InputError(f"shape {index} of seed {seed}: {ATTEMPTS} draws gave no solid in one piece")
    mesh = normalise(painted(triangulated(made), rng))
    size_m = float(np.exp(rng.uniform(*np.log(family.size_m))))
    return TrainingMesh(f"procedural_{seed}_{index:06d}", name, mesh, size_m / LONGEST_SIDE)


def one_piece(made: Manifold) -> Manifold | None:
    """The solid without the hollows that nobody can look into; None if nothing is left or it falls apart."""
    pieces = [piece for piece in made.decompose() if piece.volume() > 0]
    if not pieces:
        return None
    largest = max(pieces, key=lambda piece: piece.volume())
    return largest if largest.volume() > (1.0 - MAX_LOOSE) * sum(piece.volume() for piece in pieces) else None


def posed(made: Manifold, rng: Generator, tumbles: bool) -> Manifold:
    """The solid turned, stretched and slightly deformed at random, with longest side 1 around the origin."""
    if tumbles:
        made = made.rotate(tuple(rng.uniform(-180, 180, 3)))
    elif rng.random() < 0.12:  # toppled over
        made = made.rotate((90.0, 0.0, 0.0))
    if rng.random() < 0.7:
        made = made.rotate((0.0, 0.0, rng.uniform(0, 360)))
    if rng.random() < 0.5:
        made = made.scale(tuple(np.exp(rng.normal(0, 0.15, 3))))
    made = unit_size(made)
    if rng.random() < 0.25:
        bend = rng.normal(0, (0.25, 0.25, 0.35))
        made = unit_size(made.refine_to_length(0.08).warp_batch(lambda points: deformed(points, *bend)))
    return made


def deformed(points: np.ndarray, taper: float, shear: float, twist: float) -> np.ndarray:
    """Points (N, 3) of the unit cube tapered and sheared along z and twisted about it."""
    x, y, z = np.asarray(points).T
    scale = 1.0 + np.clip(taper, -0.6, 0.6) * z
    cosine, sine = np.cos(twist * z), np.sin(twist * z)
    return np.stack([scale * (cosine * x - sine * y) + shear * z, scale * (sine * x + cosine * y), z], axis=1)


def unit_size(made: Manifold) -> Manifold:
    """Scaled to the longest side 1, with the middle of the bounding box at the origin."""
    low, high = np.split(np.array(made.bounding_box()), 2)
    size = 1.0 / float((high - low).max())
    return made.translate(tuple(-(low + high) / 2)).scale((size, size, size))
