"""A running reconstruction node, a pipeline that does as it is told, and a client of all its interfaces."""

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gena3d_core.errors import StageError
from gena3d_core.geometry.transforms import look_at, rigid
from gena3d_core.types import Intrinsics, Mesh, ReconstructedObject, Reconstruction, Scene, View, check_cancelled

STAGES = ("stereo", "registration", "segmentation", "observation", "generation", "meshing", "layout")


def box_object(id: int, center: Any, size_m: float = 0.06, label: str = "") -> ReconstructedObject:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32) * size_m / 2
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))], np.int32)
    mesh = Mesh(corners, faces, np.full((8, 3), 120, np.uint8), np.ones(8, np.float32), np.ones(8, bool))
    T = rigid(t=np.array(center, dtype=np.float64))
    return ReconstructedObject(id, label, 0.9, mesh, T_world_object=T, size_m=np.full(3, size_m))


class StagedPipeline:
    """Goes through the stages of the real one; holds and fails where it is told to."""

    def __init__(self) -> None:
        self.objects: list[ReconstructedObject] = [box_object(0, (0, 0, 0.03)), box_object(1, (0.3, 0, 0.03))]
        self.warnings: tuple[str, ...] = ()
        self.hold_at = self.fail_at = self.crash_at = ""
        self.stubborn = False
        self.calls: list[dict[str, Any]] = []
        self.points: list[tuple[Any, ...]] = []
        self.reached = {stage: threading.Event() for stage in STAGES}
        self.go = threading.Event()
        self.running = threading.Semaphore()

    def run(
        self, views, *, boxes, points, text_prompts, hypotheses, seed, frame_id, progress, cancelled
    ) -> Reconstruction:
        assert self.running.acquire(blocking=False), "two runs of one pipeline at a time"
        try:
            names = [view.name for view in views]
            self.calls.append({"views": names, "boxes": boxes, "prompts": text_prompts, "seed": seed, "n": hypotheses})
            self.points.append(points)
            for index, stage in enumerate(STAGES):
                check_cancelled(cancelled)
                progress(stage, index / len(STAGES))
                self.reached[stage].set()
                while stage == self.hold_at and not self.go.wait(0.005):
                    if not self.stubborn:
                        check_cancelled(cancelled)
                if stage == self.fail_at:
                    raise StageError(stage, "told to fail")
                if stage == self.crash_at:
                    raise ZeroDivisionError("told to crash")
            scene = Scene(
                objects=tuple(self.objects),
                frame_id=frame_id,
                stamp_ns=max(v.stamp_ns for v in views),
                view_names=tuple(v.name for v in views),
                timings_s={**dict.fromkeys(STAGES, 0.01), "total": 0.07},
                warnings=self.warnings,
            )
            return Reconstruction(scene, tuple(views), ())
        finally:
            self.running.release()

    def hold(self, stage: str) -> None:
        self.reached[stage].clear()
        self.go.clear()
        self.hold_at = stage

    def release(self) -> None:
        self.hold_at = ""
        self.go.set()


def make_view(name: str = "view_0", stamp_ns: int = 5_000_000_000) -> View:
    rng = np.random.default_rng(len(name))
    return View(
        color=rng.integers(0, 256, (24, 32, 3), dtype=np.uint8),
        intrinsics=Intrinsics(32, 24, 30.0, 30.0, 15.5, 11.5),
        T_world_camera=look_at([0.5, 0.2, 0.6], [0, 0, 0]),
        depth_m=np.full((24, 32), 0.8, np.float32),
        stamp_ns=stamp_ns,
        name=name,
    )


@dataclass
class GoalInProgress:
    """A goal that was sent; `result()` waits for its end."""

    handle: Any
    feedback: list[Any]
    _future: Any
    _wait_for: Any

    def result(self) -> Any:
        """Response with `.status` and `.result`."""
        self._wait_for(self._future.done, what="the goal's result")
        return self._future.result()


