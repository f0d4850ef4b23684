"""Scenes drawn at random that could stand on a real table: things rest on it or on one another, and nothing overlaps.

Things are lowered one after another, straight down, at places near those that stand already. How far one falls comes
from two height fields, its underside and what lies below, so that any shapes may be used. It stays if its centre of
mass is over the points that it rests on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import ConvexHull, QhullError

from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.io.scene_layouts import UP
from gena3d_core.simulation.ray_casting import RayCaster, make_caster
from gena3d_core.simulation.resting import random_turn
from gena3d_core.simulation.scene_layout import SceneLayout, SceneObject
from gena3d_core.types import Float32Array, Float64Array, Mesh, SupportPlane

from ..mesh_source import PROCEDURAL, MeshSource

ATTEMPTS = 8
DRAWS = 4
"""Objects that are tried for each that is wanted: some stand nowhere."""
PLACES = 12
CELLS = 64
"""Columns along the longer horizontal side of an object."""
CONTACT = 0.01
"""Gap, in horizontal sizes of the object, up to which a column counts as touching."""
MARGIN = 0.02
"""How far, in the same unit, the centre of mass must be inside what the object rests on."""


@dataclass(frozen=True)
class SamplerSettings:
    """What a sampled scene is like.

    objects   from and to how many
    size_m    limits of the longest side: objects beyond are made smaller or larger
    stacked   share of objects that are lowered onto another one rather than beside it
    upright   share of objects that stand as they were modelled, where they can
    reach     distance to the neighbour in sums of both horizontal radii
    """

    objects: tuple[int, int] = (2, 6)
    size_m: tuple[float, float] = (0.05, 0.40)
    stacked: float = 0.25
    upright: float = 0.8
    reach: tuple[float, float] = (0.75, 1.5)

    def __post_init__(self) -> None:
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise InputError(f"objects must be a range of positive numbers such as 2..6, got {self.objects}")
        if not 0.0 < self.size_m[0] <= self.size_m[1]:
            raise InputError(f"size_m must be a positive range, got {self.size_m}")
        if not (0.0 <= self.stacked <= 1.0 and 0.0 <= self.upright <= 1.0):
            raise InputError(f"stacked and upright must lie in [0, 1], got {self.stacked} and {self.upright}")


@dataclass(frozen=True, eq=False)
class Body:
    """An object turned and of metric size, its horizontal box centred on the z axis.

    mesh    at its place once it stands; S_world_object  of the mesh as the source has it
    bottom  (X, Y) float32: height of its underside over columns of side `cell_m` around the axis, inf where none
    radius_m  half its longer horizontal side; center_m (2,) of mass
    """

    id: str
    mesh: Mesh
    S_world_object: Float64Array
    bottom: Float32Array
    cell_m: float
    radius_m: float
    center_m: Float64Array

    def moved(self, shift_m: np.ndarray) -> Body:
        """At another place; height field and centre of mass stay relative to its axis."""
        T = transforms.rigid(t=shift_m)
        return replace(self, mesh=mesh_ops.transformed(self.mesh, T), S_world_object=T @ self.S_world_object)


@dataclass(frozen=True)
class SampledScenes:
    """Scenes `procedural_SEED_INDEX`, each a function of (seed, index), the settings and the meshes."""

    count: int
    seed: int
    meshes: MeshSource
    settings: SamplerSettings = SamplerSettings()

    @property
    def name(self) -> str:
        return f"{PROCEDURAL}{self.count}:{self.seed} of {self.meshes.name}"

    def ids(self) -> Sequence[str]:
        return [f"procedural_{self.seed}_{index:06d}" for index in range(self.count)]

    def load(self, id: str) -> SceneLayout:
        prefix, _, index = id.rpartition("_")
        if prefix != f"procedural_{self.seed}" or not index.isdecimal() or int(index) >= self.count:
            raise InputError(f"{self.name} has no scene '{id}'")
        return sample_scene(self.meshes, self.seed, int(index), self.settings)


def open_sampler(text: str, meshes: MeshSource, options: dict[str, str]) -> SampledScenes:
    """`procedural:COUNT[:SEED]` with the options objects=LOW..HIGH and stacked=SHARE; raises `InputError`."""
    numbers = text.removeprefix(PROCEDURAL).split(":")
    if len(numbers) > 2 or not all(number.isdecimal() for number in numbers) or int(numbers[0]) < 1:
        raise InputError(f"scene source '{text}': want {PROCEDURAL}COUNT[:SEED], such as {PROCEDURAL}20000:1")
    settings = SamplerSettings()
    try:
        if "objects" in options:
            low, _, high = options["objects"].partition("..")
            settings = replace(settings, objects=(int(low), int(high or low)))
        if "stacked" in options:
            settings = replace(settings, stacked=float(options["stacked"]))
    except ValueError as error:
        raise InputError(f"scene source '{text}' with {options}: {error}") from error
    return SampledScenes(int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 0, meshes, settings)


def sample_scene(
    meshes: MeshSource, seed: int, index: int, settings: SamplerSettings = SamplerSettings()
) -> SceneLayout:
    """Scene number `index` of `seed`, on z = 0 around the origin; the same for the same arguments.

    Meshes that cannot be loaded are passed over. Raises `InputError` if too few objects find a place.
    """
    ids = meshes.ids()
    if not ids:
        raise InputError(f"mesh source {meshes.name} has no object")
    for attempt in range(ATTEMPTS):
        rng = np.random.default_rng([seed, index, attempt])
        count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
        bodies: list[Body] = []
        for _ in range(DRAWS * count):
            body = _draw_body(meshes, ids[int(rng.integers(len(ids)))], settings, rng)
            placed = None if body is None else _placed(body, bodies, settings, rng)
            if placed is not None:
                bodies.append(placed)
            if len(bodies) == count:
                return _layout(f"procedural_{seed}_{index:06d}", bodies)
    raise InputError(f"scene {index} of seed {seed}: {ATTEMPTS} attempts placed fewer objects than wanted")


def _layout(id: str, bodies: Sequence[Body]) -> SceneLayout:
    points = np.concatenate([body.mesh.vertices for body in bodies]).astype(np.float64)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
    T = transforms.rigid(t=np.array([-middle[0], -middle[1], 0.0]))
    objects = tuple(SceneObject(body.id, T @ body.S_world_object) for body in bodies)
    return SceneLayout(id, objects, SupportPlane(UP, 0.0))


def _draw_body(meshes: MeshSource, id: str, settings: SamplerSettings, rng: np.random.Generator) -> Body | None:
    """The object turned as it may stand on a table; None if it cannot be loaded or would tip over."""
    try:
        item = meshes.load(id)
    except Gena3DError:
        return None
    longest = float(np.ptp(item.mesh.vertices, axis=0).max())
    drawn = float(np.exp(rng.uniform(*np.log(settings.size_m))))
    size_m = drawn if item.scale_m is None else float(np.clip(item.scale_m * longest, *settings.size_m))
    upright = bool(rng.random() < settings.upright)
    turns = [random_turn(item.mesh, True, True, rng)] if upright else []
    for R in (*turns, random_turn(item.mesh, False, True, rng)):
        body = _body(id, item.mesh, transforms.rigid(size_m / longest * R))
        if _rest(body, np.zeros_like(body.bottom), 0.0) is not None:
            return body
    return None


def _body(id: str, mesh: Mesh, S: Float64Array) -> Body:
    turned = mesh_ops.transformed(mesh, S)
    low, high = mesh_ops.bounds(turned)
    middle = np.array([*(low + high)[:2] / 2.0, low[2]])
    turned = mesh_ops.transformed(turned, transforms.rigid(t=-middle))
    radius = float((high - low)[:2].max()) / 2.0
    cell = 2.0 * radius / CELLS
    caster = make_caster(turned.vertices, turned.faces)
    below = -1.0 - float((high - low)[2])
    columns = _columns(np.zeros(2), cell)
    hits = _cast(caster, columns, below, 1.0)
    bottom = (below + hits).astype(np.float32)
    return Body(id, turned, transforms.rigid(t=-middle) @ S, bottom, cell, radius, center_of_mass(turned)[:2])


def center_of_mass(mesh: Mesh) -> Float64Array:
    """(3,) of the volume inside a closed mesh of even density."""
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(np.float64) for corner in range(3))
    volume = np.einsum("ni,ni->n", a, np.cross(b, c))
    if abs(volume.sum()) < 1e-15:
        return mesh.vertices.mean(axis=0).astype(np.float64)
    return (volume[:, None] * (a + b + c)).sum(axis=0) / (4.0 * volume.sum())


def _columns(center_m: np.ndarray, cell_m: float) -> Float64Array:
    """(CELLS, CELLS, 2) x and y of the columns around `center_m` (2,)."""
    axis = (np.arange(CELLS) + 0.5 - CELLS / 2) * cell_m
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1) + center_m


def _cast(caster: RayCaster, columns: np.ndarray, z: float, direction: float) -> Float32Array:
    """(X, Y) distance from height z to the first hit straight up (+1) or down (-1); inf where none."""
    origins = np.concatenate([columns, np.full((*columns.shape[:2], 1), z)], axis=-1).reshape(-1, 3)
    directions = np.tile(np.array([0.0, 0.0, direction], dtype=np.float32), (len(origins), 1))
    hits = caster(origins.astype(np.float32), directions)
    return np.where(hits.face >= 0, hits.distance, np.inf).astype(np.float32).reshape(columns.shape[:2])


def _placed(body: Body, others: Sequence[Body], settings: SamplerSettings, rng: np.random.Generator) -> Body | None:
    """The body at a place where it stands, on the table or on another as drawn; None if none was found."""
    if not others:
        return body
    stack = bool(rng.random() < settings.stacked)
    points = np.concatenate([other.mesh.vertices for other in others])
    faces = mesh_ops.concatenate([Mesh(other.mesh.vertices, other.mesh.faces) for other in others]).faces
    caster, above = make_caster(points, faces), float(points[:, 2].max()) + 1.0
    for _ in range(PLACES):
        other = others[int(rng.integers(len(others)))]
        low, high = mesh_ops.bounds(other.mesh)
        center = (low + high)[:2] / 2.0
        if stack:
            center = center + rng.normal(0.0, 0.25 * other.radius_m, 2)
        else:
            angle = rng.uniform(0.0, 2.0 * np.pi)
            distance = (body.radius_m + other.radius_m) * rng.uniform(*settings.reach)
            center = center + distance * np.array([np.cos(angle), np.sin(angle)])
        top = (above - _cast(caster, _columns(center, body.cell_m), above, -1.0)).astype(np.float32)
        height = _rest(body, top, 0.0)
        if height is not None and (height > 0.0) == stack:
            return body.moved(np.array([*center, height]))
    return None


def _rest(body: Body, top: np.ndarray, plane_m: float) -> float | None:
    """How high the body, whose lowest point is 0, comes to rest over heights (X, Y) and the plane; None if it tips.

    Heights between the columns are taken from the neighbours, to the safe side: two columns of clearance.
    """
    reach, wide = minimum_filter(body.bottom, 3), maximum_filter(top, 3)
    both = np.isfinite(reach) & np.isfinite(wide)
    height = max(plane_m, float((wide[both] - reach[both]).max())) if both.any() else plane_m
    below = np.maximum(top, plane_m)
    with np.errstate(invalid="ignore"):
        touching = np.isfinite(body.bottom) & (height + body.bottom - below <= CONTACT * 2.0 * body.radius_m)
    return height if _is_over(body.center_m, _columns(np.zeros(2), body.cell_m)[touching], body) else None


def _is_over(center_m: np.ndarray, contacts_m: np.ndarray, body: Body) -> bool:
    """Whether the centre of mass (2,) lies well inside the hull of the contacts (N, 2)."""
    if len(contacts_m) < 3:
        return False
    try:
        hull = ConvexHull(contacts_m)
    except (QhullError, ValueError):
        return False
    distance = hull.equations[:, :2] @ center_m + hull.equations[:, 2]
    return bool(distance.max() <= -MARGIN * body.radius_m)
