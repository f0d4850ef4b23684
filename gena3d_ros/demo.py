"""Shows the whole way: cameras (simulated or recorded) -> real nodes over DDS -> scene.json, .glb, overview.png.

`python -m gena3d_ros.demo --out out/demo` starts the nodes as processes of their own, waits for keyframes, asks for a
reconstruction by the action, and saves what it answers. Exit code 1 with one line that says why when anything fails.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException

from gena3d_core.errors import Gena3DError
from gena3d_core.geometry.mesh import sample_surface, transformed
from gena3d_core.io import save_scene
from gena3d_core.metrics.geometry import SurfaceScores, surface_scores
from gena3d_core.types import ObjectObservation, ReconstructedObject, Reconstruction, Scene, View
from gena3d_core.viz import overview
from gena3d_core.viz.render import instance_map
from gena3d_ros.action import Reconstruct
from gena3d_ros.msg import ReconstructedScene, ViewSet

from . import qos
from .conversions import scene_from_msg, view_set_from_msg
from .processes import PATIENCE_S, ProcessGroup, describe_exit

START_TIMEOUT_S = 180.0
KEYFRAMES_TIMEOUT_S = 600.0
STILL_S = 5.0
"""The set of keyframes is complete when it has enough views and has not changed for so long ..."""
GIVE_UP_S = 20.0
"""... or, with fewer, when it has not changed for so long."""
FOUND_WITHIN_M = 0.03
SURFACE_WITHIN_M, SURFACE_SAMPLES = 0.005, 5000
SIMULATION = ("rate_hz:=10.0", "loop_frames:=36")
"""A loop of few images, which every machine renders in a few seconds."""
LOG_TAIL_LINES = 15
EPILOG = "What follows -- is handed to every node, after --ros-args: demo -- -p width:=320"


class DemoError(Gena3DError):
    """The demonstration did not come to its end; the message says where."""


class Nodes:
    """The nodes, started by `bringup` in processes of their own; what they print goes to `log`."""

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        self._group = ProcessGroup()
        self._arguments = arguments

    def __enter__(self) -> Nodes:
        with self.log.open("wb") as output:
            command = [sys.executable, "-u", "-m", "gena3d_ros.bringup", *self._arguments]
            self._group.start("bringup", command, output=output)
        return self

    def __exit__(self, *_: object) -> None:
        self._group.stop(2 * PATIENCE_S)  # bringup has nodes of its own to wait for

    def check(self) -> None:
        """Raise `DemoError` with the end of the log when the nodes have ended."""
        code = self._group.exited().get("bringup")
        if code is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise DemoError(f"the nodes ended early (bringup {describe_exit(code)}):\n{tail}\nwhole log: {self.log}")


class Client:
    """Talks to the nodes: waits for keyframes, asks for a reconstruction."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._node = rclpy.create_node("demo")
        self._view_set: ViewSet | None = None
        self._changed_at = time.monotonic()
        self.truth: ReconstructedScene | None = None
        """What a simulated camera says about its scene."""
        self._node.create_subscription(ViewSet, "view_set", self._on_views, qos.latched())
        self._node.create_subscription(
            ReconstructedScene, "camera_sim/ground_truth", lambda m: setattr(self, "truth", m), qos.latched()
        )
        self._action: Any = ActionClient(self._node, Reconstruct, "reconstruction/reconstruct")

    def close(self) -> None:
        self._action.destroy()
        self._node.destroy_node()

    def _on_views(self, message: ViewSet) -> None:
        self._view_set, self._changed_at = message, time.monotonic()

    def wait(self, condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
        """The first truthy value of `condition()`; raises `DemoError` when the time is over or the nodes have ended."""
        deadline = time.monotonic() + timeout_s
        while not (value := condition()):
            self._nodes.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{what} did not come within {timeout_s:g} s; the nodes' log is {self._nodes.log}")
            rclpy.spin_once(self._node, timeout_sec=0.1)
        return value

    def views(self, enough: int) -> ViewSet:
        """Keyframes: `enough` of them that are no longer exchanged for better ones, or fewer when no more come."""
        self.wait(lambda: self._view_set and self._view_set.views, START_TIMEOUT_S, "the first keyframe")

        def complete() -> bool:
            count = len(self._view_set.views) if self._view_set else 0
            return time.monotonic() - self._changed_at > (STILL_S if count >= enough else GIVE_UP_S)

        self.wait(complete, KEYFRAMES_TIMEOUT_S, "a set of keyframes that stays")
        assert self._view_set is not None
        return self._view_set

    def reconstruct(self, views: ViewSet, timeout_s: float, report: Callable[[str, float], None]) -> Scene:
        """Objects of `views` by the action, stage by stage reported."""
        self.wait(self._action.server_is_ready, START_TIMEOUT_S, "the action reconstruction/reconstruct")
        goal = Reconstruct.Goal(view_names=[view.name for view in views.views])
        sent = self._action.send_goal_async(goal, lambda m: report(m.feedback.stage, m.feedback.fraction))
        self.wait(sent.done, START_TIMEOUT_S, "the answer to the goal")
        handle = sent.result()
        if handle is None or not handle.accepted:
            raise DemoError(f"the goal was refused; the nodes' log is {self._nodes.log}")
        result: Any = handle.get_result_async()
        self.wait(result.done, timeout_s, "the reconstruction")
        answer = result.result().result
        if not answer.success:
            raise DemoError(f"the reconstruction failed: {answer.message}")
        return scene_from_msg(answer.scene)


def with_silhouettes(scene: Scene, views: Sequence[View]) -> Reconstruction:
    """The scene with the masks that its meshes fill in the views: messages carry no segmentation masks."""
    meshes = [transformed(entry.mesh, entry.T_world_object) for entry in scene.objects]
    owners = [instance_map(meshes, view.T_world_camera, view.intrinsics) for view in views]
    nowhere = tuple(np.zeros(owner.shape, dtype=bool) for owner in owners)
    observations = tuple(
        ObjectObservation(
            id=entry.id,
            label=entry.label,
            score=entry.score,
            views=tuple(views),
            visible_masks=tuple(owner == index for owner in owners),
            occlusion_masks=nowhere,
            points_m=meshes[index].vertices,
            point_colors=np.full((len(meshes[index].vertices), 3), 128, dtype=np.uint8),
            point_view=np.zeros(len(meshes[index].vertices), dtype=np.int32),
            support=scene.support,
        )
        for index, entry in enumerate(scene.objects)
    )
    return Reconstruction(scene, tuple(views), observations)


def stage_printer() -> Callable[[str, float], None]:
    """Prints each stage when it begins."""
    begun: set[str] = set()

    def report(stage: str, fraction: float) -> None:
        if stage not in begun:
            begun.add(stage)
            print(f"  {100 * fraction:3.0f} %  {stage}", flush=True)

    return report


def print_scene(scene: Scene, out: Path) -> None:
    for entry in scene.objects:
        size_cm = " x ".join(f"{100 * side:.1f}" for side in entry.size_m)
        position = ", ".join(f"{value:+.3f}" for value in entry.T_world_object[:3, 3])
        seen = 100 * entry.observed_fraction
        print(
            f"  object {entry.id:<3} {size_cm:>20} cm  at ({position}) m  {seen:3.0f} % seen  object_{entry.id:03d}.glb"
        )
    for warning in scene.warnings:
        print(f"  warning: {warning}")
    seconds = scene.timings_s.get("total", sum(scene.timings_s.values()))
    print(f"{len(scene.objects)} objects from {len(scene.view_names)} views in {seconds:.1f} s of work")
    print(f"wrote {out / 'scene.json'}, {len(scene.objects)} .glb and {out / 'overview.png'}")


def print_truth(scene: Scene, truth: ReconstructedScene) -> None:
    """How many of the simulated objects were found, how far off by the centres of their bounding boxes, and how much of
    their whole surface is there."""
    found = np.array([entry.T_world_object[:3, 3] for entry in scene.objects])
    true = np.array([(p.x, p.y, p.z) for p in (entry.pose.position for entry in truth.objects)])
    distance_m = np.linalg.norm(true[:, None] - found[None], axis=2)
    errors_m, nearest = distance_m.min(axis=1), distance_m.argmin(axis=1)
    hits = errors_m < FOUND_WITHIN_M
    median = f", median distance {1000 * np.median(errors_m[hits]):.0f} mm" if hits.any() else ""
    within = f"within {100 * FOUND_WITHIN_M:.0f} cm"
    print(f"simulated truth: {hits.sum()} of {len(true)} objects found {within}{median}; {len(found)} reconstructed")
    wholes = scene_from_msg(truth).objects
    scores = [_agreement(scene.objects[nearest[i]], wholes[i]) for i in np.flatnonzero(hits)]
    if scores:
        precision, recall = (np.median([getattr(score, name) for score in scores]) for name in ("precision", "recall"))
        print(
            f"whole surfaces within {1000 * SURFACE_WITHIN_M:.0f} mm, median: {100 * recall:.0f} % of the true ones, "
            f"{100 * precision:.0f} % of the reconstructed ones"
        )


def _agreement(found: ReconstructedObject, true: ReconstructedObject) -> SurfaceScores:
    ours, theirs = (
        sample_surface(transformed(entry.mesh, entry.T_world_object), SURFACE_SAMPLES, np.random.default_rng(0))[0]
        for entry in (found, true)
    )
    return surface_scores(ours, theirs, SURFACE_WITHIN_M)


def bringup_arguments(options: argparse.Namespace) -> list[str]:
    """What `bringup` is told: the source, and work on request only."""
    source = ["--source", "player", "--path", options.recording] if options.recording else ["--source", "sim"]
    if options.scene and not options.recording:
        source += ["--path", options.scene]
    parameters = ["auto_reconstruct:=false", f"max_views:={options.views}"]
    if not options.recording:
        parameters += SIMULATION
    if options.frames:
        parameters.append(f"frames:=[{options.frames}]")
    return [*source, "--", *(part for text in parameters for part in ("-p", text))]


def run(options: argparse.Namespace, node_arguments: Sequence[str]) -> None:
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    print(f"nodes start (ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}, log {out / 'nodes.log'})", flush=True)
    with Nodes([*bringup_arguments(options), *node_arguments], out / "nodes.log") as nodes:
        client = Client(nodes)
        try:
            view_set = client.views(options.views)
            print(f"{len(view_set.views)} keyframes from the cameras; reconstruction:", flush=True)
            scene = client.reconstruct(view_set, options.timeout, stage_printer())
            truth = client.truth
        finally:
            client.close()
    if not scene.objects:
        raise DemoError(f"no object was found: {'; '.join(scene.warnings) or 'see ' + str(nodes.log)}")
    result = with_silhouettes(scene, view_set_from_msg(view_set))
    save_scene(result, out, {"overview": overview(result)})
    print_scene(scene, out)
    if truth is not None:
        print_truth(scene, truth)


def main(args: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="demo", description=str(__doc__).splitlines()[0], epilog=EPILOG)
    parser.add_argument("--out", default="out/demo", help="folder to write to (default: %(default)s)")
    parser.add_argument("--recording", default="", metavar="DIR", help="play this RGB-D folder, simulate nothing")
    parser.add_argument("--frames", default="", metavar="N,N,...", help="frames of the recording (default: all)")
    parser.add_argument("--scene", default="", help="scene of the simulated camera (default: the node's own)")
    parser.add_argument("--views", type=int, default=8, metavar="N", help="keyframes to reconstruct from")
    parser.add_argument("--timeout", type=float, default=600.0, metavar="S", help="longest time of the reconstruction")
    argv = list(sys.argv[1:] if args is None else args)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    # Strangers in the default domain must not take part; whoever wants to watch sets the same number.
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    rclpy.init(args=[], signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        run(options, argv[split + 1 :])
        return 0
    except (Gena3DError, OSError) as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        print("demo was interrupted", file=sys.stderr)
        return 1
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    sys.exit(main())