@dataclass
class Client:
    """Speaks to one reconstruction node over DDS."""

    ros: Any
    wait_for: Any
    node: Any
    prefix: str = ""
    scenes: list[Any] = field(default_factory=list)
    statuses: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from gena3d_ros.action import Reconstruct
        from gena3d_ros.msg import ReconstructedScene, ViewSet
        from rclpy.action import ActionClient

        from gena3d_ros import qos

        self._publisher = self.node.create_publisher(ViewSet, f"{self.prefix}/view_set", qos.latched())
        self.node.create_subscription(ReconstructedScene, f"{self.prefix}/objects", self.scenes.append, qos.latched(10))
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 50)
        self._action = ActionClient(self.node, Reconstruct, f"{self.prefix}/reconstruction/reconstruct")
        self._revision = 0

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            name, _, part = status.name.partition(": ")
            if name == f"{self.prefix}/reconstruction":
                self.statuses[part] = status

    def status(self, part: str, level: bytes, containing: str) -> Any:
        """Wait until the diagnostics of `part` say `containing` at `level`."""

        def seen() -> Any:
            status = self.statuses.get(part)
            return status if status and status.level == level and containing in status.message else None

        try:
            return self.wait_for(seen)
        except pytest.fail.Exception:
            pytest.fail(f"diagnostics of {part} never had '{containing}', the last are {self.statuses.get(part)}")

    def send_views(self, *names: str, frame_id: str = "map") -> Any:
        """Publish a view set with views of these names."""
        from gena3d_ros import conversions

        self._revision += 1
        messages = [conversions.view_to_msg(make_view(name), frame_id) for name in names]
        return self.send(conversions.view_set_to_msg(messages, frame_id, self._revision))

    def send(self, view_set: Any) -> Any:
        self._publisher.publish(view_set)
        return view_set

    def goal(self, **fields: Any) -> GoalInProgress:
        """Send a goal that must be accepted."""
        handle, feedback = self._send_goal(**fields)
        assert handle.accepted
        return GoalInProgress(handle, feedback, handle.get_result_async(), self.wait_for)

    def refused(self, **fields: Any) -> bool:
        """Whether a goal is refused."""
        return not self._send_goal(**fields)[0].accepted

    def _send_goal(self, **fields: Any) -> tuple[Any, list[Any]]:
        from gena3d_ros.action import Reconstruct

        feedback: list[Any] = []
        assert self._action.wait_for_server(20)
        future = self._action.send_goal_async(
            Reconstruct.Goal(**fields), feedback_callback=lambda m: feedback.append(m.feedback)
        )
        self.wait_for(future.done, what="the answer to a goal")
        return future.result(), feedback

    def get_objects(self, **fields: Any) -> Any:
        from gena3d_ros.srv import GetObjects

        request = GetObjects.Request(**fields)
        return self.ros.call(self.node, GetObjects, f"{self.prefix}/reconstruction/get_objects", request)

    def save_scene(self, name: str = "") -> Any:
        from gena3d_ros.srv import SaveScene

        request = SaveScene.Request(name=name)
        return self.ros.call(self.node, SaveScene, f"{self.prefix}/reconstruction/save_scene", request)

    def scene(self, number: int = 1) -> Any:
        """Wait until `number` scenes have come; the last of these."""
        self.wait_for(lambda: len(self.scenes) >= number, what=f"scene {number}, have {len(self.scenes)}")
        return self.scenes[number - 1]


@pytest.fixture
def pipeline() -> StagedPipeline:
    return StagedPipeline()


@pytest.fixture
def make_pipeline():
    """The class, for tests that need several."""
    return StagedPipeline


@pytest.fixture
def make_object():
    """`make_object(id, center, size_m, label)`: a cube."""
    return box_object


@pytest.fixture
def make_node(ros, pipeline, tmp_path):
    """`make_node(**parameters)`: a node with the staged pipeline, not yet configured."""

    def make(node_pipeline=pipeline, namespace=None, **parameters):
        from gena3d_ros.reconstruction import ReconstructionNode

        defaults = {"settle_s": 0.0, "output_directory": str(tmp_path / "scenes")}
        kwargs = {"namespace": namespace} if namespace else {}
        return ros.make(
            ReconstructionNode, {**defaults, **parameters}, pipeline_factory=lambda _: node_pipeline, **kwargs
        )

    return make


@pytest.fixture
def make_client(ros, wait_for):
    import rclpy

    def make(prefix=""):
        node = rclpy.create_node(f"client{prefix.replace('/', '_')}", context=ros.context)
        client = Client(ros, wait_for, node, prefix)
        # Only now may it spin: an executor that meets a half-made action client dies (rclpy).
        ros.add(node)
        return client

    return make


@pytest.fixture
def node(make_node):
    """An active node."""
    node = make_node()
    assert node.start()
    return node


@pytest.fixture
def client(make_client) -> Client:
    return make_client()


@pytest.fixture(autouse=True)
def _nothing_stays_held(pipeline):
    yield
    pipeline.release()
