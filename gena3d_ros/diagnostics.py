"""What a node says about itself: levels, statuses and the throttle that keeps a log readable."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

OK, WARN, ERROR, STALE = (bytes([level]) for level in range(4))
"""Levels of a `DiagnosticStatus`; the message wants bytes of length one."""


@dataclass(frozen=True)
class Health:
    """State of one part of a node: `level` is one of the constants above, `values` are figures for a display."""

    part: str
    level: bytes = OK
    message: str = "OK"
    values: Mapping[str, Any] = field(default_factory=dict)


def to_message(stamp: Any, node_name: str, parts: Iterable[Health]) -> DiagnosticArray:
    """`DiagnosticArray` of the parts of the node with the fully qualified name `node_name`."""
    array = DiagnosticArray()
    array.header.stamp = stamp
    array.status = [
        DiagnosticStatus(
            level=part.level,
            name=f"{node_name}: {part.part}",
            message=part.message,
            hardware_id=node_name,
            values=[KeyValue(key=str(k), value=_text(v)) for k, v in part.values.items()],
        )
        for part in parts
    ]
    return array


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class Throttle:
    """Lets one event a key and period through and counts the rest. Thread safe."""

    def __init__(self, period_s: float = 5.0) -> None:
        self.period_s = period_s
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}

    def admit(self, key: str) -> int | None:
        """None: keep quiet. Otherwise the number of events of this key that were suppressed since the last one."""
        now = time.monotonic()
        with self._lock:
            last, suppressed = self._seen.get(key, (-float("inf"), 0))
            if now - last < self.period_s:
                self._seen[key] = (last, suppressed + 1)
                return None
            self._seen[key] = (now, 0)
            return suppressed
