"""`python -m training.train RECIPE [key=value ...]`: train one network; started again, a run goes on where it was.

On several accelerators: `torchrun --nproc-per-node 8 -m training.train flow_paper data=DIR out=DIR`.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from gena3d_core.errors import CancelledError, Gena3DError

from .datasets import open_split
from .distributed import Processes, join_processes
from .loop import train
from .objectives_flow import FlowTask
from .objectives_scene import SceneTask
from .objectives_unet import UnetTask
from .objectives_vae import VaeTask
from .provenance import commit
from .recipes import RECIPES, make_recipe
from .recipes.settings import FlowRecipe, Recipe, SceneRecipe, UnetRecipe, VaeRecipe
from .scene_datasets import open_scene_split
from .task import Task

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Whether one of `SIGNALS` came while this was entered; a second one ends the process at once."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.came

    def _note(self, number: int, _: object) -> None:
        self.came = True
        signal.signal(number, self._before[number])


def run_recipe(recipe: Recipe, name: str, stopped: Callable[[], bool]) -> bool:
    """Train as the recipe says; whether its end was reached."""
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    processes, device = join_processes(recipe.device, recipe.batch // recipe.accumulate)
    torch.manual_seed(recipe.seed)
    if recipe.overfit_one:
        recipe = as_overfit(recipe)
    task, data = make_task(recipe, device, processes, stopped)
    metadata = {
        "recipe": name,
        "commit": commit(Path(__file__).parent),
        "settings": _settings(recipe),
        "data": data,
    }
    return train(task, recipe, device, processes=processes, stopped=stopped, metadata=metadata)


def _settings(recipe: Recipe) -> dict[str, Any]:
    """The recipe without the folders of this machine; of a checkpoint that is one of them, its name."""
    kept = {key: value for key, value in asdict(recipe).items() if key not in ("data", "out", "vae")}
    local = {key: Path(kept[key]).name for key in ("start", "geometry") if kept.get(key) and Path(kept[key]).is_dir()}
    return {**kept, **local}


def make_task(
    recipe: Recipe, device: torch.device, processes: Processes, stopped: Callable[[], bool]
) -> tuple[Task, dict[str, int]]:
    """The task of the recipe's kind, and how much data it has."""
    if isinstance(recipe, SceneRecipe):
        scenes = open_scene_split(recipe)
        found = {"examples": len(scenes.train), "scenes": len({s.scene_id for s in scenes.train})}
        scene_task = SceneTask(recipe, scenes, device, rank=processes.rank, world=processes.count, cancelled=stopped)
        processes.barrier()
        return scene_task, found
    split = open_split(recipe)
    data = {"examples": len(split.train), "objects": len({e.object_id for e in split.train})}
    if isinstance(recipe, VaeRecipe):
        return VaeTask(recipe, split, device), data
    if isinstance(recipe, UnetRecipe):
        return UnetTask(recipe, split, device), data
    assert isinstance(recipe, FlowRecipe)
    task = FlowTask(recipe, split, device, rank=processes.rank, world=processes.count, cancelled=stopped)
    processes.barrier()
    return task, data


def as_overfit(recipe: Recipe) -> Recipe:
    """Nothing random but noise and flow times: the loss must fall towards what one example leaves."""
    still = (
        "cloud_share",
        "condition_dropout",
        "cloud_dropout",
        "image_dropout",
        "view_dropout",
        "mirror_share",
        "held_out",
    )
    known = {f.name for f in fields(recipe)}
    zeros: dict[str, Any] = {name: 0.0 for name in still if name in known}
    return replace(recipe, **zeros)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or stopped by a signal, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description=__doc__)
    parser.add_argument("recipe", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="fields of the recipe, such as data=FOLDER")
    parser.add_argument("--overfit-one", action="store_true", help="train on one example: must overfit it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    words = [*options.overrides, *(["overfit_one=true"] if options.overfit_one else [])]
    try:
        recipe = make_recipe(options.recipe, words)
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        with StopSignal() as stopped:
            finished = run_recipe(recipe, options.recipe, stopped)
    except CancelledError as error:
        print(error, file=sys.stderr)
        return 0
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("done" if finished else "stopped; start again to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
