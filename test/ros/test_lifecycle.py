"""The base of every node: transitions, failures, diagnostics, autostart, the process around it."""

import signal
import sys
import threading
from pathlib import Path

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState

from gena3d_core.errors import InputError
from gena3d_ros.diagnostics import ERROR, OK, WARN, Health, Throttle, to_message
from gena3d_ros.lifecycle import LifecycleNode, describe


class Probe(LifecycleNode):
    """Records its hooks and raises on demand."""

    KIND = "view_accumulator"

    def __init__(self, **kwargs):
        self.calls: list[str] = []
        self.raises: dict[str, Exception] = {}
        super().__init__(**kwargs)

    def _hook(self, name):
        self.calls.append(name)
        if name in self.raises:
            raise self.raises.pop(name)

    def configure(self):
        self._hook("configure")

    def activate(self):
        self._hook("activate")

    def deactivate(self):
        self._hook("deactivate")

    def cleanup(self):
        self._hook("cleanup")

    def health(self):
        return [Health("probe", WARN, "so so", {"figure": 1.23456, "name": "x"})]


def change(ros, caller, transition, node_name="/view_accumulator"):
    request = ChangeState.Request(transition=Transition(id=transition))
    return ros.call(caller, ChangeState, f"{node_name}/change_state", request).success


def state_of(ros, caller, node_name="/view_accumulator"):
    return ros.call(caller, GetState, f"{node_name}/get_state", GetState.Request()).current_state.label


def test_transitions_over_services(ros):
    node, caller = ros.make(Probe), ros.node("caller")
    for transition, state in (
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_CLEANUP, "unconfigured"),
        (Transition.TRANSITION_CONFIGURE, "inactive"),
    ):
        assert change(ros, caller, transition)
        assert state_of(ros, caller) == state == node.state
    assert node.calls == ["configure", "activate", "deactivate", "activate", "deactivate", "cleanup", "configure"]


@pytest.mark.parametrize("error", [InputError("no weights at 'x'"), RuntimeError("surprise")])
def test_failed_configure_is_undone_reported_and_repeatable(ros, wait_for, error):
    node, caller, seen = ros.make(Probe), ros.node("caller"), []
    caller.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
    node.raises["configure"] = error
    assert not change(ros, caller, Transition.TRANSITION_CONFIGURE)
    assert node.calls == ["configure", "cleanup"]
    assert state_of(ros, caller) == "unconfigured"
    failures = lambda: [s for m in seen for s in m.status if s.level == ERROR and str(error) in s.message]  # noqa: E731
    wait_for(failures, what="the failure in the diagnostics")
    assert change(ros, caller, Transition.TRANSITION_CONFIGURE)
    assert state_of(ros, caller) == "inactive"


def test_failed_activate_stays_inactive(ros):
    node = ros.make(Probe)
    node.raises["activate"] = InputError("no camera")
    assert not node.start()
    assert node.state == "inactive"
    assert node.calls == ["configure", "activate", "deactivate"]
    node.trigger_activate()
    assert node.is_active


def test_failed_deactivate_recovers_to_unconfigured(ros):
    node, caller = ros.make(Probe), ros.node("caller")
    node.start()
    node.raises["deactivate"] = RuntimeError("stuck")
    assert not change(ros, caller, Transition.TRANSITION_DEACTIVATE)
    assert state_of(ros, caller) == "unconfigured" == node.state
    assert node.start()


def test_autostart_parameter(ros, wait_for):
    node = ros.make(Probe, {"autostart": True})
    wait_for(lambda: node.is_active, what="autostart")


def test_autostart_and_diagnostics_without_clock(ros, wait_for):
    node, caller, seen = ros.make(Probe, {"autostart": True, "use_sim_time": True}), ros.node("caller"), []
    caller.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
    wait_for(lambda: node.is_active and seen, what="autostart and diagnostics while simulated time stands still")


def test_diagnostics_content(ros, wait_for):
    ros.make(Probe, namespace="/left")
    caller, seen = ros.node("caller"), []
    caller.create_subscription(DiagnosticArray, "/diagnostics", seen.append, 10)
    message = wait_for(lambda: seen and seen[-1], what="diagnostics")
    lifecycle, probe = message.status
    assert (lifecycle.name, lifecycle.level, lifecycle.message) == (
        "/left/view_accumulator: lifecycle",
        OK,
        "unconfigured",
    )
    assert (probe.level, probe.message, probe.hardware_id) == (WARN, "so so", "/left/view_accumulator")
    assert {v.key: v.value for v in probe.values} == {"figure": "1.235", "name": "x"}


def test_guarded_callback_survives_and_answers_services(ros):
    node = ros.make(Probe)

    def callback(request, response):
        raise InputError("bad\n   request")

    response = type("Response", (), {"success": True, "message": ""})()
    assert node.guarded(callback)(None, response) is response
    assert not response.success
    assert response.message == "bad request"
    assert node.guarded(lambda message: 1 / 0)("message") is None


def test_throttle_counts_what_it_suppressed():
    throttle = Throttle(period_s=1e6)
    assert throttle.admit("a") == 0
    assert throttle.admit("a") is None
    assert throttle.admit("b") == 0
    throttle.period_s = 0.0
    assert throttle.admit("a") == 1


def test_message_of_nothing_and_description():
    assert len(to_message(DiagnosticArray().header.stamp, "/n", []).status) == 0
    assert describe(InputError("plain")) == "plain"
    assert "please report it:\nValueError: surprise" in describe(ValueError("surprise"))


PROGRAM = """
from gena3d_ros.lifecycle import LifecycleNode, run
class Node(LifecycleNode):
    KIND = "view_accumulator"
    def activate(self): print("ACTIVE", flush=True)
    def cleanup(self): print("CLEANED", flush=True)
raise SystemExit(run(Node))
"""


@pytest.fixture
def program(tmp_path, ros, monkeypatch):
    (tmp_path / "probe_program.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).resolve().parents[2]}")
    return lambda *ros_args: ros.spawn("probe_program", ros_args=ros_args)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_process_ends_cleanly_on_signals(program, stop, number):
    process = program("-p", "autostart:=true")
    lines: list[str] = []
    active = threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if "ACTIVE" in line:
                active.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert active.wait(30)
    process.send_signal(number)
    code = process.wait(20)
    reader.join()
    text = "".join(lines)
    assert code == 0, text
    assert "CLEANED" in text
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("max_views:=0", "max_views"),
        ("max_views:=many", "must be a int"),
        ("image_reliability:=fast", "one of reliable, best_effort"),
        ("min_depth_m:=50.0", "must be below max_depth_m"),
    ],
)
def test_bad_parameter_refuses_to_start_with_one_line(program, argument, said):
    process = program("-p", argument)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in output
    assert "Traceback" not in output
    assert sys.executable not in output
