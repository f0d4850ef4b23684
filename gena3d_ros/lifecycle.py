"""Base of every node: parameters, transitions that fail with one clear line, diagnostics, and the process around it."""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode as RosLifecycleNode
from rclpy.lifecycle import TransitionCallbackReturn

from gena3d_core.errors import Gena3DError

from .diagnostics import ERROR, OK, Health, Throttle, to_message
from .parameters import declare_parameters

DIAGNOSTICS_PERIOD_S = 1.0


class LifecycleNode(RosLifecycleNode):
    """A managed node. Subclasses name themselves and override the hooks.

    Hooks `configure`, `activate`, `deactivate`, `cleanup` raise `Gena3DError` to refuse: the message is logged and
    shown in the diagnostics, the transition returns FAILURE and the node stays in the state it was in. `deactivate`
    and `cleanup` must also work on a half set up node: they undo a failed `activate` and `configure`.
    """

    KIND: ClassVar[str]
    """Name of the node in `parameter_table.NODES`, and its default ROS name."""
    THREADS: ClassVar[int] = 2
    """Executor threads when the node runs in a process of its own."""

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        """`kwargs` go to rclpy: namespace, context, parameter_overrides, ... Raises `InputError` on bad parameters."""
        super().__init__(node_name or self.KIND, **kwargs)
        self.state = "unconfigured"
        self._failure = ""
        self._throttle = Throttle()
        try:
            self.parameters = declare_parameters(self, self.KIND, self.on_parameters)
        except Gena3DError:
            self.destroy_node()
            raise
        # Diagnostics and autostart must not stand still when use_sim_time is set and nobody publishes /clock.
        self.steady_clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._diagnostics_timer = self.create_timer(
            DIAGNOSTICS_PERIOD_S, self.guarded(self.publish_diagnostics), clock=self.steady_clock
        )
        if self.parameters.values.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=self.steady_clock)

    # Hooks of subclasses.

    def configure(self) -> None:
        """Create what needs no data to flow: publishers, services, models."""

    def activate(self) -> None:
        """Start to listen and to publish."""

    def deactivate(self) -> None:
        """Stop what `activate` started."""

    def cleanup(self) -> None:
        """Release what `configure` made."""

    def on_parameters(self, names: frozenset[str]) -> None:
        """`self.parameters.values` has changed in `names`."""

    def health(self) -> Iterable[Health]:
        """State of the node's parts, for the diagnostics; called once a second in every state."""
        return ()

    # Transitions.

    @property
    def is_active(self) -> bool:
        return self.state == "active"

    def start(self) -> bool:
        """Configure and activate; False (and a logged reason) where one of them failed."""
        success = TransitionCallbackReturn.SUCCESS
        return self.trigger_configure() == success and self.trigger_activate() == success

    def on_configure(self, state: Any) -> TransitionCallbackReturn:
        return self._transition("configure", self.configure, "inactive", undo=self.cleanup)

    def on_activate(self, state: Any) -> TransitionCallbackReturn:
        def activate() -> None:
            RosLifecycleNode.on_activate(self, state)
            self.activate()

        def undo() -> None:
            self.deactivate()
            RosLifecycleNode.on_deactivate(self, state)

        return self._transition("activate", activate, "active", undo=undo)

    def on_deactivate(self, state: Any) -> TransitionCallbackReturn:
        def deactivate() -> None:
            self.deactivate()
            RosLifecycleNode.on_deactivate(self, state)

        return self._transition("deactivate", deactivate, "inactive")

    def on_cleanup(self, state: Any) -> TransitionCallbackReturn:
        return self._transition("cleanup", self.cleanup, "unconfigured")

    def on_shutdown(self, state: Any) -> TransitionCallbackReturn:
        return self._transition("shutdown", self._release, "finalized")

    def on_error(self, state: Any) -> TransitionCallbackReturn:
        return self._transition("error recovery", self._release, "unconfigured")

    def destroy_node(self) -> None:
        """Release what the node holds, then destroy it, whatever its state."""
        if self.state in ("inactive", "active"):
            self._transition("release", self._release, "finalized")
        super().destroy_node()

    def _release(self) -> None:
        if self.is_active:
            self.deactivate()
        self.cleanup()

    def _transition(
        self, name: str, hook: Callable[[], None], new_state: str, undo: Callable[[], None] | None = None
    ) -> TransitionCallbackReturn:
        try:
            hook()
        except Exception as error:
            self._failure = f"{name} failed: {describe(error)}"
            self.get_logger().error(self._failure)
            if undo is None:
                return TransitionCallbackReturn.ERROR
            try:
                undo()
            except Exception as again:
                self.get_logger().error(f"could not undo the failed {name}: {describe(again)}")
            return TransitionCallbackReturn.FAILURE
        self._failure, self.state = "", new_state
        self.get_logger().info(f"{name} done: {new_state}")
        return TransitionCallbackReturn.SUCCESS

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        self.start()

    # Reports.

    def publish_diagnostics(self) -> None:
        """Publish the state of the node and of its parts on /diagnostics."""
        level = ERROR if self._failure else OK
        parts = [Health("lifecycle", level, self._failure or self.state, {"state": self.state}), *self.health()]
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(to_message(self.get_clock().now().to_msg(), name, parts))

    def warn(self, key: str, message: str) -> None:
        """Log a warning, at most once in five seconds for each `key`."""
        suppressed = self._throttle.admit(key)
        if suppressed is not None:
            self.get_logger().warning(message + (f" ({suppressed} more like it)" if suppressed else ""))

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """`callback` for rclpy that logs what it raises, throttled, instead of ending the process.

        Where the last argument is a service response with `success` and `message`, they tell of the failure and the
        response is returned.
        """

        name = getattr(callback, "__qualname__", repr(callback))

        def safe(*args: Any) -> Any:
            try:
                return callback(*args)
            except Exception as error:
                self.warn(f"{name}:{type(error).__name__}", describe(error))
                if args and hasattr(args[-1], "success"):
                    args[-1].success, args[-1].message = False, describe(error)
                    return args[-1]
                return None

        return safe


