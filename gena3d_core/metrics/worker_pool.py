"""Jobs of an evaluation on one or more processes, each of which holds its own evaluator with its models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
import torch

Result = TypeVar("Result")


def run_jobs(
    make_evaluator: Callable[[], Callable[..., Result]], jobs: Sequence[tuple[Any, ...]], processes: int
) -> Iterator[Result]:
    """Results of an evaluator, called with the arguments of each job, as they are done.

    With more than one process each makes its own evaluator and works with a single thread; what they are made of must
    then survive pickling. Raises what the evaluator raises.
    """
    if processes <= 1:
        evaluator = make_evaluator()
        for job in jobs:
            yield evaluator(*job)
        return
    with ProcessPoolExecutor(
        processes, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(make_evaluator,)
    ) as pool:
        waiting = [pool.submit(_work, *job) for job in jobs]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(cancel_futures=True)


_worker: list[Callable[..., Any]] = []


def _start_worker(make_evaluator: Callable[[], Callable[..., Any]]) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _worker[:] = [make_evaluator()]


def _work(*job: Any) -> Any:
    return _worker[0](*job)
