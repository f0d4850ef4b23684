"""Figures of a predicted scene against the true one (SceneGen 4.1): surfaces of the scene and of its objects, boxes,
collisions.

Lengths are shares of the longest side of the true scene, or of the true object for figures of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..types import Float32Array, Float64Array, Mesh
from .geometry import f_score
from .objects import EMPTY_DISTANCE
from .scene_alignment import Alignment, align_clouds
from .scene_objects import PlacedMesh, box_iou, require_distinct, solid_overlap, surface_collision, whole
from .surface_distance import MeasuredSurface
from .voxels import longest_side

SAMPLES = 10_000
OBJECT_SAMPLES = 4_000
"""Points of each surface whose distances are taken and that are aligned."""
LIMITS = (0.01, 0.02, 0.05)
"""F-scores are taken at these distances. 0.05 of the longest side is 0.1 in the cube [-1, 1]³."""


@dataclass(frozen=True, eq=False)
class TrueSurface:
    """A true mesh, measured once for all methods. points (N, 3): spread over the surface; side: its longest."""

    mesh: Mesh
    surface: MeasuredSurface
    points: Float32Array
    side: float

    @staticmethod
    def measure(mesh: Mesh, samples: int, seed: int) -> TrueSurface:
        """Raises `InputError` for a mesh without area."""
        surface = MeasuredSurface.of(mesh, seed=seed)
        return TrueSurface(mesh, surface, surface.sample(samples, seed + 1)[0], longest_side(mesh))


@dataclass(frozen=True, eq=False)
class TrueScene:
    """The truth of one scene: all together, and every object by its id; all in the scene's frame."""

    objects: tuple[PlacedMesh, ...]
    scene: TrueSurface
    parts: Mapping[int | str, TrueSurface]

    @staticmethod
    def measure(objects: Sequence[PlacedMesh], seed: int = 0) -> TrueScene:
        """Raises `InputError` for no objects, objects without area, or ids that repeat."""
        require_distinct(objects, "true")
        if not objects:
            raise InputError("a true scene needs at least one object")
        parts = {item.id: TrueSurface.measure(item.in_world(), OBJECT_SAMPLES, seed) for item in objects}
        return TrueScene(tuple(objects), TrueSurface.measure(whole(objects), SAMPLES, seed), parts)


@dataclass(frozen=True)
class Agreement:
    """chamfer: mean distance to the true surface plus mean distance back; f: F-scores at `LIMITS`."""

    chamfer: float
    f: tuple[float, ...]

    @staticmethod
    def nothing() -> Agreement:
        """Of an empty prediction."""
        return Agreement(2.0 * EMPTY_DISTANCE, (0.0,) * len(LIMITS))


@dataclass(frozen=True)
class ObjectFigures:
    """One true object and the predicted one of the same id.

    found     there is one, with a surface
    shape     after an alignment of its own: what was generated, wherever it lies
    in_place  as it lies in the aligned scene
    box_iou   of the axis-aligned boxes in the aligned scene
    """

    id: int | str
    found: bool
    shape: Agreement
    in_place: Agreement
    box_iou: float


@dataclass(frozen=True, eq=False)
class SceneScores:
    """What one method made of one scene.

    scene        all surfaces together (CD-S, F-Score-S)
    objects      every true object, in its order
    extra        predicted objects that the truth has none for; they count in `scene`
    iou_scene    SceneGen's collision share of surface voxels of the prediction as it came
    overlap      share of its volume that lies in several objects
    S_truth_predicted  (4, 4) alignment
    """

    scene: Agreement
    objects: tuple[ObjectFigures, ...]
    extra: int
    iou_scene: float
    overlap: float
    S_truth_predicted: Float64Array

    @property
    def shape(self) -> Agreement:
        """Means over the objects (CD-O, F-Score-O)."""
        return mean_agreement([item.shape for item in self.objects])

    @property
    def in_place(self) -> Agreement:
        """Means over the objects where they lie."""
        return mean_agreement([item.in_place for item in self.objects])

    @property
    def iou_b(self) -> float:
        """Mean over the objects of the intersection over union of their boxes."""
        return float(np.mean([item.box_iou for item in self.objects]))

    @property
    def found(self) -> float:
        """Share of the true objects that the prediction has."""
        return float(np.mean([item.found for item in self.objects]))


