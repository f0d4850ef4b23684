"""The training loop: one for every recipe. A run is a folder; started again, it goes on where it was."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import DataFormatError, Gena3DError

from .datasets import Batch, batch_indices
from .distributed import SINGLE, Processes
from .ema import ParameterAverage
from .logs import RunLog
from .recipes.settings import Recipe
from .schedule import learning_rate, progress
from .state import load_newest_state, random_states, restore_random_states, save_state
from .task import Task

CLIP_HISTORY = 1000
CLIP_PERCENTILE = 95.0
LOG_SECONDS = 20.0
log = logging.getLogger("gena3d")


@dataclass
class Run:
    """Everything that changes while a run goes on."""

    network: nn.Module
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    average: ParameterAverage
    device: torch.device
    step: int = 0
    elapsed_s: float = 0.0
    best_score: float = -math.inf
    norms: deque[float] = field(default_factory=lambda: deque(maxlen=CLIP_HISTORY))

    def state(self) -> dict[str, Any]:
        """As plain data; see `restore`."""
        return {
            "parameters": {name: p.detach() for name, p in self.parameters.items()},
            "counters": {name: b.detach() for name, b in self._counters().items()},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "random": random_states(self.device),
            "norms": list(self.norms),
            **{name: getattr(self, name) for name in ("step", "elapsed_s", "best_score")},
        }

    def _counters(self) -> dict[str, Tensor]:
        """Buffers that a network changes while it is trained; it names them in `counters`."""
        return {name: getattr(self.network, name) for name in getattr(self.network, "counters", ())}

    @torch.no_grad()
    def restore(self, state: dict[str, Any], source: Path) -> None:
        """Raises `DataFormatError` for the state of another network."""
        stored = state["parameters"]
        differs = [n for n, p in self.parameters.items() if n not in stored or stored[n].shape != p.shape]
        if differs or len(stored) != len(self.parameters):
            raise DataFormatError(
                f"{source}: holds the state of another network ({len(stored)} parameters, {len(differs)} of "
                f"{len(self.parameters)} do not fit): choose another out=FOLDER"
            )
        for name, parameter in self.parameters.items():
            parameter.copy_(stored[name])
        for name, buffer in self._counters().items():
            buffer.copy_(state["counters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.norms.extend(state["norms"])
        for name in ("step", "elapsed_s", "best_score"):
            setattr(self, name, state[name])
        restore_random_states(state["random"], self.device)


def train(
    task: Task,
    recipe: Recipe,
    device: torch.device,
    *,
    processes: Processes = SINGLE,
    stopped: Callable[[], bool] = lambda: False,
    metadata: dict[str, Any] | None = None,
) -> bool:
    """Run or go on until the recipe's end; the state and the results are below recipe.out.

    `best/` and `last/` are checkpoints with averaged parameters. Returns whether the end was reached: when `stopped`
    says so, the state is saved after the step and the result is False. Raises `Gena3DError` for a loss that is not
    finite.
    """
    out = Path(recipe.out)
    run = _start(task, recipe, device)
    state = load_newest_state(out, device)
    if state is not None:
        run.restore(state, out)
        log.info("going on at step %d after %.2f hours", run.step, run.elapsed_s / 3600)
    compiled: Any = torch.compile(task.network) if recipe.compile else task.network
    network = processes.wrapped(compiled, device)
    steps_per_epoch = len(task.split.train) / recipe.batch
    done = progress(recipe, run.step, run.elapsed_s, steps_per_epoch)
    if done >= 1.0:
        return True
    journal = RunLog(out, run.step, active=processes.rank == 0)
    started = time.monotonic() - run.elapsed_s
    saved = evaluated = logged = time.monotonic()
    batches = _batches(task, recipe, run.step, processes)
    halted, fresh = False, True
    while not halted and done < 1.0:
        rate = learning_rate(recipe, run.step, done)
        losses, norm = _step(run, network, batches, recipe, rate, processes)
        run.step += 1
        run.elapsed_s = time.monotonic() - started
        done = progress(recipe, run.step, run.elapsed_s, steps_per_epoch)
        now = time.monotonic()
        journal.collect(losses, norm)
        # All processes must take the same turns, so the first one's clock counts and anybody's signal.
        signalled, done, due_save, due_evaluation = processes.agree(
            float(stopped()),
            done,
            float(now - saved > 60 * recipe.save_minutes),
            float(now - evaluated > 60 * recipe.evaluate_minutes),
        )
        halted, last = bool(signalled), done >= 1.0
        if fresh or last or now - logged > LOG_SECONDS:
            journal.write(run.step, run.elapsed_s, rate, recipe.batch)
            logged, fresh = now, False
        if (due_evaluation or last) and not halted:
            _evaluate(task, run, recipe, journal, processes, metadata or {})
            evaluated = time.monotonic()
            run.elapsed_s = evaluated - started
        if (due_save or halted or last or due_evaluation) and processes.rank == 0:
            save_state(out, run.step, run.state())
            saved = time.monotonic()
    journal.write(run.step, run.elapsed_s, rate, recipe.batch)
    batches.close()
    processes.barrier()
    return not halted


def _start(task: Task, recipe: Recipe, device: torch.device) -> Run:
    parameters = {name: p for name, p in task.network.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for p in parameters.values() if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        # Norms and biases set scales and places: decay would pull them away from what they normalise to.
        {"params": [p for p in parameters.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.learning_rate, betas=recipe.betas, fused=True
    )
    task.network.train()
    return Run(task.network, parameters, optimizer, ParameterAverage(task.network, recipe.ema_decay), device)


def _step(
    run: Run, network: Any, batches: Iterator[Batch], recipe: Recipe, rate: float, processes: Processes
) -> tuple[dict[str, float], float]:
    """One step of the optimiser; the loss with its parts, and the gradients' norm before clipping."""
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    sums: dict[str, Tensor] = {}
    for part in range(recipe.accumulate):
        batch = next(batches).to(run.device)
        last = part + 1 == recipe.accumulate
        with nullcontext() if last else processes.without_sync(network), autocast(recipe, run.device):
            loss = network(batch)
        with nullcontext() if last else processes.without_sync(network):
            (loss.total / recipe.accumulate).backward()
        for name, value in {"loss": loss.total.detach(), **loss.parts}.items():
            sums[name] = sums.get(name, torch.zeros((), device=run.device)) + value / recipe.accumulate
    losses = {name: float(value) for name, value in sums.items()}
    if not math.isfinite(losses["loss"]):
        raise Gena3DError(
            f"step {run.step}: the loss is {losses['loss']}; the state saved last is intact: start again with a "
            "smaller learning_rate"
        )
    norm = float(nn.utils.clip_grad_norm_(run.parameters.values(), _clip(run, recipe)))
    run.norms.append(norm)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    run.average.update(run.network)
    return losses, norm


