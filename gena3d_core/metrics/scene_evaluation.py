"""Runs methods on scenes, all on the same pictures, on one or more processors."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import CancelledError, Gena3DError
from ..io.object_dataset import ObjectDataset
from ..io.scene_layouts import LayoutFolder, open_layout_folder
from ..meshing.solid_closing import close_mesh, normalise
from ..types import Mesh
from .image_networks import load_networks
from .image_sets import ImageNetworks, PictureFigures, picture_figures
from .scene_examples import SceneExample, scene_example
from .scene_methods import SceneMethod, SceneMethodMaker, parted
from .scene_objects import PlacedMesh
from .scene_pictures import render_prediction
from .scene_table import SceneResult, scene_result
from .worker_pool import run_jobs

CONTACTS = " + contacts"
"""Ends the name of a method whose contacts were resolved."""


@dataclass(frozen=True)
class ScenePlan:
    """Everything that decides the figures, besides the methods.

    layouts, split  folder of layouts, and which of them; ids: of those to look at
    objects         folder of the objects in them
    views           pictures of each scene
    contacts        whether each method has a second row, with its contacts resolved
    networks        weights of networks of image metrics by name (`image_networks.load_networks`)
    """

    layouts: Path
    split: str
    objects: Path
    ids: tuple[str, ...]
    views: int = 1
    seed: int = 0
    contacts: bool = True
    networks: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, eq=False)
class SceneOutcome:
    """All methods on one scene; `problem` says why there is no example of it, which no method then sees."""

    scene: str
    results: tuple[SceneResult, ...] = ()
    problem: str = ""


@dataclass
class SceneEvaluator:
    """Makes examples and runs the methods in this process; holds the methods."""

    plan: ScenePlan
    makers: Mapping[str, SceneMethodMaker]
    _methods: dict[str, SceneMethod] = field(default_factory=dict)
    _layouts: LayoutFolder | None = None
    _objects: ObjectDataset | None = None
    _networks: ImageNetworks | None = None

    def __call__(self, id: str) -> SceneOutcome:
        """One scene. Raises `DataFormatError` for data that cannot be read, not for methods that fail."""
        self._layouts = self._layouts or open_layout_folder(self.plan.layouts, self.plan.split)
        try:
            example = scene_example(self._layouts.load(id), self._mesh, self.plan.views, self.plan.seed)
        except Gena3DError as error:
            return SceneOutcome(id, problem=str(error))
        return SceneOutcome(id, tuple(result for name in self.makers for result in self._run(name, example)))

    def _mesh(self, id: str) -> Mesh:
        self._objects = self._objects or ObjectDataset.open(self.plan.objects)
        (entry,) = self._objects.select(None, [id])
        return normalise(close_mesh(self._objects.load(entry)))

    def _run(self, name: str, example: SceneExample) -> list[SceneResult]:
        if name not in self._methods:
            self._methods[name] = self.makers[name]()
        made: list[PlacedMesh] | None = None
        problem, start = "", time.perf_counter()
        try:
            made = self._methods[name](example, self.plan.seed)
        except CancelledError:
            raise
        except Exception as error:  # whatever a method stumbles over counts against it and stops nobody else
            problem = f"{type(error).__name__}: {error}"
        seconds = time.perf_counter() - start
        results = [self._scored(name, example, made, seconds, problem)]
        if self.plan.contacts:
            start = time.perf_counter()
            apart = None if made is None else parted(made)
            seconds += time.perf_counter() - start
            results.append(self._scored(name + CONTACTS, example, apart, seconds, problem))
        return results

    def _scored(
        self, name: str, example: SceneExample, made: Sequence[PlacedMesh] | None, seconds: float, problem: str
    ) -> SceneResult:
        result = scene_result(
            example.id, name, made, example.truth, seconds, pictures=example.pictures, problem=problem
        )
        return replace(result, figures=self._figures(made or (), example, result)) if self.plan.networks else result

    def _figures(self, made: Sequence[PlacedMesh], example: SceneExample, result: SceneResult) -> PictureFigures:
        self._networks = self._networks or load_networks(dict(self.plan.networks))
        shots = render_prediction(made, result.scores.S_truth_predicted, example.pictures)
        ours, theirs = np.stack([shot[0] for shot in shots]), np.stack([picture.color for picture in example.pictures])
        return picture_figures(ours, theirs, self._networks)


def evaluate_scenes(
    plan: ScenePlan, makers: Mapping[str, SceneMethodMaker], processes: int = 1
) -> Iterator[SceneOutcome]:
    """All scenes, as they are done; figures do not depend on `processes`.

    With more than one process each makes its own methods and works with a single thread. Raises what a maker raises.
    """
    yield from run_jobs(partial(SceneEvaluator, plan, dict(makers)), [(id,) for id in plan.ids], processes)
