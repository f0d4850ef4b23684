"""Scenes to train SceneGen on: `python -m training.render_scenes --meshes SOURCE --scenes SOURCE --out DIR`.

Every example is a function of (scene, seed, settings), `render_scene`, as those of single objects in
`training.render`: runs can be stopped, taken up again and mapped over machines.
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.camera import upright_axes
from gena3d_core.geometry.mesh import transformed
from gena3d_core.geometry.solid_voxelization import solid_occupancy
from gena3d_core.simulation.scene_layout import SceneLayout
from gena3d_core.simulation.scene_views import (
    SceneView,
    SceneViewSettings,
    draw_cameras,
    render_scene_views,
    resized_camera,
)
from gena3d_core.types import Float64Array, Mesh
from gena3d_core.views.scene_images import geometry_intrinsics, geometry_map, scene_images

from .mesh_source import MeshSource, RecentSource
from .meshes import open_source
from .production import Production, attempted, produce_shards, summary
from .render import IMAGE_SIZE, RESOLUTION
from .scene_shards import SceneExample, write_scene_shard
from .scenes.source import SceneSource, open_scenes

Frame = Literal["canonical", "observed"]
OBSERVED_SIDE = 1.35
"""Side of an upright grid over the longest side of its asset, where the asset's own frame has 1 / 0.98: the middle of
what grids placed around partial clouds have, with which models of single objects are trained."""
GEOMETRY_SIZE = 160
"""Side of the images for geometry: the objects of a scene are small in it."""
MIN_PIXELS = 64
"""An object with fewer visible pixels in every view is no asset."""


@dataclass(frozen=True)
class SceneJob:
    """One example to make.

    meshes, cache  source of `training.meshes.open_source`, and the folder of its closed meshes (None: no cache)
    scenes, scene  source of `training.scenes.source.open_scenes`, and the id of the scene in it
    number         which of the scene's examples (other cameras, looks); seed of the whole run
    frame          of the assets' grids. canonical: that of the mesh as its source has it; observed: upright, x to the
                   right and y ahead as the first view sees it, so that all assets of a scene are turned alike
    own_cameras    views of the cameras that came with the scene, where it has some
    """

    meshes: str
    scenes: str
    scene: str
    number: int
    seed: int
    views: int = 1
    frame: Frame = "observed"
    own_cameras: bool = True
    image_width: int = 480
    image_height: int = 360
    image_size: int = IMAGE_SIZE
    geometry_size: int = GEOMETRY_SIZE
    resolution: int = RESOLUTION
    cache: str | None = None

    @property
    def example_seed(self) -> int:
        """Seed of the example: of scene, number and run."""
        return zlib.crc32(f"{self.scene}|{self.number}|{self.seed}".encode())


def render_scene(job: SceneJob) -> SceneExample:
    """Make one example; raises a `Gena3DError` for a scene that cannot be loaded or of which too little is seen."""
    meshes, scenes = _sources(job.meshes, job.scenes, job.cache)
    layout = scenes.load(job.scene)
    placed = [transformed(meshes.load(item.mesh).mesh, item.S_world_object) for item in layout.objects]
    rng = np.random.default_rng(job.example_seed)
    settings = SceneViewSettings(image_width=job.image_width, image_height=job.image_height)
    longer = max(job.image_width, job.image_height)
    if layout.cameras and job.own_cameras:
        first = int(rng.integers(len(layout.cameras)))
        order = [(first + k) % len(layout.cameras) for k in range(min(job.views, len(layout.cameras)))]
        cameras = [resized_camera(layout.cameras[k], longer) for k in order]
    else:
        cameras = draw_cameras(placed, job.views, settings, rng)
    views = render_scene_views(placed, layout.support, cameras, settings, rng)
    assets = [k for k in range(len(placed)) if max(int(view.pixels[k]) for view in views) >= MIN_PIXELS]
    if not assets:
        raise InputError(f"scene '{job.scene}': no object takes {MIN_PIXELS} pixels in a view")
    return _example(job, layout, placed, views, assets)


def _example(
    job: SceneJob, layout: SceneLayout, placed: Sequence[Mesh], views: Sequence[SceneView], assets: Sequence[int]
) -> SceneExample:
    grids = np.stack(
        [
            layout.objects[k].S_world_object
            if job.frame == "canonical"
            else upright_grid(placed[k], views[0].camera.T_world_camera)
            for k in assets
        ]
    )
    full = [solid_occupancy(placed[k], S, job.resolution) for k, S in zip(assets, grids, strict=True)]
    images = [
        scene_images(view.color, np.stack([view.instances == k + 1 for k in assets]), job.image_size, job.geometry_size)
        for view in views
    ]
    scaled = [geometry_intrinsics(view.camera.intrinsics, job.geometry_size) for view in views]
    support = np.full(4, np.nan)
    if layout.support is not None:
        support = np.array([*layout.support.normal, layout.support.offset_m])
    return SceneExample(
        occupancy=np.round(np.stack(full) * 255.0).astype(np.uint8),
        grid=grids,
        scene=np.stack([_bytes(image.scene) for image in images]),
        geometry=np.stack([_bytes(image.geometry) for image in images]),
        instances=np.stack([image.instances for image in images]),
        depth=np.stack([geometry_map(view.depth_m, job.geometry_size, np.nan) for view in views]).astype(np.float16),
        cameras=np.stack([view.camera.T_world_camera for view in views]),
        intrinsics=np.array([[k.fx, k.fy, k.cx, k.cy] for k in scaled]),
        crops=np.stack([_crop_bytes(image.crops) for image in images]),
        masks=np.stack([image.masks for image in images]),
        visibility=np.stack([view.visibility[list(assets)] for view in views]).astype(np.float32),
        pixels=np.stack([view.pixels[list(assets)] for view in views]),
        support=support,
        info={
            "scene": job.scene,
            "number": job.number,
            "seed": job.seed,
            "frame": job.frame,
            "objects": [layout.objects[k].mesh for k in assets],
            "hidden": len(placed) - len(assets),
        },
    )


def upright_grid(mesh: Mesh, T_world_camera: np.ndarray) -> Float64Array:
    """S_world_grid of a mesh (world, z up): z up, y ahead and x to the right of the camera, `OBSERVED_SIDE` large."""
    R = upright_axes(T_world_camera)
    points = mesh.vertices.astype(np.float64) @ R
    low, high = points.min(axis=0), points.max(axis=0)
    side = OBSERVED_SIDE * float((high - low).max())
    return transforms.rigid(side * R, R @ ((low + high) / 2.0))


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(image * 255.0).astype(np.uint8)


def _crop_bytes(crops: np.ndarray) -> np.ndarray:
    return np.round(crops * np.array([255.0, 255.0, 255.0, 1.0, 1.0])[:, None, None]).astype(np.uint8)


@lru_cache(maxsize=2)
def _sources(meshes: str, scenes: str, cache: str | None) -> tuple[MeshSource, SceneSource]:
    source = RecentSource(open_source(meshes, None if cache is None else Path(cache)))
    return source, open_scenes(scenes, source)


def list_scene_jobs(common: SceneJob, per_scene: int, *, limit: int | None = None) -> list[SceneJob]:
    """`per_scene` jobs like `common` for each scene of its source (the first `limit`), shuffled by its seed."""
    ids = list(_sources(common.meshes, common.scenes, common.cache)[1].ids())[:limit]
    pairs = [(id, number) for id in ids for number in range(per_scene)]
    order = np.random.default_rng(common.seed).permutation(len(pairs))
    return [replace(common, scene=pairs[k][0], number=pairs[k][1]) for k in order]


def render_scene_shards(jobs: Sequence[SceneJob], out: Path, shard_size: int, workers: int = 1) -> dict[str, Any]:
    """Make the examples of all jobs into shards below `out`: see `training.production.produce_shards`."""
    specific = ("scene", "number", "cache")
    common = {key: value for key, value in asdict(jobs[0]).items() if key not in specific} if jobs else {}
    made = Production(_attempt, write_scene_shard, lambda job: {"scene": job.scene, "number": job.number}, common)
    return produce_shards(jobs, out, shard_size, workers, made)


def _attempt(job: SceneJob) -> SceneExample | str:
    return attempted(render_scene, job)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.render_scenes", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--meshes", required=True, metavar="SOURCE", help="folder of meshes or procedural:COUNT[:SEED]")
    add("--scenes", required=True, metavar="SOURCE", help="procedural:COUNT[:SEED], or a folder of layouts")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the shards; finished ones are kept")
    add("--examples-per-scene", type=int, default=1, metavar="N", help="(default: 1)")
    add("--limit", type=int, metavar="N", help="only the first N scenes")
    add("--views", type=int, default=1, metavar="K", help="views of each scene (default: 1)")
    add("--frame", choices=("canonical", "observed"), default="observed", help="of the grids (default: observed)")
    add("--random-cameras", action="store_true", help="also for scenes that come with cameras")
    add("--workers", type=int, default=1, metavar="N", help="processes of one thread each (default: 1)")
    add("--seed", type=int, default=0, metavar="N")
    add("--shard-size", type=int, default=64, metavar="N", help="scenes of a shard (default: 64)")
    add("--image-width", type=int, default=480, metavar="PX", help="of the pictures (default: 480)")
    add("--image-height", type=int, default=360, metavar="PX", help="(default: 360)")
    add("--image-size", type=int, default=IMAGE_SIZE, metavar="PX", help=f"side of the crops (default: {IMAGE_SIZE})")
    add("--geometry-size", type=int, default=GEOMETRY_SIZE, metavar="PX", help=f"(default: {GEOMETRY_SIZE})")
    add("--resolution", type=int, default=RESOLUTION, metavar="R", help=f"of the grids (default: {RESOLUTION})")
    add("--cache", type=Path, metavar="DIR", help="folder of closed meshes (default: OUT/meshes)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if at least one example exists, 1 for what a `Gena3DError` says."""
    args = _parser().parse_args(arguments)
    try:
        numbers = (args.examples_per_scene, args.shard_size, args.workers, args.image_size, args.resolution, args.views)
        if min(numbers) < 1:
            raise InputError("numbers of examples, views, workers and pixels must be at least 1")
        common = SceneJob(
            args.meshes,
            args.scenes,
            "",
            0,
            args.seed,
            views=args.views,
            frame=args.frame,
            own_cameras=not args.random_cameras,
            image_width=args.image_width,
            image_height=args.image_height,
            image_size=args.image_size,
            geometry_size=args.geometry_size,
            resolution=args.resolution,
            cache=str(args.cache or args.out / "meshes"),
        )
        jobs = list_scene_jobs(common, args.examples_per_scene, limit=args.limit)
        report = render_scene_shards(jobs, args.out, args.shard_size, args.workers)
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(report))
    return 0 if report["examples"] or report["shards_before"] else 1


if __name__ == "__main__":
    sys.exit(main())
