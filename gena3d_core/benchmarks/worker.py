"""Measures one row in a process of its own, so that its memory is its own: `python -m gena3d_core.benchmarks.worker`.

Reads {"task": ..., "settings": {...}, "what": {...}} from stdin, writes the row as JSON to stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from ..device import release_cached_memory
from ..errors import Gena3DError
from .detail import measure_detail
from .scene import measure_scene
from .settings import Settings
from .structure import measure_structure

TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "structure": measure_structure,
    "scene": measure_scene,
    "detail": measure_detail,
}
"""Task -> what measures it, called as measure(settings, **what)."""


def measure(task: str, settings: Settings, what: dict[str, Any]) -> dict[str, Any]:
    """The row; on a CPU from a process of its own, since memory that was freed still counts as this one's.

    Raises `Gena3DError` if that process fails.
    """
    if torch.device(settings.device).type != "cpu":
        release_cached_memory()
        return TASKS[task](settings, **what)
    request = json.dumps({"task": task, "settings": asdict(settings), "what": what})
    done = subprocess.run([sys.executable, "-m", __name__], input=request, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Gena3DError(f"measuring {task} {what} failed (exit code {done.returncode}): {last}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Do what stdin asks for."""
    request = json.load(sys.stdin)
    settings = Settings(**request["settings"])
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    print(json.dumps(TASKS[request["task"]](settings, **request["what"])))


if __name__ == "__main__":
    main()
