"""Fixtures for tests that run real nodes over DDS.

Each test gets a context of its own in a domain of its own; nothing leaves this machine, and unchecked message fields
(a trap of recent distributions) are checked.
"""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
os.environ.setdefault("ROS_LOG_DIR", tempfile.mkdtemp(prefix="gena3d_ros_log_"))
os.environ.setdefault("OMP_NUM_THREADS", "2")

try:
    import gena3d_ros.msg  # noqa: F401
    import rclpy
    from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

    MISSING = ""
except ImportError as error:
    MISSING = f"ROS tests need rclpy and the built interfaces ({error}): run `make setup` or source a ROS workspace"

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = 101
_domain_counter = count()


def pytest_report_header() -> str:
    return MISSING or f"ROS tests: rclpy {rclpy.__file__}"


class SkippedModule(pytest.Module):
    """Stands for a test module that cannot be imported without ROS."""

    def collect(self) -> Any:
        pytest.skip(MISSING, allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: Any) -> pytest.Module | None:
    return SkippedModule.from_parent(parent, path=module_path) if MISSING else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ros")
            # Discovery and scheduling of several processes on a busy machine: a second try, which the summary shows.
            item.add_marker(pytest.mark.flaky(reruns=1))


@contextlib.contextmanager
def own_domain() -> Iterator[int]:
    """A domain that no other test of this machine uses meanwhile: xdist workers and other runs hold locks on theirs."""
    folder = Path(tempfile.gettempdir()) / "gena3d_ros_domains"
    folder.mkdir(exist_ok=True)
    start = os.getpid() + next(_domain_counter)
    for offset in range(DOMAINS):  # domains up to 101 keep their ports below the ephemeral range
        domain_id = 1 + (start + offset) % DOMAINS
        with (folder / str(domain_id)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain_id
            return
    pytest.fail("no free ROS domain: too many tests run at once")


class RosHarness:
    """A context with an executor thread; `add` nodes to it, `wait_for` what should happen, `spawn` other processes."""

    def __init__(self, domain_id: int) -> None:
        self.domain_id = domain_id
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain_id)
        self.executor = MultiThreadedExecutor(num_threads=4, context=self.context)
        self.nodes: list[Any] = []
        self.processes: list[subprocess.Popen[str]] = []
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self.executor.spin()

    def add(self, node: Any) -> Any:
        """Spin `node` and destroy it at the end of the test; the node itself."""
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def node(self, name: str, **kwargs: Any) -> Any:
        """A plain rclpy node in this context."""
        return self.add(rclpy.create_node(name, context=self.context, **kwargs))

    def make(self, node_class: Callable[..., Any], parameters: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """A node of `node_class` in this context with parameter overrides; not yet configured."""
        overrides = [rclpy.Parameter(name, value=value) for name, value in (parameters or {}).items()]
        return self.add(node_class(context=self.context, parameter_overrides=overrides, **kwargs))

    def remove(self, node: Any) -> None:
        """Take a node out before the end of the test."""
        self.nodes.remove(node)
        self.executor.remove_node(node)
        node.destroy_node()

    def call(self, node: Any, service_type: Any, name: str, request: Any, timeout_s: float = 60.0) -> Any:
        """The response of a service, called from `node` (not from inside a callback)."""
        client = node.create_client(service_type, name)
        try:
            assert client.wait_for_service(timeout_s), f"no service {name}"
            future = client.call_async(request)
            wait_for(future.done, timeout_s, f"answer of {name}")
            return future.result()
        finally:
            node.destroy_client(client)

    def spawn(self, module: str, *args: str, ros_args: Sequence[str] = ()) -> "subprocess.Popen[str]":
        """Start `python -m module` in this domain; it is interrupted at the end of the test."""
        command = [sys.executable, "-m", module, *args, *(["--ros-args", *ros_args] if ros_args else [])]
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "ROS_DOMAIN_ID": str(self.domain_id), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            stop(process)
        self.executor.shutdown()
        self._thread.join(timeout=20)
        for node in self.nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)


def stop(process: "subprocess.Popen[str]", number: int = signal.SIGINT, timeout_s: float = 60.0) -> tuple[int, str]:
    """Signal a process of `RosHarness.spawn`; its exit code and what it printed."""
    if process.poll() is None:
        process.send_signal(number)
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
    except ValueError:  # read before
        output = ""
    return process.returncode, output or ""


def wait_for(predicate: Callable[[], Any], timeout_s: float = 60.0, what: str = "the condition") -> Any:
    """The first truthy value of `predicate()`; fails the test when none came in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {timeout_s:g} s")
        time.sleep(0.01)


@pytest.fixture
def ros() -> Iterator[RosHarness]:
    """A fresh context, domain and executor thread."""
    with own_domain() as domain_id:
        harness = RosHarness(domain_id)
        yield harness
        harness.close()


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    """`wait_for(predicate, timeout_s=20, what='...')`: the first truthy value of the predicate."""
    return wait_for


@pytest.fixture(name="stop")
def stop_fixture() -> Callable[..., Any]:
    """`stop(process, signal=SIGINT)`: exit code and output of a spawned process."""
    return stop
