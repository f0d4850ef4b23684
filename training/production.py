"""Jobs to shards: in parallel, resumable, with jobs that fail left out and listed."""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from tqdm import tqdm

from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.io.atomic import write_file

from .array_folders import INDEX, shard_folder

Job = TypeVar("Job")
Example = TypeVar("Example")

CHUNK = 4
"""Jobs that a worker takes at once."""
RECORD = "render.json"
FAILURES = "failed.jsonl"


@dataclass(frozen=True)
class Production(Generic[Job, Example]):
    """How examples are made of jobs.

    attempt  job -> example, or the reason why there is none; must be picklable when there are several workers
    write    directory, number of the shard, its examples
    name     what a job is about, for the list of failures; its values also tell jobs apart
    common   what all jobs have in common: shards of other jobs are no part of the set
    """

    attempt: Callable[[Job], Example | str]
    write: Callable[[Path, int, Sequence[Example]], Path]
    name: Callable[[Job], Mapping[str, Any]]
    common: Mapping[str, Any]


def attempted(render: Callable[[Job], Example], job: Job) -> Example | str:
    """The example, or why there is none: what one mesh or scene cannot give must not end a run of thousands."""
    try:
        return render(job)
    except (Gena3DError, ArithmeticError, ValueError, np.linalg.LinAlgError) as error:
        return f"{type(error).__name__}: {error}"


def produce_shards(
    jobs: Sequence[Job], out: Path, shard_size: int, workers: int, production: Production[Job, Example]
) -> dict[str, Any]:
    """Make the examples of all jobs into shards below `out`; finished shards stay. Returns counts and seconds.

    Jobs that fail are left out and listed in failed.jsonl. Raises `InputError` if `out` holds shards of other jobs.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_record(out, jobs, shard_size, production)
    numbers = range(-(-len(jobs) // shard_size))
    waiting = [n for n in numbers if not (shard_folder(out, n) / INDEX).is_file()]
    todo = [job for n in waiting for job in jobs[n * shard_size : (n + 1) * shard_size]]
    made, failed, start = 0, 0, time.perf_counter()
    results = _results(todo, workers, production.attempt)
    with tqdm(total=len(todo), unit="example", disable=not sys.stderr.isatty()) as bar:
        for number in waiting:
            examples = []
            for job in jobs[number * shard_size : (number + 1) * shard_size]:
                result = next(results)
                if isinstance(result, str):
                    failed += 1
                    _log_failure(out, production.name(job), result)
                else:
                    examples.append(result)
                bar.update()
            if examples:
                production.write(out, number, examples)
            made += len(examples)
    seconds = time.perf_counter() - start
    return {
        "shards": len(numbers),
        "shards_before": len(numbers) - len(waiting),
        "examples": made,
        "failed": failed,
        "seconds": seconds,
        "examples_per_s": made / seconds if made else 0.0,
    }


def summary(report: Mapping[str, Any]) -> str:
    """One line for people."""
    return (
        f"{report['examples']} examples in {report['seconds']:.1f} s ({report['examples_per_s']:.2f} examples/s), "
        f"{report['failed']} left out, {report['shards_before']} of {report['shards']} shards were there"
    )


def _results(jobs: Sequence[Job], workers: int, attempt: Callable[[Job], Example | str]) -> Iterator[Example | str]:
    """Example or reason of failure of each job, in order."""
    if workers <= 1:
        yield from map(attempt, jobs)
        return
    # Forked children of a process that has used torch's threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers, _single_threaded) as pool:
        yield from pool.imap(attempt, jobs, chunksize=CHUNK)


def _single_threaded() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _log_failure(out: Path, name: Mapping[str, Any], reason: str) -> None:
    with (out / FAILURES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({**name, "reason": reason}) + "\n")
    tqdm.write(f"left out: {next(iter(name.values()))} ({reason})", file=sys.stderr)


def _check_record(out: Path, jobs: Sequence[Job], shard_size: int, production: Production[Job, Example]) -> None:
    """Remember what the folder is made of; shards of other jobs are no part of this set."""
    names = ("|".join(str(value) for value in production.name(job).values()) for job in jobs)
    digest = zlib.crc32("\n".join(names).encode())
    common = dict(production.common) if jobs else {}
    record = {"examples": len(jobs), "shard_size": shard_size, "jobs": common, "digest": digest}
    text = json.dumps(record, indent=1)
    path = out / RECORD
    if path.is_file():
        if path.read_text(encoding="utf-8") != text:
            raise InputError(f"{out} holds examples made with other options (see {path}): choose another folder")
    else:
        write_file(path, text.encode())
