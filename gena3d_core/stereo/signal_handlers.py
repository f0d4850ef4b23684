"""Signal handlers of this process kept as they are while a library that installs its own is imported."""

from __future__ import annotations

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager

KEPT = tuple(
    number
    for name in ("SIGTERM", "SIGINT", "SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL", "SIGBUS")
    if (number := getattr(signal, name, None)) is not None
)
_ROOM = 512
"""Bytes, more than the C library's description of a handler has on any platform."""


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put the handlers back that were there before; handlers of C code too, and from any thread."""
    # The module `signal` sees handlers of Python only, and changes them in the main thread only.
    sigaction = getattr(ctypes.CDLL(None), "sigaction", None)
    if sigaction is None:
        yield
        return
    before = {number: ctypes.create_string_buffer(_ROOM) for number in KEPT}
    known = [number for number, room in before.items() if sigaction(int(number), None, room) == 0]
    try:
        yield
    finally:
        for number in known:
            sigaction(int(number), before[number], None)