def describe(error: BaseException) -> str:
    """One line for an error that was foreseen, a traceback for one that was not."""
    if isinstance(error, Gena3DError):
        return " ".join(str(error).split())
    return "unexpected error, please report it:\n" + "".join(traceback.format_exception(error))


def spin_until_signal(nodes: Sequence[LifecycleNode], context: Any, threads: int) -> None:
    """Spin `nodes` until SIGINT, SIGTERM or the end of `context`; then shut each of them down in order."""
    executor = (
        SingleThreadedExecutor(context=context)
        if threads == 1
        else MultiThreadedExecutor(num_threads=threads, context=context)
    )
    for node in nodes:
        executor.add_node(node)
    stop = threading.Event()

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            pass
        finally:
            stop.set()

    # Signals wake the main thread only: it waits here, so that nodes can still say goodbye on a living context.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    stop.wait()
    # First let running callbacks end: a transition may be among them.
    executor.shutdown()
    thread.join()
    for node in nodes:
        if context.ok() and node.state != "finalized":
            node.trigger_shutdown()
    for node in nodes:
        node.destroy_node()


def run(node_class: Callable[[], LifecycleNode], args: Sequence[str] | None = None) -> int:
    """Run one node as a process; returns 0 after SIGINT or SIGTERM, 1 (and a line on stderr) if it cannot start."""
    from rclpy.signals import SignalHandlerOptions

    context = rclpy.get_default_context()
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = node_class()
        spin_until_signal([node], context, node.THREADS)
        return 0
    except Gena3DError as error:
        print(describe(error), file=sys.stderr)
        return 1
    finally:
        # A launcher often sends its own SIGINT after the terminal's; at interpreter exit it would count as a crash.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if context.ok():
            rclpy.shutdown()
