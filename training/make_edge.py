"""`python -m training.make_edge --data DIR --out DIR --hours H`: the edge checkpoint from shards, in one command.

VAE, then latents, then flow, then the checkpoint in 16 bits; each goes on where it was and is skipped when done.
Training longer is running it again with more hours: the flow goes on, the VAE stays as it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import CancelledError, Gena3DError
from gena3d_core.generative.hypotheses import TEMPERATURE

from .calibrate import occupancy_temperature
from .datasets import open_split
from .distributed import chosen_device
from .provenance import commit
from .recipes import make_recipe
from .recipes.settings import FlowRecipe, Recipe
from .train import StopSignal, run_recipe

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Files are computed with as they are stored, and CPUs multiply float16 ten times slower than bfloat16."""
MAX_FILE_MB = 14.5
log = logging.getLogger("gena3d")


@dataclass(frozen=True)
class EdgePlan:
    """What to make.

    hours      of the flow and the VAE together, over all starts
    vae_hours  of the VAE; once the flow has begun, the VAE stays as it is
    size       'edge', or 'tiny' for tests
    dtype      of the stored matrices: 'float16' or 'bfloat16'
    vae, flow  further key=value of the two recipes
    """

    data: Path
    out: Path
    hours: float
    vae_hours: float
    size: str = "edge"
    dtype: str = "bfloat16"
    vae: tuple[str, ...] = ()
    flow: tuple[str, ...] = ()


def make_edge(plan: EdgePlan, stopped: Callable[[], bool] = lambda: False, command: str = "") -> Path | None:
    """Folder of the finished checkpoint, None if stopped before."""
    vae_out, flow_out = plan.out / "vae", plan.out / "flow"
    if not (flow_out / "states").exists():
        log.info("VAE: %.2f hours", plan.vae_hours)
        if not run_recipe(_vae_recipe(plan, vae_out), f"vae_{plan.size}", stopped):
            return None
    recipe = _flow_recipe(plan, vae_out, flow_out)
    log.info("flow: %.2f hours", recipe.hours)
    if not run_recipe(recipe, f"flow_{plan.size}", stopped):
        return None
    target = plan.out / "checkpoint"
    assert isinstance(recipe, FlowRecipe)
    temperature = occupancy_temperature(recipe, flow_out / "best", chosen_device(recipe.device))
    log.info("logits are calibrated by a temperature of %.2f", temperature)
    export(flow_out / "best", vae_out / "best", target, plan, command, temperature)
    return target


def _vae_recipe(plan: EdgePlan, out: Path) -> Recipe:
    words = [f"data={plan.data}", f"out={out}", f"hours={plan.vae_hours}", *plan.vae]
    return make_recipe(f"vae_{plan.size}", words)


def _flow_recipe(plan: EdgePlan, vae_out: Path, out: Path) -> Recipe:
    hours = max(plan.hours - plan.vae_hours, 1e-6)
    words = [f"data={plan.data}", f"out={out}", f"vae={vae_out / 'best'}", f"hours={hours}", *plan.flow]
    return make_recipe(f"flow_{plan.size}", words)


def export(flow: Path, vae: Path, target: Path, plan: EdgePlan, command: str, temperature: float) -> None:
    """Write the checkpoint with weights in 16 bits, and the model card's facts as its metadata."""
    bundle = open_checkpoint(flow)
    facts = bundle.metadata
    split = open_split(_vae_recipe(plan, target))
    category = {e.object_id: e.category for e in split.train}
    kinds = Counter(category.values())
    metadata = {
        "license": "Apache-2.0",
        TEMPERATURE: round(temperature, 3),
        "command": command,
        "commit": commit(Path(__file__).parent),
        "data": {**facts.get("data", {}), "objects_by_category": dict(sorted(kinds.items()))},
        "flow": facts,
        "vae": dict(open_checkpoint(vae).metadata),
    }
    modules = {role: half(module, DTYPES[plan.dtype]) for role, module in bundle.modules.items()}
    result = replace(bundle, family="edge", frame="observed", modules=modules, metadata=metadata)
    save_bundle(result, target, MAX_FILE_MB)
    total = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    log.info("%s: %.1f MB in %s", target, total / 1e6, plan.dtype)


def half(module: Any, dtype: torch.dtype) -> Any:
    """A copy with matrix layers in `dtype` and every other floating-point number in float16.

    The layers around the matrices compute in float32 when opened, where bfloat16's three digits would cost ten times
    the error of all the rest.
    """
    small = deepcopy(module)
    small.set_precision(dtype)
    around = [t for t in (*small.parameters(), *small.buffers()) if t.dtype == torch.float32]
    total = sum(t.numel() for t in small.state_dict().values())
    # Files are opened in the half precision that most of their numbers have.
    rest = torch.float16 if 2 * sum(t.numel() for t in around) < total else dtype
    for tensor in around:
        tensor.data = tensor.data.to(rest)
    return small


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done or stopped by a signal, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.make_edge", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the checkpoint")
    parser.add_argument("--hours", type=float, required=True, help="time of training over all starts")
    parser.add_argument("--vae-hours", type=float, help="of which for the VAE (default a fifth, at most 1.5)")
    parser.add_argument("--size", default="edge", choices=("edge", "tiny"))
    parser.add_argument("--dtype", default="bfloat16", choices=sorted(DTYPES), help="of the stored matrices")
    parser.add_argument("--vae", nargs="*", default=[], metavar="key=value", help="fields of the VAE's recipe")
    parser.add_argument("--flow", nargs="*", default=[], metavar="key=value", help="fields of the flow's recipe")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    vae_hours = min(1.5, 0.2 * options.hours) if options.vae_hours is None else options.vae_hours
    plan = EdgePlan(
        options.data,
        options.out,
        options.hours,
        vae_hours,
        options.size,
        options.dtype,
        tuple(options.vae),
        tuple(options.flow),
    )
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with StopSignal() as stopped:
            made = make_edge(plan, stopped, "python -m training.make_edge " + shlex.join(words))
    except CancelledError as error:
        print(error, file=sys.stderr)
        return 0
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"checkpoint": str(made)}) if made else "stopped; start again to go on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
