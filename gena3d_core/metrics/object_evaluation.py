"""Runs completion methods on examples of single objects, all on the same observations, on all processors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..errors import CancelledError, InputError
from ..generation import ObjectGenerator
from ..geometry.mesh import concatenate, transformed
from ..io.object_dataset import ObjectDataset, ObjectEntry
from ..layout.registration import register_similarity
from ..types import CompletedObject, Float32Array, Mesh, ObjectObservation, OccupancyEstimate
from .image_networks import load_networks
from .image_sets import ImageNetworks, PictureFigures, picture_figures
from .object_protocol import Condition, evaluation_example, example_seed, example_settings
from .objects import ObjectScores, TrueObject, score_object
from .rendering import turntable, with_colors
from .worker_pool import run_jobs

MethodMaker = Callable[[], ObjectGenerator]
"""Makes a method; must survive pickling, since every process makes its own."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that decides the figures, besides the methods.

    data, entries   folder of objects, and those to look at
    conditions      views and occlusion
    protocol        kind of occlusion (`object_protocol.PROTOCOLS`); changes: `key=value` changes of its settings
    hypotheses      samples that a method may draw for each object
    draws           how often each method completes each example, with other seeds
    networks        weights of networks of image metrics by name (`image_networks.load_networks`)
    sets            whether results carry the clouds that MMD and COV are made of
    """

    data: Path
    entries: tuple[ObjectEntry, ...]
    conditions: tuple[Condition, ...]
    protocol: str = "surface"
    changes: tuple[str, ...] = ()
    hypotheses: int = 1
    draws: int = 1
    seed: int = 0
    networks: tuple[tuple[str, Path], ...] = ()
    sets: bool = True


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One draw of one method on one example; `problem` says why it failed."""

    method: str
    draw: int
    scores: ObjectScores
    problem: str = ""
    images: PictureFigures | None = None


@dataclass(frozen=True, eq=False)
class ExampleResult:
    """All methods on one example; `problem` says why there is no example of that object, which no method then sees.

    cloud  (4096, 3) of the true shape in its unit frame; None without sets
    """

    entry: ObjectEntry
    condition: Condition
    results: tuple[MethodResult, ...] = ()
    cloud: Float32Array | None = None
    problem: str = ""


@dataclass
class Evaluator:
    """Makes examples and runs the methods in this process; holds the methods."""

    plan: EvaluationPlan
    makers: Mapping[str, MethodMaker]
    _methods: dict[str, ObjectGenerator] = field(default_factory=dict)
    _dataset: ObjectDataset | None = None
    _networks: ImageNetworks | None = None

    def __call__(self, entry: ObjectEntry, condition: Condition) -> ExampleResult:
        """One example. Raises `DataFormatError` for data that cannot be read, not for methods that fail."""
        self._dataset = self._dataset or ObjectDataset.open(self.plan.data)
        settings = example_settings(self.plan.protocol, condition, self.plan.changes)
        seed = example_seed(self.plan.seed, entry.id, condition)
        mesh = self._dataset.load(entry)
        try:
            example = evaluation_example(mesh, settings, seed, entry.scale_m)
        except InputError as error:
            return ExampleResult(entry, condition, problem=str(error))
        truth = TrueObject.measure(example.mesh, example.observation, seed, with_cloud=self.plan.sets)
        results = [self._run(name, draw, truth, seed) for name in self.makers for draw in range(self._draws(name))]
        return ExampleResult(entry, condition, tuple(results), truth.cloud)

    def _draws(self, name: str) -> int:
        return 1 if getattr(self._method(name), "deterministic", False) else self.plan.draws

    def _method(self, name: str) -> ObjectGenerator:
        if name not in self._methods:
            self._methods[name] = self.makers[name]()
        return self._methods[name]

    def _run(self, name: str, draw: int, truth: TrueObject, seed: int) -> MethodResult:
        method, observation = self._method(name), truth.observation
        start = time.perf_counter()
        try:
            made = method.generate([observation], seed=seed + draw, hypotheses=self.plan.hypotheses)[0]
            mesh, occupancy = in_world(made, observation)
        except CancelledError:
            raise
        except Exception as error:  # whatever a method stumbles over counts against it and stops nobody else
            scores = score_object(None, truth, time.perf_counter() - start)
            return MethodResult(name, draw, scores, f"{type(error).__name__}: {error}", self._images(None, truth))
        seconds = time.perf_counter() - start
        scores = score_object(mesh, truth, seconds, occupancy=occupancy)
        problem = "an empty mesh" if scores.failed else ""
        return MethodResult(name, draw, scores, problem, self._images(mesh, truth))

    def _images(self, mesh: Mesh | None, truth: TrueObject) -> PictureFigures | None:
        if not self.plan.networks:
            return None
        self._networks = self._networks or load_networks(dict(self.plan.networks))
        shown = concatenate([]) if mesh is None else with_colors(mesh, truth.observation)
        ours, theirs = (turntable(item, truth.center_m, truth.side_m) for item in (shown, truth.mesh))
        return picture_figures(ours, theirs, self._networks)


def in_world(made: CompletedObject, observation: ObjectObservation) -> tuple[Mesh, OccupancyEstimate | None]:
    """Mesh and voxels of a completed object in the world; where the relation is unknown, registered to the points."""
    if made.S_world_mesh is not None:
        return transformed(made.mesh, made.S_world_mesh), made.occupancy
    up = (0.0, 0.0, 1.0) if observation.support is None else observation.support.normal
    fit = register_similarity(made.mesh, observation.points_m, up=up)
    occupancy = made.occupancy and OccupancyEstimate(made.occupancy.probability, fit.S_world_mesh)
    return transformed(made.mesh, fit.S_world_mesh), occupancy


def evaluate(plan: EvaluationPlan, makers: Mapping[str, MethodMaker], processes: int = 1) -> Iterator[ExampleResult]:
    """Results of all objects under all conditions, as they are done; figures do not depend on `processes`.

    With more than one process each makes its own methods and works with a single thread. Raises what a maker raises.
    """
    jobs = [(entry, condition) for entry in plan.entries for condition in plan.conditions]
    yield from run_jobs(partial(Evaluator, plan, dict(makers)), jobs, processes)


def ordered(results: Sequence[ExampleResult], plan: EvaluationPlan) -> list[ExampleResult]:
    """Results in the order of the plan, whichever came first."""
    place = {(entry.id, condition): number for number, (entry, condition) in enumerate(
        (entry, condition) for condition in plan.conditions for entry in plan.entries
    )}  # fmt: skip
    return sorted(results, key=lambda result: place[result.entry.id, result.condition])
