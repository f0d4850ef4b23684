"""Time, memory, and the rate of matrix products on any torch device."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import nn

from ..device import release_cached_memory
from ..memory import is_out_of_memory

Result = TypeVar("Result")
MATRIX_SIDES = {"cpu": (512, 1024, 2048)}
"""Sides of the square products that are tried; larger ones where a device has thousands of lanes to fill."""
ACCELERATOR_SIDES = (2048, 4096, 8192)
MATRIX_RUNS = 7
PROCESS_STATUS, PROCESS_CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Timing:
    """Median seconds over `runs`; warmed_up: whether another run went before and was left out."""

    seconds: float
    runs: int
    warmed_up: bool


@dataclass(frozen=True)
class Measured(Generic[Result]):
    """How long something took, and what came of it."""

    timing: Timing
    result: Result


def synchronize(device: str) -> None:
    """Wait until the device has done what it was given."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of(run: Callable[[], Result], device: str) -> tuple[float, Result]:
    """Wall-clock seconds of one run, and its result."""
    synchronize(device)
    start = time.perf_counter()
    result = run()
    synchronize(device)
    return time.perf_counter() - start, result


def timed(
    run: Callable[[], Result], device: str, repeat: int, patience_s: float, warm_up_s: float | None = None
) -> tuple[Timing, Result]:
    """Median of up to `repeat` runs after one warm-up, fewer where they would take longer than `patience_s`.

    A warm-up that itself takes longer is the measurement. warm_up_s: how long a warm-up took that is already done.
    """
    result = None
    if warm_up_s is None:
        warm_up_s, result = seconds_of(run, device)
        if warm_up_s > patience_s:
            return Timing(warm_up_s, 1, False), result
    found = []
    for _ in range(max(1, min(repeat, int(patience_s / max(warm_up_s, 1e-9))))):
        # The result of the run before must not be held while the next one allocates.
        result = None
        seconds, result = seconds_of(run, device)
        found.append(seconds)
    assert result is not None
    return Timing(statistics.median(found), len(found), True), result


def interleaved(runs: Mapping[str, Callable[[], Result]], device: str, rounds: int) -> dict[str, Measured[Result]]:
    """Medians over `rounds` in which all take turns, after a warm-up of each, so that their ratios outlast a machine
    that gets busy. One that runs out of memory is left out."""
    results: dict[str, Result] = {}
    for name, run in runs.items():
        try:
            results[name] = run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            release_cached_memory()
    seconds: dict[str, list[float]] = {name: [] for name in results}
    for _ in range(rounds):
        for name, taken in seconds.items():
            taken.append(seconds_of(runs[name], device)[0])
    return {
        name: Measured(Timing(statistics.median(seconds[name]), rounds, True), result)
        for name, result in results.items()
    }


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Operations a second (a multiply-add counts two) of the fastest of a few square matrix products."""
    rates = []
    for side in MATRIX_SIDES.get(torch.device(device).type, ACCELERATOR_SIDES):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        # One product of an accelerator is shorter than the way to it: several are queued, then waited for.
        queue = 1 if torch.device(device).type == "cpu" else 20

        def products(a: torch.Tensor = a, b: torch.Tensor = b, queue: int = queue) -> list[torch.Tensor]:
            return [torch.mm(a, b) for _ in range(queue)][-1:]

        seconds_of(products, device)
        best = min(seconds_of(products, device)[0] for _ in range(MATRIX_RUNS))
        rates.append(2.0 * side**3 * queue / best)
    return max(rates)


def parameter_bytes(*modules: nn.Module) -> int:
    """Bytes of all parameters and buffers."""
    return sum(t.numel() * t.element_size() for m in modules for t in (*m.parameters(), *m.buffers()))


def with_peak_memory(run: Callable[[], Result], device: str) -> tuple[Result, int | None]:
    """The result, and the bytes that the run needed at most beside what was held before; None where nobody counts.

    On a CPU these are pages of the process: an allocator that still holds free ones makes the figure too small, so
    measure early in the life of a process.
    """
    gc.collect()
    if torch.device(device).type != "cpu":
        return _with_peak_of_accelerator(run, device)
    before = _reset_process_peak()
    result = run()
    return result, max(0, _process_peak() - before)


def _with_peak_of_accelerator(run: Callable[[], Result], device: str) -> tuple[Result, int | None]:
    module = torch.get_device_module(device)
    if not hasattr(module, "max_memory_allocated"):
        return run(), None
    module.reset_peak_memory_stats(device)
    before = module.memory_allocated(device)
    result = run()
    return result, module.max_memory_allocated(device) - before


def _reset_process_peak() -> int:
    """Bytes that the process holds; its peak starts anew from there where the system can do that."""
    try:
        PROCESS_CLEAR.write_text("5")
        return _process_status("VmRSS")
    except OSError:
        return _process_peak()


def _process_peak() -> int:
    # Not ru_maxrss where it can be helped: on Linux a new process inherits that of the one that started it.
    try:
        return _process_status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _process_status(name: str) -> int:
    fields = dict(line.split(":", 1) for line in PROCESS_STATUS.read_text().splitlines())
    return int(fields[name].split()[0]) * 1024
