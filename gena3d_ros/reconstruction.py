"""Node `reconstruction`: view sets in, objects out; the work runs in one thread beside the executor."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup

from gena3d_core.errors import CancelledError, Gena3DError, InputError
from gena3d_core.types import CancelCheck, ProgressCallback, Reconstruction
from gena3d_ros.action import Reconstruct
from gena3d_ros.msg import ViewSet
from gena3d_ros.srv import GetObjects, SaveScene

from . import qos
from .clicked_points import ClickedPoints
from .diagnostics import Health
from .lifecycle import LifecycleNode, describe, run
from .parameter_table import ReconstructionParameters
from .reconstruct_action import ReconstructAction
from .reconstruction_request import (
    PipelineLike,
    Request,
    make_pipeline,
    reconstruct,
    release_gpu_memory,
    request_from_goal,
)
from .reconstruction_status import ReconstructionStatus, gpu_health, scene_health, views_health
from .reconstruction_worker import Job, LatestOnlyWorker, Outcome
from .scene_memory import SceneMemory
from .scene_outputs import SceneOutputs
from .transforms import TransformBroadcaster

CLOSE_TIMEOUT_S = 10.0


class ReconstructionNode(LifecycleNode):
    """See the package's README for its topics, services, action and parameters."""

    KIND = "reconstruction"
    THREADS = 6

    def __init__(
        self,
        node_name: str | None = None,
        *,
        pipeline_factory: Callable[[ReconstructionParameters], PipelineLike] = make_pipeline,
        **kwargs: Any,
    ) -> None:
        """`pipeline_factory` is called at each configure transition, with the parameters of that time."""
        self.status = ReconstructionStatus()
        self._pipeline_factory = pipeline_factory
        self._pipeline: PipelineLike | None = None
        self._memory = SceneMemory()
        self._outputs: SceneOutputs | None = None
        self._view_set: ViewSet | None = None
        self._subscription: Any = None
        self._output_timers: list[Any] = []
        self._automatic_job: Job | None = None
        self._restarts = 0
        # Guards what decides whether work may start: a transition and a callback may run at the same time.
        self._gate = threading.Lock()
        self._open = False
        super().__init__(node_name, **kwargs)
        self._worker = LatestOnlyWorker()
        self._broadcaster = TransformBroadcaster(self)
        self._clicks = ClickedPoints(self, self._on_click)
        services_group = MutuallyExclusiveCallbackGroup()
        for service_type, name, callback in (
            (GetObjects, "get_objects", self._on_get_objects),
            (SaveScene, "save_scene", self._on_save_scene),
        ):
            self.create_service(service_type, f"~/{name}", self.guarded(callback), callback_group=services_group)
        self._action = ReconstructAction(self)

    # Transitions.

    def configure(self) -> None:
        self._pipeline = self._pipeline_factory(self.parameters.values)
        self._outputs = SceneOutputs(self, self._broadcaster)

    def activate(self) -> None:
        with self._gate:
            self._open = True
        # Groups of their own, new each time: what is destroyed while the executor takes it leaves its group locked.
        self._subscription = self.create_subscription(
            ViewSet,
            "view_set",
            self.guarded(self._on_view_set),
            qos.latched(),
            callback_group=MutuallyExclusiveCallbackGroup(),
            qos_overriding_options=qos.overridable(),
        )
        rate_hz = self.parameters.values.tf_rate_hz
        timers_group = MutuallyExclusiveCallbackGroup()
        periods_s = {self._serve_newcomers: 0.5, **({self._send_transforms: 1.0 / rate_hz} if rate_hz > 0 else {})}
        self._output_timers = [
            self.create_timer(period_s, self.guarded(callback), callback_group=timers_group, clock=self.steady_clock)
            for callback, period_s in periods_s.items()
        ]

    def deactivate(self) -> None:
        with self._gate:
            self._open = False
        self._worker.abandon_all("the node was deactivated")
        self.status.idle()
        for timer in self._output_timers:
            self.destroy_timer(timer)
        self._output_timers = []
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None

    def cleanup(self) -> None:
        self._worker.abandon_all("the node was cleaned up")
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None
        self._pipeline = self._automatic_job = self._view_set = None
        release_gpu_memory()
        self._memory = SceneMemory()
        self.status = ReconstructionStatus()

    def on_parameters(self, names: frozenset[str]) -> None:
        if "enabled" not in names:
            return
        if not self.parameters.values.enabled:
            self._worker.abandon_all("the node was disabled")
            self.status.idle()
        elif self._open and self._view_set is not None:
            self._on_view_set(self._view_set)

    def destroy_node(self) -> None:
        with self._gate:
            self._open = False
        if hasattr(self, "_worker") and not self._worker.close(CLOSE_TIMEOUT_S):
            self.get_logger().warning("the running reconstruction did not stop in time and is left behind")
        if hasattr(self, "_action"):
            self._action.destroy()
        super().destroy_node()

    def health(self) -> Iterable[Health]:
        if self.is_active:
            yield views_health(self._view_set, self.resolve_topic_name("view_set"))
        yield self.status.health()
        yield scene_health(self._memory.scene)
        yield from gpu_health(self.parameters.values.device)

    # Automatic work.

    def _on_view_set(self, message: ViewSet) -> None:
        self._view_set = message
        values = self.parameters.values
        if not values.auto_reconstruct or not values.enabled:
            return
        if not message.views:
            self.warn("empty view set", "the view set is empty: nothing to reconstruct, the last scene stays")
            return
        texts = tuple(text for text in values.text_prompts if text)
        request = Request(message, text_prompts=texts, hypotheses=values.hypotheses, seed=values.seed)
        self._restart_for_newer(values.max_restarts)
        self._automatic_job = self._job(request, lambda *_: None, self._on_automatic_end, delay_s=values.settle_s)
        self._submit(self._automatic_job)

    def _restart_for_newer(self, max_restarts: int) -> None:
        """Stop automatic work on older views, unless steady news would then keep it from ever ending."""
        job = self._automatic_job
        if job is not None and job.started and self._restarts < max_restarts and job.abandon("newer views came"):
            self._restarts += 1

    def _on_automatic_end(self, outcome: Outcome) -> None:
        if not isinstance(outcome.error, CancelledError):
            self._restarts = 0

    # Clicks.

    def _on_click(self, clicked: PointStamped) -> None:
        """Reconstruct the object at a place; the others of the last scene stay."""
        values = self.parameters.values
        if not values.clicked_points or not self.accepts_work:
            return
        try:
            if self._view_set is None:
                raise InputError("a point was clicked, but no view set has come yet")
            place = self._clicks.place(clicked, self._view_set.header)
        except Gena3DError as error:
            self.conclude(Outcome(error=error))
            return
        request = Request(
            self._view_set, clicked_m=(place,), keep_others=True, hypotheses=values.hypotheses, seed=values.seed
        )
        self.start_urgent(request, lambda *_: None, lambda _: None)

    # What the action asks of its host.

    @property
    def accepts_work(self) -> bool:
        return self._open and self.parameters.values.enabled

    @property
    def refusal(self) -> str:
        """Why no work is accepted."""
        if not self._open:
            return f"the node is {self.state}, activate it first"
        return "the node is disabled: set its parameter 'enabled' to true"

    def request(self, goal: Reconstruct.Goal, view_set: ViewSet) -> Request:
        """What a goal asks for; raises `Gena3DError` where that makes no sense."""
        return request_from_goal(goal, view_set, self._clicks.place, self._memory.objects)

    @property
    def view_set(self) -> ViewSet | None:
        return self._view_set

    def start_urgent(self, request: Request, progress: ProgressCallback, finished: Callable[[Outcome], None]) -> Job:
        """Work on `request` now, in place of whatever runs."""
        job = self._job(request, progress, finished, urgent=True)
        self._submit(job)
        return job

    def conclude(self, outcome: Outcome) -> None:
        """Publish a good outcome, report any other; the last good scene stays as it is then."""
        self._conclude(outcome, self.status)

    # Work.

    def _job(
        self, request: Request, progress: ProgressCallback, finished: Callable[[Outcome], None], **options: Any
    ) -> Job:
        pipeline, status, memory = self._pipeline, self.status, self._memory

        def work(report: ProgressCallback, cancelled: CancelCheck) -> Reconstruction:
            if pipeline is None:
                raise CancelledError("the node was cleaned up")
            status.started()
            return reconstruct(pipeline, request, report, cancelled)

        def tell_progress(stage: str, fraction: float) -> None:
            status.at(stage, fraction)
            progress(stage, fraction)

        def end(outcome: Outcome) -> None:
            if outcome.reconstruction is not None:
                again = [item.id for item in request.again]
                outcome = Outcome(memory.keep(outcome.reconstruction, again, request.keep_others))
            # Automatic work that newer views replaced before it began is nothing to tell of.
            if job.started or job.urgent:
                self.guarded(self._conclude)(outcome, status)
            finished(outcome)

        job = Job(work, tell_progress, end, **options)
        return job

    def _submit(self, job: Job) -> None:
        with self._gate:
            if self.accepts_work:
                self._worker.submit(job)
                return
        job.abandon(self.refusal)

    def _conclude(self, outcome: Outcome, status: ReconstructionStatus) -> None:
        if outcome.reconstruction is not None:
            status.succeeded(outcome.reconstruction.scene)
            self._publish(outcome.reconstruction)
        elif isinstance(outcome.error, CancelledError):
            status.cancelled(str(outcome.error))
            self.get_logger().info(f"reconstruction stopped: {outcome.error}")
        elif outcome.error is not None:
            status.failed(outcome.error)
            self.get_logger().error(f"reconstruction failed, the last scene stays: {describe(outcome.error)}")

    def _publish(self, reconstruction: Reconstruction) -> None:
        scene = reconstruction.scene
        if self._outputs is not None:
            self._outputs.publish(scene, self.parameters.values)
        for warning in scene.warnings:
            self.warn(warning, warning)
        seconds = scene.timings_s.get("total", 0.0)
        self.get_logger().info(f"{len(scene.objects)} objects from {len(scene.view_names)} views in {seconds:.2f} s")

    def _serve_newcomers(self) -> None:
        if self._outputs is not None:
            self._outputs.serve_newcomers(self.parameters.values)

    def _send_transforms(self) -> None:
        if self._outputs is not None:
            self._outputs.send_transforms(self.parameters.values)

    # Services.

    def _on_get_objects(self, request: GetObjects.Request, response: GetObjects.Response) -> GetObjects.Response:
        response.scene = self._memory.message(tuple(request.ids), request.include_meshes)
        response.success, response.message = True, f"{len(response.scene.objects)} objects"
        return response

    def _on_save_scene(self, request: SaveScene.Request, response: SaveScene.Response) -> SaveScene.Response:
        path = self._memory.save(Path(self.parameters.values.output_directory), request.name)
        response.success, response.message, response.path = True, f"written to {path}", str(path)
        return response


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    return run(ReconstructionNode, args)


if __name__ == "__main__":
    sys.exit(main())
