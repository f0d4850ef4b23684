"""Groups of child processes: watched, ended politely and then less politely, not left behind."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gena3d_ros import processes
from gena3d_ros.processes import ProcessGroup, describe_exit

READY = "print('ready', flush=True);"
SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def group():
    group = ProcessGroup()
    yield group
    group.stop()


def python(group: ProcessGroup, name: str, code: str, log: Path, wait_for) -> None:
    with log.open("wb") as output:
        group.start(name, [sys.executable, "-c", code], output=output)
    wait_for(lambda: b"ready" in log.read_bytes(), what=f"{name} to be ready")


def test_stop_ends_with_sigint_what_obeys_it(group, tmp_path, wait_for):
    python(
        group,
        "polite",
        f"import sys;{READY}\ntry:\n {SLEEP}\nexcept KeyboardInterrupt: sys.exit(3)",
        tmp_path / "a",
        wait_for,
    )
    assert group.exited() == {}
    assert group.stop() == {"polite": 3}


def test_stop_goes_on_to_signals_that_are_obeyed(group, tmp_path, wait_for, monkeypatch):
    harder = [(number, 0.5) for number, _ in processes.HARDER_SIGNALS]
    monkeypatch.setattr(processes, "HARDER_SIGNALS", harder)
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN);"
    python(group, "deaf", f"{ignore}{READY}{SLEEP}", tmp_path / "a", wait_for)
    python(
        group,
        "stubborn",
        f"{ignore}signal.signal(signal.SIGTERM, signal.SIG_IGN);{READY}{SLEEP}",
        tmp_path / "b",
        wait_for,
    )
    assert group.stop(patience_s=0.3) == {"deaf": -signal.SIGTERM, "stubborn": -signal.SIGKILL}


def test_exit_codes_are_noticed_and_can_be_forgotten(group, tmp_path, wait_for):
    python(group, "done", READY, tmp_path / "a", wait_for)
    python(group, "failed", f"{READY}import sys; sys.exit(7)", tmp_path / "b", wait_for)
    wait_for(lambda: group.exited() == {"done": 0, "failed": 7})
    group.forget("done")
    assert group.exited() == {"failed": 7}


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_children_end_when_the_parent_is_killed(tmp_path, wait_for):
    pid_file = tmp_path / "pid"
    child = f"import os; open({str(pid_file)!r}, 'w').write(str(os.getpid()));{SLEEP}"
    start = f"ProcessGroup().start('child', [sys.executable, '-c', {child!r}])"
    code = f"import sys; from gena3d_ros.processes import ProcessGroup; {start};{SLEEP}"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[2])
    pid = int(wait_for(lambda: pid_file.is_file() and pid_file.read_text(), what="the child's process id"))
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_running(pid), what="the end of the child")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_exit_codes_in_words():
    assert describe_exit(-signal.SIGKILL) == "was ended by signal SIGKILL"
    assert describe_exit(2) == "ended with exit code 2"
