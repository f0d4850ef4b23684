"""Node `camera_sim`: renders a scene from moving cameras and publishes what camera drivers would."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gena3d_core.simulation import Renderer, find_scene, ground_truth
from gena3d_core.simulation.renderer import apply_noise
from gena3d_core.simulation.scene import SceneSpec
from gena3d_core.types import Float64Array, Intrinsics
from gena3d_ros.msg import ReconstructedScene

from . import conversions, qos
from .camera_source import CameraSource, Shot
from .diagnostics import Health
from .frame_stream import Frame
from .lifecycle import run
from .parameter_table import CameraSimParameters

HOLD_FRAMES = 30
"""A camera that stands still still sees noise that changes."""


class CameraSim(CameraSource):
    """See the package's README for its topics and parameters; `~/ground_truth` (latched) holds the true scene."""

    KIND = "camera_sim"

    def __init__(self, node_name: str | None = None, **kwargs: Any) -> None:
        self._renderer: Renderer | None = None
        self._poses: Float64Array = np.zeros((0, 4, 4))
        self._cache: dict[int, Shot] = {}
        self._cached_bytes = 0
        self._ground_truth: Any = None
        super().__init__(node_name, **kwargs)

    def configure(self) -> None:
        values: CameraSimParameters = self.parameters.values
        spec = scene_for(values)
        self._renderer = Renderer(spec, shadow_samples=values.shadow_samples)
        self._poses = loop_poses(spec, values)
        self.open_cameras(values.cameras, spec.intrinsics)
        self._ground_truth = self.create_lifecycle_publisher(
            ReconstructedScene, "~/ground_truth", qos.latched(), qos_overriding_options=qos.overridable()
        )
        self.get_logger().info(f"scene '{spec.name}': {len(spec.objects)} objects, {len(self._poses)} poses in a loop")

    def activate(self) -> None:
        if self._renderer is not None:
            world_frame = self.parameters.values.world_frame
            scene = ground_truth(self._renderer.spec, self._renderer.meshes, world_frame)
            self._ground_truth.publish(conversions.scene_to_msg(scene))
        super().activate()

    def cleanup(self) -> None:
        super().cleanup()
        if self._ground_truth is not None:
            self.destroy_lifecycle_publisher(self._ground_truth)
            self._ground_truth = None
        self._renderer = None
        self._cache = {}
        self._cached_bytes = 0

    def health(self) -> Iterable[Health]:
        yield from super().health()
        yield Health("cache", values={"frames": len(self._cache), "megabytes": self._cached_bytes / 1e6})

    def frames(self) -> Iterable[Frame]:
        rate_hz = self.parameters.values.rate_hz
        for count in itertools.count():
            shot = self._shot(count % len(self._poses))
            yield Frame(count / rate_hz, shot._replace(time_ns=round(count / rate_hz * 1e9)))

    def _shot(self, index: int) -> Shot:
        """The cameras' views at one place of the loop, from the cache if they were rendered before."""
        if index in self._cache or self._renderer is None:
            return self._cache[index]
        values: CameraSimParameters = self.parameters.values
        total, cameras = len(self._poses), len(self.outputs)
        poses = [self._poses[(index + number * total // cameras) % total] for number in range(cameras)]
        prepared = []
        for number, (output, T) in enumerate(zip(self.outputs, poses, strict=True)):
            image = self._renderer.render(T)
            color, depth_m = image.color, image.depth_m
            if values.noise:
                rng = np.random.default_rng((values.seed, number, index))
                color, depth_m = apply_noise(image, self._renderer.spec, rng)
            prepared.append(output.prepare(color, depth_m))
        shot = Shot(prepared, poses, 0)
        size = sum(len(m.data) for messages in prepared for _, m in messages if hasattr(m, "data"))
        if self._cached_bytes + size <= values.cache_mb * 1_000_000:
            self._cache[index] = shot
            self._cached_bytes += size
        return shot


def scene_for(values: CameraSimParameters) -> SceneSpec:
    """The scene with the image size that the parameters ask for; raises what `find_scene` raises."""
    spec = find_scene(values.path)
    return spec if values.width == 0 else dataclasses.replace(spec, intrinsics=scaled(spec.intrinsics, values.width))


def scaled(intrinsics: Intrinsics, width: int) -> Intrinsics:
    """The same field of view in an image `width` pixels wide."""
    factor = width / intrinsics.width
    # pixel centres lie at integers, so the image's corner is at -0.5
    cx, cy = ((c + 0.5) * factor - 0.5 for c in (intrinsics.cx, intrinsics.cy))
    height = max(1, round(intrinsics.height * factor))
    return Intrinsics(width, height, intrinsics.fx * factor, intrinsics.fy * factor, cx, cy)


def loop_poses(spec: SceneSpec, values: CameraSimParameters) -> Float64Array:
    """(N, 4, 4) camera poses of one loop, so that the last leads back to the first."""
    if values.motion == "hold":
        return np.repeat(spec.camera_path.poses()[:1], HOLD_FRAMES, axis=0)
    if values.motion == "orbit":
        return spec.camera_path.poses(values.loop_frames or None)
    path = spec.camera_path.poses()
    count = values.loop_frames or len(path)
    swing = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(count) / count)
    return path[np.minimum((swing * values.arc_fraction * len(path)).astype(int), len(path) - 1)]


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until it is told to stop."""
    return run(functools.partial(CameraSim), args)


if __name__ == "__main__":
    sys.exit(main())
