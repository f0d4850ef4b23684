"""Work on a batch in chunks that fit a memory budget; a chunk that does not fit after all is halved."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from .checkpoints.bundle import ModelBundle
from .device import release_cached_memory
from .errors import InputError, MemoryBudgetError

Result = TypeVar("Result")
OUT_OF_MEMORY_WORDS = ("out of memory", "can't allocate memory", "not enough memory")
"""What allocators of torch say; their exception types differ between devices and versions."""
log = logging.getLogger("gena3d")


def parse_bytes(text: str) -> int:
    """'6GB', '512 MB', '1.5G', '2000000' -> bytes (powers of 1024); raises `InputError`."""
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    compact = text.strip().upper().removesuffix("B").removesuffix("I").strip()
    unit = compact[-1:] if compact[-1:].isalpha() else ""
    try:
        size = float(compact.removesuffix(unit)) * units[unit]
    except (KeyError, ValueError):
        size = 0.0
    if not size >= 1:
        raise InputError(f"'{text}' is no amount of memory: write for example 6GB or 512MB")
    return int(size)


def memory_left(bundle: ModelBundle, max_memory_bytes: int) -> int:
    """Bytes of a budget that the weights of the bundle leave; raises `MemoryBudgetError` if none are."""
    weights = sum(
        tensor.numel() * tensor.element_size()
        for module in bundle.modules.values()
        for tensor in module.state_dict().values()
    )
    left = max_memory_bytes - weights
    if left <= 0:
        raise MemoryBudgetError(
            f"the weights of {bundle.source} alone take {weights / 2**30:.2f} GB, more than the budget of "
            f"{max_memory_bytes / 2**30:.2f} GB: raise --max-memory or use --dtype bfloat16"
        )
    return left


def chunk_rows(rows: int, bytes_per_row: float, budget_bytes: int | None) -> int:
    """How many rows to work on at once; all of them without a budget.

    Raises `MemoryBudgetError` if not even one row fits.
    """
    if budget_bytes is None:
        return rows
    fitting = int(budget_bytes // max(bytes_per_row, 1.0))
    if fitting < 1:
        raise MemoryBudgetError(
            f"one object needs about {bytes_per_row / 2**20:.0f} MB beside the weights, the budget leaves "
            f"{budget_bytes / 2**20:.0f} MB: raise --max-memory, or use fewer views or a smaller checkpoint"
        )
    return min(rows, fitting)


def in_chunks(rows: int, chunk: int, work: Callable[[int, int], Result]) -> list[Result]:
    """Results of work(start, stop) over [0, rows) in steps of at most `chunk`.

    A chunk that runs out of memory is tried again in halves, and the halves' size is kept; with a single row left
    the error becomes a `MemoryBudgetError`.
    """
    results: list[Result] = []
    start = 0
    while start < rows:
        stop = min(rows, start + chunk)
        try:
            results.append(work(start, stop))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if stop - start == 1:
                raise MemoryBudgetError(
                    f"out of memory with a single object ({str(error).splitlines()[0]}): use fewer views, a smaller "
                    "checkpoint, --dtype bfloat16 or another device"
                ) from error
            chunk = (stop - start) // 2
            log.warning("out of memory with %d objects at once: going on with %d", stop - start, chunk)
            release_cached_memory()
            continue
        start = stop
    return results


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on whatever device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY_WORDS)
