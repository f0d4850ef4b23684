"""`python -m training.ablate --data DIR --vae DIR --out DIR`: the flow with parts of GENA3D left out (paper, Table 3).

Every variant is trained with every seed on the same batches for the same number of steps, then samples the held-out
objects, which no variant was trained on. Started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gena3d_core.errors import CancelledError, Gena3DError, InputError
from gena3d_core.io.atomic import write_file

from .datasets import open_split
from .distributed import chosen_device
from .objectives_flow import FlowTask
from .recipes import make_recipe
from .recipes.settings import FlowRecipe
from .train import StopSignal, run_recipe

VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "no gating": ("gating=false",),
    "no aligned stereo": ("aligned_stereo=false",),
    "no stereo attention": ("stereo=false",),
    "no stereo at all": ("stereo=false", "aligned_stereo=false"),
    "views concatenated": ("fusion=concatenated", "fusion_norm=false"),
    "views in turn": ("fusion=stochastic", "fusion_norm=false"),
    "none of them": ("stereo=false", "aligned_stereo=false", "fusion=stochastic", "fusion_norm=false"),
}
"""What is left out -> keys of the flow's recipe. Aligned stereo is our own: Table 3's rows leave out the others."""
RESAMPLES = 2000
SAMPLED_AT_ONCE = 16


@dataclass(frozen=True)
class AblationPlan:
    """What to train: recipe flow_`size` for `steps` steps with each seed; words are further key=value."""

    data: Path
    vae: Path
    out: Path
    steps: int
    seeds: tuple[int, ...]
    size: str = "edge"
    variants: tuple[str, ...] = tuple(VARIANTS)
    words: tuple[str, ...] = ()

    def recipe(self, variant: str, seed: int) -> FlowRecipe:
        """Recipe of one run; raises `InputError` for what its keys do not allow."""
        folder = self.out / f"{variant.replace(' ', '_')}_{seed}"
        limits = [f"max_steps={self.steps}", "hours=0", f"seed={seed}"]
        places = [f"data={self.data}", f"vae={self.vae}", f"out={folder}"]
        recipe = make_recipe(f"flow_{self.size}", [*places, *limits, *self.words, *VARIANTS[variant]])
        assert isinstance(recipe, FlowRecipe)
        return recipe


def ablate(plan: AblationPlan, stopped: Callable[[], bool] = lambda: False) -> list[dict[str, Any]] | None:
    """Rows of the table (see `table_rows`); None if stopped before."""
    scores: dict[str, np.ndarray] = {}
    losses: dict[str, float] = {}
    objects: list[str] = []
    for variant in plan.variants:
        found, held_out = [], []
        for seed in plan.seeds:
            recipe = plan.recipe(variant, seed)
            if not run_recipe(recipe, f"flow_{plan.size}", stopped):
                return None
            ious, loss, objects = held_out_scores(recipe)
            found.append(ious)
            held_out.append(loss)
        scores[variant], losses[variant] = np.mean(found, axis=0), float(np.mean(held_out))
    return table_rows(scores, losses, objects, len(plan.seeds))


def held_out_scores(recipe: FlowRecipe) -> tuple[np.ndarray, float, list[str]]:
    """IoU of a sample of each held-out example, the held-out loss, and the examples' objects, of a finished run."""
    task = FlowTask(recipe, open_split(recipe), chosen_device(recipe.device))
    task.load(Path(recipe.out) / "last")
    examples = task.split.held_out
    ious = [
        task.sampled(examples[start : start + SAMPLED_AT_ONCE])[0].numpy()
        for start in range(0, len(examples), SAMPLED_AT_ONCE)
    ]
    return np.concatenate(ious), task.held_out_loss(), [e.object_id for e in examples]


def table_rows(
    scores: Mapping[str, np.ndarray], losses: Mapping[str, float], objects: Sequence[str], seeds: int
) -> list[dict[str, Any]]:
    """One row per variant: mean IoU, its difference to the first variant with a 95 % interval, and the held-out loss.

    scores (N,) per variant, of the same N examples. The interval is of a bootstrap over objects, whose examples stay
    together.
    """
    names = sorted(set(objects))
    member = np.array([names.index(name) for name in objects])
    counts = np.bincount(member, minlength=len(names)).astype(float)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    reference = next(iter(scores.values()))
    rows = []
    for variant, values in scores.items():
        sums = np.bincount(member, weights=values - reference, minlength=len(names))
        resampled = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.percentile(resampled, [2.5, 97.5])
        rows.append(
            {
                "variant": variant,
                "iou": float(values.mean()),
                "difference": float((values - reference).mean()),
                "interval": [float(low), float(high)],
                "held_out_loss": losses[variant],
                "objects": len(names),
                "examples": len(objects),
                "seeds": seeds,
            }
        )
    return rows


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    lines = [f"{'variant':<22}{'IoU':>8}{'difference':>12}{'95 % interval':>20}{'loss':>9}"]
    for row in rows:
        interval = f"[{row['interval'][0]:+.3f}, {row['interval'][1]:+.3f}]"
        lines.append(
            f"{row['variant']:<22}{row['iou']:>8.3f}{row['difference']:>+12.3f}{interval:>20}"
            f"{row['held_out_loss']:>9.4f}"
        )
    counts = rows[0]
    lines.append(f"{counts['examples']} examples of {counts['objects']} held-out objects, {counts['seeds']} seeds each")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or stopped by a signal, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.ablate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--vae", type=Path, required=True, help="folder of a VAE's result")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--steps", type=int, default=4000, help="of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="edge", choices=("edge", "small", "tiny"))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), metavar="VARIANT", help=", ".join(VARIANTS))
    parser.add_argument("--json", type=Path, help="write the rows there")
    parser.add_argument("--flow", nargs="*", default=[], metavar="key=value", help="fields of the flow's recipe")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if unknown := [name for name in options.only if name not in VARIANTS]:
            raise InputError(f"unknown variant '{unknown[0]}', one of {', '.join(VARIANTS)}")
        plan = AblationPlan(
            options.data,
            options.vae,
            options.out,
            options.steps,
            tuple(options.seeds),
            options.size,
            tuple(options.only),
            tuple(options.flow),
        )
        with StopSignal() as stopped:
            rows = ablate(plan, stopped)
    except CancelledError as error:
        print(error, file=sys.stderr)
        return 0
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if rows is None:
        print("stopped; start again to go on")
        return 0
    if options.json is not None:
        write_file(options.json, json.dumps({"schema": 1, "rows": rows}, indent=1).encode())
    print(as_text(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