def _clip(run: Run, recipe: Recipe) -> float:
    if not recipe.adaptive_clip or len(run.norms) < CLIP_HISTORY:
        return recipe.clip_norm
    return min(recipe.clip_norm, float(np.percentile(run.norms, CLIP_PERCENTILE)))


def autocast(recipe: Recipe, device: torch.device) -> Any:
    """Matrix products in the recipe's precision; parameters stay in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bfloat16")


def _batches(task: Task, recipe: Recipe, step: int, processes: Processes) -> Any:
    """Batches from `step` on, made one ahead in a thread; each depends on its number, the seed and the process only."""
    part = recipe.batch // recipe.accumulate

    def make(number: int) -> Batch:
        indices = batch_indices(len(task.split.train), part, number, recipe.seed)
        rng = np.random.default_rng([recipe.seed, number, processes.rank])
        return task.batch(indices[processes.rank :: processes.count], rng)

    with ThreadPoolExecutor(1) as pool:
        number = step * recipe.accumulate
        ahead = pool.submit(make, number)
        while True:
            number += 1
            ready, ahead = ahead, pool.submit(make, number)
            yield ready.result()


def _evaluate(
    task: Task, run: Run, recipe: Recipe, journal: RunLog, processes: Processes, metadata: dict[str, Any]
) -> None:
    """Metrics and checkpoints of the averaged parameters, by the first process; the others wait for its next step."""
    if processes.rank != 0:
        return
    out = Path(recipe.out)
    run.average.swap(run.network)
    run.network.eval()
    try:
        with autocast(recipe, run.device):
            found = task.evaluate()
        journal.evaluated(run.step, run.elapsed_s, found)
        described = {**metadata, "step": run.step, "hours": round(run.elapsed_s / 3600, 3), **found.metrics}
        bundle = task.bundle(described)
        save_bundle(bundle, out / "last")
        if found.score > run.best_score:
            run.best_score = found.score
            save_bundle(bundle, out / "best")
    finally:
        run.network.train()
        run.average.swap(run.network)
