"""What the reconstruction node tells about its work in the diagnostics."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any

from gena3d_core.errors import StageError
from gena3d_core.types import Scene

from .diagnostics import ERROR, OK, WARN, Health
from .lifecycle import describe

NO_STAGE = "-"
UNNAMED_STAGE = "input"
"""Stage of errors that come before any stage, such as a box in a view that does not exist."""


class ReconstructionStatus:
    """Thread-safe record of what runs and how the last work ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stage, self._fraction = NO_STAGE, 0.0
        self._error, self._error_stage = "", NO_STAGE
        self._stopped = ""
        self._counts = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self._timings_s: Mapping[str, float] = {}

    def started(self) -> None:
        """Work has begun."""
        self.at("starting", 0.0)

    def at(self, stage: str, fraction: float) -> None:
        """Work has come to `fraction` of the whole, in `stage`."""
        with self._lock:
            self._stage, self._fraction = stage, fraction

    def idle(self) -> None:
        """Nothing runs."""
        self.at(NO_STAGE, 0.0)

    def succeeded(self, scene: Scene) -> None:
        """Work has ended with `scene`; the error before it is history."""
        self._ended("succeeded")
        with self._lock:
            self._error, self._error_stage, self._stopped = "", NO_STAGE, ""
            self._timings_s = dict(scene.timings_s)

    def failed(self, error: Exception) -> None:
        """Work has ended with `error`."""
        self._ended("failed")
        with self._lock:
            self._error = describe(error)
            self._error_stage = error.stage if isinstance(error, StageError) else UNNAMED_STAGE

    def cancelled(self, reason: str) -> None:
        """Work was stopped on purpose."""
        self._ended("cancelled")
        with self._lock:
            self._stopped = reason

    def health(self) -> Health:
        """State of the work: an error stays until work succeeds."""
        with self._lock:
            values: dict[str, Any] = {"stage": self._stage, "fraction": self._fraction, **self._counts}
            values.update({f"{name}_s": seconds for name, seconds in self._timings_s.items()})
            values.update({"last_error": self._error, "last_error_stage": self._error_stage})
            if self._error:
                return Health("reconstruction", ERROR, self._error, values)
            if self._stage != NO_STAGE:
                return Health("reconstruction", OK, f"working: {self._stage}", values)
            return Health("reconstruction", OK, f"idle; stopped: {self._stopped}" if self._stopped else "idle", values)

    def _ended(self, how: str) -> None:
        with self._lock:
            self._counts[how] += 1
            self._stage, self._fraction = NO_STAGE, 0.0


def views_health(view_set: Any | None, topic: str) -> Health:
    """State of the input: `view_set` is the last message, or None."""
    if view_set is None:
        return Health("views", WARN, f"no view set yet on '{topic}': is the view accumulator active?")
    values = {"views": len(view_set.views), "revision": view_set.revision, "frame_id": view_set.header.frame_id}
    if not view_set.views:
        return Health("views", WARN, "the view set is empty: nothing to reconstruct, the last scene stays", values)
    return Health("views", OK, f"{len(view_set.views)} views", values)


def scene_health(scene: Scene | None) -> Health:
    """State of the last good scene."""
    if scene is None:
        return Health("scene", OK, "no scene yet")
    values: dict[str, Any] = {"objects": len(scene.objects), "views_used": len(scene.view_names)}
    values.update(scene.residuals)
    values["warnings"] = "; ".join(scene.warnings)
    if not scene.objects:
        return Health(
            "scene", WARN, "no objects found: " + ("; ".join(scene.warnings) or "the views show none"), values
        )
    return Health("scene", WARN if scene.warnings else OK, f"{len(scene.objects)} objects", values)


def gpu_health(device: str) -> Iterator[Health]:
    """GPU memory that torch holds, where the node works on a GPU."""
    if device == "cpu":
        return
    from gena3d_core.device import memory_bytes  # imports torch, which a node that idles does not need

    memory = memory_bytes(device)
    if memory:
        values = {f"{name}_mb": memory[name] / 2**20 for name in ("allocated", "reserved", "free")}
        scarce = memory["free"] < 0.05 * memory["total"]
        yield Health("gpu", WARN if scarce else OK, f"{values['allocated_mb']:.0f} MB in use", values)
