"""One thread that reconstructs, with room for one waiting job: the newest wins. Knows nothing of ROS."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gena3d_core.errors import CancelledError
from gena3d_core.types import CancelCheck, ProgressCallback, Reconstruction

log = logging.getLogger(__name__)

Work = Callable[[ProgressCallback, CancelCheck], Reconstruction]


@dataclass(frozen=True)
class Outcome:
    """How a job ended: exactly one of the two is set."""

    reconstruction: Reconstruction | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Job:
    """One reconstruction that was asked for.

    work      does it, in the worker's thread
    progress  told stage and fraction, in the worker's thread, until the job has ended
    finished  told the outcome exactly once, in whatever thread ended the job
    urgent    stops the job that runs, and is never displaced by a job that is not urgent
    delay_s   how long it waits for newer jobs to take its place
    started   whether its work has begun
    """

    work: Work
    progress: ProgressCallback
    finished: Callable[[Outcome], None]
    urgent: bool = False
    delay_s: float = 0.0
    started: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def end(self, outcome: Outcome) -> bool:
        """Tell `outcome` unless the job has ended before; whether it was told."""
        with self._lock:
            if self._ended.is_set():
                return False
            self._ended.set()
        try:
            self.finished(outcome)
        except Exception:
            # Neither the worker's thread nor whoever displaced the job may suffer for its owner.
            log.exception("a job's end could not be told")
        return True

    def abandon(self, reason: str) -> bool:
        """End the job at once; what its thread may still do is thrown away."""
        self.cancel.set()
        return self.end(Outcome(error=CancelledError(reason)))


class LatestOnlyWorker:
    """Runs jobs one at a time in a thread of its own.

    A job that is cancelled or displaced ends at once for whoever asked; the thread itself follows at the next point
    where the work looks, and only then takes the next job, since pipelines are not thread safe.
    """

    def __init__(self, name: str = "reconstruction") -> None:
        self._condition = threading.Condition()
        self._running: Job | None = None
        self._urgent: Job | None = None
        self._waiting: Job | None = None
        self._due_s = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._condition:
            return any(job is not None for job in (self._running, self._urgent, self._waiting))

    def submit(self, job: Job) -> None:
        """Take `job`: it displaces a waiting one, and an urgent one stops what runs too. After `close` it just ends."""
        displaced: list[Job | None] = []
        with self._condition:
            if self._closed:
                displaced.append(job)
            elif job.urgent:
                displaced += [self._running, self._urgent, self._waiting]
                self._urgent, self._waiting = job, None
            else:
                # The due time of the first is kept, or a steady stream of new views would put the work off for ever.
                if self._waiting is None:
                    self._due_s = time.monotonic() + job.delay_s
                displaced.append(self._waiting)
                self._waiting = job
            self._condition.notify_all()
        for old in displaced:
            if old is not None:
                old.abandon("the node shuts down" if old is job else "a newer request took its place")

    def abandon_all(self, reason: str) -> None:
        """End the running and the waiting jobs at once."""
        with self._condition:
            jobs = (self._running, self._urgent, self._waiting)
            self._urgent = self._waiting = None
        for job in jobs:
            if job is not None:
                job.abandon(reason)

    def close(self, timeout_s: float) -> bool:
        """End all jobs and the thread; False if its work did not come to an end in time (it is a daemon thread)."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self.abandon_all("the node shuts down")
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _loop(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)
            with self._condition:
                self._running = None

    def _next(self) -> Job | None:
        with self._condition:
            while not self._closed:
                if self._urgent is not None:
                    self._running, self._urgent = self._urgent, None
                    return self._running
                remaining_s = self._due_s - time.monotonic()
                if self._waiting is not None and remaining_s <= 0:
                    self._running, self._waiting = self._waiting, None
                    return self._running
                self._condition.wait(None if self._waiting is None else remaining_s)
            return None

    @staticmethod
    def _run(job: Job) -> None:
        if job.ended:
            return
        job.started = True

        def progress(stage: str, fraction: float) -> None:
            if not job.ended:
                job.progress(stage, fraction)

        try:
            outcome = Outcome(reconstruction=job.work(progress, job.cancel.is_set))
        except Exception as error:
            outcome = Outcome(error=error)
        job.end(outcome)
