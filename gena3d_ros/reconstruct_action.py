"""Action server `~/reconstruct`: goals to requests, outcomes to results; the work itself is the node's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup

from gena3d_core.errors import CancelledError, InputError
from gena3d_core.types import ProgressCallback
from gena3d_ros.action import Reconstruct
from gena3d_ros.msg import ViewSet

from . import conversions
from .lifecycle import describe
from .reconstruction_request import Request
from .reconstruction_worker import Job, Outcome

POLL_S = 0.02
END_TIMEOUT_S = 2.0


class Host(Protocol):
    """What the action needs of its node."""

    @property
    def accepts_work(self) -> bool: ...
    @property
    def refusal(self) -> str: ...
    @property
    def view_set(self) -> ViewSet | None: ...
    def request(self, goal: Reconstruct.Goal, view_set: ViewSet) -> Request: ...
    def start_urgent(
        self, request: Request, progress: ProgressCallback, finished: Callable[[Outcome], None]
    ) -> Job: ...
    def conclude(self, outcome: Outcome) -> None: ...


class ReconstructAction:
    """Serves goals of a lifecycle node that is also a `Host`; each goal blocks one executor thread until its end."""

    def __init__(self, node: Any) -> None:
        self._node = node
        self._host: Host = node
        self._in_progress: set[bytes] = set()
        self._ended = threading.Condition()
        self._server = ActionServer(
            node,
            Reconstruct,
            "~/reconstruct",
            self._on_execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            callback_group=ReentrantCallbackGroup(),
        )

    def destroy(self) -> None:
        """Wait for goals to end (their work must have been stopped before), then destroy the server."""
        with self._ended:
            self._ended.wait_for(lambda: not self._in_progress, timeout=END_TIMEOUT_S)
        self._server.destroy()

    def _on_goal(self, goal: Reconstruct.Goal) -> GoalResponse:
        if self._host.accepts_work:
            return GoalResponse.ACCEPT
        self._node.warn("goal refused", f"a goal was refused: {self._host.refusal}")
        return GoalResponse.REJECT

    def _on_execute(self, handle: Any) -> Reconstruct.Result:
        goal_id = bytes(handle.goal_id.uuid)
        self._in_progress.add(goal_id)
        try:
            return self._result(handle, self._outcome(handle))
        finally:
            with self._ended:
                self._in_progress.discard(goal_id)
                self._ended.notify_all()

    def _outcome(self, handle: Any) -> Outcome:
        """Have the goal worked on, and wait for how it ends."""
        outcomes: list[Outcome] = []
        done = threading.Event()

        def finished(outcome: Outcome) -> None:
            outcomes.append(outcome)
            done.set()

        @self._node.guarded
        def feedback(stage: str, fraction: float) -> None:
            handle.publish_feedback(Reconstruct.Feedback(stage=str(stage), fraction=float(fraction)))

        try:
            request = self._host.request(handle.request, self._view_set(handle))
            job = self._host.start_urgent(request, feedback, finished)
        except Exception as error:
            outcome = Outcome(error=error)
            self._host.conclude(outcome)
            return outcome
        while not done.wait(POLL_S):
            if handle.is_cancel_requested:
                job.abandon("cancelled by the client")
        return outcomes[0]

    def _view_set(self, handle: Any) -> ViewSet:
        """The newest view set. Who has just activated the node, or seen views elsewhere, need not know that ours are
        still on their way: a goal waits for the first a little."""
        deadline_s = time.monotonic() + self._node.parameters.values.view_set_timeout_s
        while (view_set := self._host.view_set) is None:
            if handle.is_cancel_requested:
                raise CancelledError("cancelled by the client")
            if not self._host.accepts_work:
                raise CancelledError(self._host.refusal)
            if time.monotonic() > deadline_s:
                raise InputError(f"no view set has come yet on '{self._node.resolve_topic_name('view_set')}'")
            time.sleep(POLL_S)
        return view_set

    @staticmethod
    def _result(handle: Any, outcome: Outcome) -> Reconstruct.Result:
        result = Reconstruct.Result()
        if outcome.reconstruction is not None:
            handle.succeed()
            scene = outcome.reconstruction.scene
            result.success, result.message = True, "; ".join([f"{len(scene.objects)} objects", *scene.warnings])
            result.scene = conversions.scene_to_msg(scene)
            return result
        result.message = describe(outcome.error or CancelledError("ended without a reason"))
        if handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        return result
