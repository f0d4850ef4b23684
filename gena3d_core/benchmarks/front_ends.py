"""Seconds and peak memory of the perception front ends, each in a process of its own where memory is the process'.

As a program (`python -m gena3d_core.benchmarks.front_ends`) it reads one request as JSON from stdin and writes the row.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..device import release_cached_memory
from ..errors import Gena3DError
from ..types import View
from .front_end_stages import FRONT_ENDS, STAGES, FrontEnd
from .measuring import seconds_of, timed, with_peak_memory
from .report import bytes_text, markdown, seconds_text

HEAD = ("front end", "weights", "device", "measured", "first run", "s/run", "s/view", "peak memory", "result")


@dataclass(frozen=True)
class Task:
    """What to measure, and on what.

    recording   path of a recording, "" for the simulated tabletop scene; frames of it, or how many views
    checkpoint  of the front end, "" for the usual place
    """

    stage: str
    name: str
    size: str
    views: int = 4
    recording: str = ""
    frames: tuple[int, ...] = ()
    device: str = "cpu"
    checkpoint: str = ""
    repeat: int = 3
    patience_s: float = 30.0
    threads: int | None = None


def measure_in_process(task: Task, timeout_s: float | None = None) -> dict[str, Any]:
    """The row; on a CPU from a process of its own. One that fails or takes longer than `timeout_s` is a row as well."""
    if not task.checkpoint and (reason := find(task.stage, task.name, task.size).missing()):
        return not_measured(task, reason)
    if torch.device(task.device).type != "cpu":
        release_cached_memory()
        return measure(task)
    command = [sys.executable, "-m", __name__]
    try:
        done = subprocess.run(
            command, input=json.dumps(asdict(task)), capture_output=True, text=True, check=False, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return not_measured(task, f"it took longer than {timeout_s:g} s")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return not_measured(task, f"its process failed (exit code {done.returncode}): {last}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(task: Task) -> dict[str, Any]:
    """Seconds and peak memory of one front end; a row that says why where it cannot be had."""
    front_end = find(task.stage, task.name, task.size)
    try:
        views = load_views(task)
        return {**labels(task), **_measured(front_end, task, views), "views": len(views)}
    except Gena3DError as error:
        return not_measured(task, str(error))


def find(stage: str, name: str, size: str) -> FrontEnd:
    """The entry of the table."""
    return next(f for f in FRONT_ENDS if (f.stage, f.name, f.size) == (stage, name, size))


def _measured(front_end: FrontEnd, task: Task, views: Sequence[View]) -> dict[str, Any]:
    numbers = itertools.count()
    runs: list[Any] = []

    def first() -> tuple[float, dict[str, Any]]:
        runs.append(front_end.make(views, task.device, task.checkpoint or None))
        return seconds_of(lambda: runs[0](next(numbers)), task.device)

    (whole_s, (first_s, facts)), peak = with_peak_memory(lambda: seconds_of(first, task.device), task.device)
    timing, facts = timed(lambda: runs[0](next(numbers)), task.device, task.repeat, task.patience_s, warm_up_s=first_s)
    return {
        "measured": "yes",
        "load_s": whole_s - first_s,
        "first_s": first_s,
        "seconds": timing.seconds,
        "runs": timing.runs,
        "seconds_per_view": timing.seconds / len(views),
        "peak_bytes": peak,
        "facts": facts,
    }


def load_views(task: Task) -> list[View]:
    """The recording's views, or those of the simulated scene."""
    if task.recording:
        from ..io import load_views as load_recorded

        return list(load_recorded(Path(task.recording), list(task.frames) or None, task.views))
    from ..simulation import default_scene, views_from_scene

    return views_from_scene(default_scene(), task.views)


def labels(task: Task) -> dict[str, Any]:
    """The fields that say what a row is about."""
    return {
        "stage": task.stage,
        "name": task.name,
        "size": task.size,
        "device": task.device,
        "input": task.recording or "simulated scene",
        "threads": torch.get_num_threads() if torch.device(task.device).type == "cpu" else None,
    }


def not_measured(task: Task, reason: str) -> dict[str, Any]:
    """A row that says why it has no figures."""
    return {**labels(task), "measured": "no", "reason": " ".join(reason.split())}


def tables(rows: Sequence[dict[str, Any]]) -> str:
    """A table a stage; below it what is not measured, and why."""
    blocks = []
    for stage, summary in STAGES.items():
        own = [row for row in rows if row["stage"] == stage]
        if not own:
            continue
        lines = [f"### {stage}: {summary}"]
        if measured := [row for row in own if row["measured"] == "yes"]:
            lines += ["", *markdown(HEAD, [_cells(row) for row in measured])]
        if missing := [row for row in own if row["measured"] != "yes"]:
            lines += ["", *(f"- not measured: {row['name']} ({row['size']}): {row['reason']}" for row in missing)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cells(row: dict[str, Any]) -> list[str]:
    facts = ", ".join(_fact(name, value) for name, value in row["facts"].items())
    return [
        row["name"],
        row["size"],
        row["device"],
        f"median of {row['runs']}" if row["runs"] > 1 else "one run",
        f"{seconds_text(row['load_s'])} + {seconds_text(row['first_s'])}",
        seconds_text(row["seconds"]),
        seconds_text(row["seconds_per_view"]),
        bytes_text(row["peak_bytes"]),
        facts,
    ]


def _fact(name: str, value: float) -> str:
    words = name.replace("_", " ")
    if name == "known_depth":
        return f"{100 * value:.0f} % {words}"
    return f"{value} {words.removesuffix('s') if value == 1 else words}"


def main() -> None:
    """Do what stdin asks for."""
    request = json.load(sys.stdin)
    task = Task(**{**request, "frames": tuple(request["frames"])})
    if task.threads is not None:
        torch.set_num_threads(task.threads)
    print(json.dumps(measure(task)))


if __name__ == "__main__":
    main()