def mean_agreement(items: Sequence[Agreement]) -> Agreement:
    """Mean of each figure. Raises `InputError` without any."""
    if not items:
        raise InputError("a mean over no objects is undefined")
    return Agreement(
        float(np.mean([item.chamfer for item in items])),
        tuple(float(value) for value in np.mean([item.f for item in items], axis=0)),
    )


def score_scene(
    predicted: Sequence[PlacedMesh],
    truth: TrueScene,
    *,
    alignment: Alignment = "similarity",
    object_alignment: Alignment = "similarity",
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
    seed: int = 0,
) -> SceneScores:
    """Scores of a predicted scene, whose frame may be any that `alignment` can bring to the truth's.

    object_alignment: of each object by itself, from where it lies in the aligned scene. Objects are matched by id; a
    missing or empty one counts as failed. up (3,): unit vector of the truth's frame about which headings are tried.
    Raises `InputError` for ids that repeat or meshes that are not finite.
    """
    require_distinct(predicted, "predicted")
    present = [item for item in predicted if not item.empty]
    collision, overlap = surface_collision(present), solid_overlap(present)
    S = align_scene(present, truth, alignment, up=up, seed=seed)
    placed = {item.id: mesh_ops.transformed(item.in_world(), S) for item in present}
    scene = agreement(mesh_ops.concatenate(list(placed.values())), truth.scene, SAMPLES, seed)
    figures = [
        _object_figures(item.id, placed.get(item.id), truth.parts[item.id], object_alignment, up, seed)
        for item in truth.objects
    ]
    extra = sum(item.id not in truth.parts for item in predicted)
    return SceneScores(scene, tuple(figures), extra, collision, overlap, S)


def align_scene(
    predicted: Sequence[PlacedMesh],
    truth: TrueScene,
    kind: Alignment,
    *,
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
    seed: int = 0,
) -> Float64Array:
    """`S_truth_predicted` (4, 4) of the whole scene; the identity for kind 'none' or an empty prediction."""
    present = [item for item in predicted if not item.empty]
    if kind == "none" or not present:
        return np.eye(4)
    points, _ = mesh_ops.sample_surface(whole(present), SAMPLES, np.random.default_rng(seed))
    shared = [(item.in_world(), truth.parts[item.id].mesh) for item in present if item.id in truth.parts]
    middles = [np.array([np.mean(mesh_ops.bounds(pair[side]), axis=0) for pair in shared]) for side in (0, 1)]
    fit = align_clouds(points, truth.scene.points, kind, matched=(middles[0], middles[1]), up=up, seed=seed)
    return np.eye(4) if fit is None else fit.S_target_source


def agreement(mesh: Mesh, truth: TrueSurface, samples: int, seed: int) -> Agreement:
    """Distances between the surfaces, both ways, in longest sides of the truth."""
    if not len(mesh.faces) or not mesh_ops.area(mesh) > 0:
        return Agreement.nothing()
    surface = MeasuredSurface.of(mesh, seed=seed + 2)
    forward = truth.surface.nearest(surface.sample(samples, seed + 3)[0])[0] / truth.side
    backward = surface.nearest(truth.points)[0] / truth.side
    scores = tuple(f_score(float((forward < limit).mean()), float((backward < limit).mean())) for limit in LIMITS)
    return Agreement(float(forward.mean() + backward.mean()), scores)


def _object_figures(
    number: int | str,
    mesh: Mesh | None,
    truth: TrueSurface,
    kind: Alignment,
    up: Sequence[float] | np.ndarray,
    seed: int,
) -> ObjectFigures:
    if mesh is None:
        return ObjectFigures(number, False, Agreement.nothing(), Agreement.nothing(), 0.0)
    in_place = agreement(mesh, truth, OBJECT_SAMPLES, seed)
    points, _ = mesh_ops.sample_surface(mesh, OBJECT_SAMPLES, np.random.default_rng(seed))
    fit = align_clouds(points, truth.points, kind, up=up, seed=seed)
    shape = in_place
    if fit is not None:
        aligned = agreement(mesh_ops.transformed(mesh, fit.S_target_source), truth, OBJECT_SAMPLES, seed)
        # An alignment that made it worse is none.
        shape = min(in_place, aligned, key=lambda found: found.chamfer)
    return ObjectFigures(number, True, shape, in_place, box_iou(mesh, truth.mesh))
