"""Curves of a run as CSV, pictures as PNG, and both in TensorBoard where it is installed."""

from __future__ import annotations

import csv
import importlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gena3d_core.io.atomic import write_file

from .task import Evaluation

log = logging.getLogger("gena3d")
LOSSES, EVALUATIONS = "losses.csv", "evaluations.csv"


class RunLog:
    """Writer of a run's log; an inactive one (a process that is not the first) writes nothing."""

    def __init__(self, out: Path, step: int, *, active: bool = True) -> None:
        self.out, self.active = out, active
        self._collected: list[dict[str, float]] = []
        self._since = time.monotonic()
        self._board: Any = None
        if active:
            (out / "pictures").mkdir(parents=True, exist_ok=True)
            for name in (LOSSES, EVALUATIONS):
                _drop_after(out / name, step)
            self._board = _tensorboard(out / "tensorboard", step)

    def collect(self, losses: Mapping[str, float], norm: float) -> None:
        """Losses of one step."""
        self._collected.append({**losses, "gradient_norm": norm})

    def write(self, step: int, elapsed_s: float, rate: float, batch: int) -> None:
        """Means over the steps since the last call."""
        if not self.active or not self._collected:
            return
        now = time.monotonic()
        means = {name: float(np.mean([c[name] for c in self._collected])) for name in self._collected[0]}
        speed = len(self._collected) * batch / max(now - self._since, 1e-9)
        self._collected, self._since = [], now
        row = {"step": step, "hours": elapsed_s / 3600, **means, "learning_rate": rate, "samples_per_s": speed}
        _append(self.out / LOSSES, row)
        log.info("step %d, %.2f h: loss %.5f, %.1f samples/s", step, row["hours"], means["loss"], speed)
        self._to_board(step, {name: value for name, value in row.items() if name != "step"})

    def evaluated(self, step: int, elapsed_s: float, found: Evaluation) -> None:
        """Metrics and the picture."""
        if not self.active:
            return
        _append(self.out / EVALUATIONS, {"step": step, "hours": elapsed_s / 3600, **found.metrics})
        Image.fromarray(found.picture).save(self.out / "pictures" / f"{step:08d}.png")
        log.info("step %d: %s", step, ", ".join(f"{name} {value:.4f}" for name, value in found.metrics.items()))
        self._to_board(step, found.metrics)
        if self._board is not None:
            self._board.add_image("samples", found.picture, step, dataformats="HWC")
        self._since = time.monotonic()

    def _to_board(self, step: int, values: Mapping[str, float]) -> None:
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
            self._board.flush()


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return None
    return writer(str(folder), purge_step=step)


def _append(file: Path, row: Mapping[str, float]) -> None:
    fresh = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        if fresh:
            writer.writerow(row)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row.values()])


def _drop_after(file: Path, step: int) -> None:
    """Rows of steps that are done again."""
    if not file.exists():
        return
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.split(",")[0].isdigit() and int(row.split(",")[0]) <= step]
    write_file(file, "\n".join([header, *kept, ""]).encode())
