"""Handlers that a library installs while it is imported are gone afterwards, whoever's were there before."""

import ctypes
import os
import signal
import subprocess
import sys
import threading

import pytest

from gena3d_core.stereo.signal_handlers import kept_handlers

C_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)


@pytest.fixture
def terminated():
    """Counts SIGTERM in a handler of Python's for the time of the test."""
    calls = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: calls.append(number))
    yield calls
    signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform != "linux", reason="handlers are read through the C library of Linux")
@pytest.mark.parametrize("in_thread", [False, True])
def test_a_handler_of_c_code_is_replaced_by_the_one_before(terminated, in_thread):
    stolen = []
    thief = C_HANDLER(lambda number: stolen.append(number))
    libc = ctypes.CDLL(None)
    libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, [ctypes.c_int, C_HANDLER]

    def steal():
        with kept_handlers():
            libc.signal(signal.SIGTERM, thief)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    if in_thread:
        thread = threading.Thread(target=steal)
        thread.start()
        thread.join()
    else:
        steal()
    assert stolen == [signal.SIGTERM]
    assert terminated == []
    os.kill(os.getpid(), signal.SIGTERM)
    assert terminated == [signal.SIGTERM]
    assert len(stolen) == 1


def test_a_process_with_structure_from_motion_still_ends_cleanly():
    pytest.importorskip("pycolmap")
    script = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "from gena3d_core.stereo import make_stereo_matcher\n"
        "make_stereo_matcher('sfm')\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
