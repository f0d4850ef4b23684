"""One run of a pipeline, told and timed stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from .errors import CancelledError, Gena3DError, StageError
from .types import CancelCheck, ProgressCallback, check_cancelled


@dataclass
class StageRun:
    """Times the stages of one run and turns their progress into a fraction of the whole.

    shares: of the whole work, by stage in order; errors of a stage become a `StageError` that names it.
    """

    progress: ProgressCallback | None
    cancelled: CancelCheck | None
    shares: Mapping[str, float]
    timings_s: dict[str, float] = field(default_factory=dict)
    _done: float = 0.0
    _stage: str = ""

    def inner_progress(self, _: str, fraction: float) -> None:
        """Progress inside the current stage, `fraction` of that stage in [0, 1]."""
        if self.progress is not None:
            self.progress(self._stage, min(1.0, self._done + self.shares[self._stage] * fraction))

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, and `total`."""
        return {**self.timings_s, "total": sum(self.timings_s.values())}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Run a stage inside; raises `CancelledError` before it where the caller asked to stop."""
        check_cancelled(self.cancelled)
        self._stage = name
        self.inner_progress(name, 0.0)
        start = time.perf_counter()
        try:
            yield
        except CancelledError:
            raise
        except Gena3DError as error:
            raise StageError(name, str(error)) from error
        except Exception as error:
            raise StageError(name, f"{type(error).__name__}: {error}") from error
        self.timings_s[name] = time.perf_counter() - start
        self._done += self.shares[name]
        self.inner_progress(name, 0.0)
