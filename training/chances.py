"""`python -m training.chances CHECKPOINT --objects DATA`: what the chances of a checkpoint's voxels mean.

Completes objects that training held out, as evaluations show them, and fits the `ChanceCurve` that makes the true ones
most likely; writes it into the checkpoint's config. Shapes stay as they are.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.own_layout import CONFIG
from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.generative.flow_generator import FlowGenerator
from gena3d_core.generative.hypotheses import CHANCE_CURVE, ChanceCurve, chance_logits
from gena3d_core.geometry.solid_voxelization import is_solid, solid_occupancy
from gena3d_core.io.atomic import write_file
from gena3d_core.io.object_dataset import ObjectDataset, ObjectEntry
from gena3d_core.metrics.object_protocol import Condition, evaluation_example, example_seed, example_settings
from gena3d_core.metrics.worker_pool import run_jobs
from gena3d_core.types import BoolArray, Float32Array

from .datasets import is_held_out

VIEWS, OCCLUSIONS = (1, 2, 4), (0.2, 0.5, 0.7)
HYPOTHESES = 4
VOXELS = 4000
"""Voxels of an example that count: examples with large grids should not outweigh the others."""


@dataclass
class Voxels:
    """Chances (n,) of voxels of one example that no camera proved empty, and whether they are full (n,)."""

    chances: Float32Array
    full: BoolArray


class ChanceCollector:
    """Completes examples with one checkpoint, whose own curve is left out."""

    def __init__(self, checkpoint: Path, data: Path) -> None:
        bundle = open_checkpoint(checkpoint)
        plain = {key: value for key, value in bundle.metadata.items() if key != CHANCE_CURVE}
        self.generator = FlowGenerator(replace(bundle, metadata=plain))
        self.dataset = ObjectDataset.open(data)

    def __call__(self, entry: ObjectEntry, condition: Condition) -> Voxels | None:
        """None for an object that makes no example, or that is no solid."""
        seed = example_seed(0, entry.id, condition)
        settings = example_settings("surface", condition)
        try:
            example = evaluation_example(self.dataset.load(entry), settings, seed, entry.scale_m)
            made = self.generator.generate([example.observation], seed=seed, hypotheses=HYPOTHESES)[0]
        except Gena3DError:
            return None
        grid = made.occupancy
        if grid is None or grid.S_world_grid is None or not is_solid(example.mesh):
            return None
        full = solid_occupancy(example.mesh, grid.S_world_grid, len(grid.probability)) >= 0.5
        asked = np.flatnonzero(grid.probability.ravel() > 0)
        chosen = np.random.default_rng(seed).permutation(asked)[:VOXELS]
        return Voxels(grid.probability.ravel()[chosen], full.ravel()[chosen])


def fit_chances(chances: np.ndarray, full: np.ndarray) -> ChanceCurve:
    """The curve under which voxels `full` (n,) bool are most likely, where samples gave them `chances` (n,).

    Raises `InputError` for none, or where all are full or all empty.
    """
    if not len(full) or full.all() or not full.any():
        raise InputError("there are no full and empty voxels to calibrate with: name more objects")
    x, truth = chance_logits(chances.astype(np.float64)), full.astype(np.float64)

    def surprise(parameters: np.ndarray) -> float:
        chance = np.clip(expit(np.exp(parameters[0]) * x + parameters[1]), 1e-9, 1.0 - 1e-9)
        return float(-(truth * np.log(chance) + (1.0 - truth) * np.log1p(-chance)).mean())

    best = minimize(surprise, np.zeros(2), method="Nelder-Mead").x
    return ChanceCurve(float(np.exp(best[0])), float(best[1]))


def held_out_entries(data: Path, split: str, share: float, limit: int) -> list[ObjectEntry]:
    """At most `limit` objects of the split that training did not see, which held out this `share`.

    Raises `InputError` for none.
    """
    found = [e for e in ObjectDataset.open(data).entries if e.split == split and is_held_out(e.id, share)]
    if not found:
        raise InputError(f"{data}: no object of the split '{split}' was held out by a share of {share}")
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:limit]]


def calibrate(checkpoint: Path, data: Path, entries: Sequence[ObjectEntry], processes: int) -> ChanceCurve:
    """The curve of a checkpoint on these objects, under all conditions of an evaluation."""
    jobs = [(entry, Condition(*how)) for entry in entries for how in product(VIEWS, OCCLUSIONS)]
    results: Iterator[Voxels | None] = run_jobs(partial(ChanceCollector, checkpoint, data), jobs, processes)
    found = [voxels for voxels in results if voxels is not None]
    if not found:
        raise InputError(f"{data}: none of the {len(entries)} objects makes an example of a solid")
    return fit_chances(np.concatenate([v.chances for v in found]), np.concatenate([v.full for v in found]))


def write_curve(checkpoint: Path, curve: ChanceCurve) -> None:
    """Put the curve into the config of a checkpoint of ours."""
    path = checkpoint / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config.setdefault("metadata", {})[CHANCE_CURVE] = [round(curve.slope, 4), round(curve.intercept, 4)]
    write_file(path, (json.dumps(config, indent=1) + "\n").encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.chances", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--objects", type=Path, required=True, metavar="DATA", help="folder of objects")
    parser.add_argument("--split", default="train", help="of them (default: train)")
    parser.add_argument("--held-out", type=float, default=0.05, help="share that training held out (default: 0.05)")
    parser.add_argument("--limit", type=int, default=24, help="objects at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    options = parser.parse_args(arguments)
    try:
        if not (options.checkpoint / CONFIG).is_file():
            raise InputError(f"{options.checkpoint}: holds no {CONFIG}, so it is no checkpoint of ours")
        entries = held_out_entries(options.objects, options.split, options.held_out, options.limit)
        curve = calibrate(options.checkpoint, options.objects, entries, options.jobs)
        write_curve(options.checkpoint, curve)
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({CHANCE_CURVE: [curve.slope, curve.intercept], "objects": len(entries)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
