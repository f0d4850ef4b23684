"""A group of child processes that starts together, is watched, and ends together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO

PR_SET_PDEATHSIG = 1
PATIENCE_S = 20.0
"""Time that a process has to obey SIGINT: on a busy machine an interpreter with PyTorch takes seconds to end."""
HARDER_SIGNALS = ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))
"""What comes after SIGINT, each with the seconds that processes have to obey it."""


def _die_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the parent is gone, so that a killed parent leaves no nodes behind."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class ProcessGroup:
    """Named child processes. They do not get the terminal's Ctrl-C by themselves: `stop` ends them, once."""

    def __init__(self) -> None:
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str], env: Mapping[str, str] | None = None, output: IO[bytes] | None = None
    ) -> None:
        """Start `command`; its output and errors go to `output`, or where this process's go."""
        self._processes[name] = subprocess.Popen(
            list(command),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def exited(self) -> dict[str, int]:
        """Exit codes by name of the processes that have ended; negative: ended by that signal."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        return {name: code for name, code in codes.items() if code is not None}

    def forget(self, name: str) -> None:
        """Stop to watch a process that has ended as it should."""
        del self._processes[name]

    def stop(self, patience_s: float = PATIENCE_S) -> dict[str, int]:
        """End every process by SIGINT, after `patience_s` more harshly; the exit codes by name."""
        for number, time_s in ((signal.SIGINT, patience_s), *HARDER_SIGNALS):
            living = [p for p in self._processes.values() if p.poll() is None]
            for process in living:
                process.send_signal(number)
            deadline = time.monotonic() + time_s
            while any(p.poll() is None for p in living) and time.monotonic() < deadline:
                time.sleep(0.05)
        return self.exited()


def describe_exit(code: int) -> str:
    """An exit code in words."""
    return f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
