"""Views side by side on the cores of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier, Lock
from typing import TypeVar

import torch

T = TypeVar("T")
_lock = Lock()


def map_views(function: Callable[[int], T], indices: Iterable[int], device: torch.device) -> list[T]:
    """`function` of every index, in order; on a CPU as many at once as torch has threads.

    The sweep is made of many small steps. Threads inside each step would wait for one another at its end, which on a
    machine with other work costs ten times the step itself; whole views need no such waiting.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1:
        return [function(i) for i in indices]

    def run(index: int) -> T:
        with torch.inference_mode():
            return function(index)

    with _lock:
        pool = _pool(threads)
    return list(pool.map(run, indices))


@lru_cache(maxsize=1)
def _pool(count: int) -> ThreadPoolExecutor:
    """Threads in which torch uses one core each."""
    started = Barrier(count + 1)

    def start() -> None:
        # The first question makes torch set the thread up with the default, which would later undo the setting.
        torch.get_num_threads()
        torch.set_num_threads(1)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="plane_sweep", initializer=start)
    for _ in range(count):
        pool.submit(lambda: None)
    started.wait()
    # The number is also torch's default for threads to come, which the new ones have just changed.
    torch.set_num_threads(count)
    return pool
