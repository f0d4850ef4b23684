"""The error family of gena3d: every message says what was wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Gena3DError(Exception):
    """Base of every error that gena3d raises on purpose; the message is fit for a user."""


class InputError(Gena3DError, ValueError):
    """An argument or array has the wrong shape, type or range."""


class DataFormatError(Gena3DError):
    """A file, folder or message does not hold what its format promises; the message names it."""


class MissingDependencyError(Gena3DError, ImportError):
    """An optional package is not installed; the message gives the pip line."""

    def __init__(self, package: str, needed_for: str, pip_name: str | None = None) -> None:
        super().__init__(f"{needed_for} needs '{package}': pip install {pip_name or package}")


class MemoryBudgetError(Gena3DError, MemoryError):
    """Not even a single object fits into memory, or into the budget that the caller set."""


class EmptyResultError(Gena3DError):
    """A generator came out with nothing for an object; the message says what to try."""


class IncompleteError(Gena3DError):
    """Some of several objects failed; the others are done.

    completed  results of the objects that did not fail, each with its `id`
    reasons    id of each object that failed -> why
    """

    def __init__(self, completed: Sequence[Any], reasons: Mapping[int, str]) -> None:
        super().__init__("; ".join(f"object {number}: {reason}" for number, reason in reasons.items()))
        self.completed, self.reasons = tuple(completed), dict(reasons)


class CancelledError(Gena3DError):
    """The caller asked to stop; nothing was published or written."""


class StageError(Gena3DError):
    """A pipeline stage failed; `stage` names it and `__cause__` holds the original error."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(f"stage '{stage}' failed: {message}")
        self.stage = stage
