"""Examples to train on, made from meshes: `python -m training.render --meshes SOURCE --out DIR`.

Every example is a function of (object, seed, settings), `render_example`, so that a run can be stopped and taken up
again, or mapped over machines:

    import ray
    from training.render import RenderJob, list_jobs, render_example
    jobs = ray.data.from_items([asdict(job) for job in list_jobs(...)])
    jobs.map(lambda row: asdict(render_example(RenderJob.from_dict(row)))).write_parquet("out")
"""

from __future__ import annotations

import argparse
import sys
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gena3d_core.device import default_device
from gena3d_core.errors import Gena3DError, InputError
from gena3d_core.generative.inputs import ObjectInputs, prepare_inputs
from gena3d_core.geometry.solid_voxelization import solid_occupancy
from gena3d_core.simulation.example_settings import ExampleSettings, with_text_settings
from gena3d_core.simulation.object_example import make_example
from gena3d_core.simulation.ray_casting import casting_with
from gena3d_core.simulation.torch_ray_casting import torch_caster_factory
from gena3d_core.types import Mesh

from .mesh_source import MeshSource, TrainingMesh
from .meshes import open_source
from .production import CHUNK, Production, attempted, produce_shards, summary
from .shards import TrainingExample, write_shard

IMAGE_SIZE = 112
RESOLUTION = 64
OTHERS, OTHERS_POOL = 2, 64
"""Objects of the source that may stand in front of another, besides random shapes, out of so many: few enough to be
kept in memory by every process."""


@dataclass(frozen=True)
class RenderJob:
    """One example to make.

    meshes, cache  source of `training.meshes.open_source`, and the folder of its closed meshes (None: no cache)
    object         id of the object in it; number: which of the object's examples; seed of the whole run
    views          from and to how many views, drawn for each example
    settings       texts for `with_text_settings`, such as "occlusion=surface"
    rays           torch device that casts the rays; None: the installed engine of the processor
    """

    meshes: str
    object: str
    number: int
    seed: int
    views: tuple[int, int] = (1, 4)
    settings: tuple[str, ...] = ()
    image_size: int = IMAGE_SIZE
    resolution: int = RESOLUTION
    cache: str | None = None
    rays: str | None = None

    @staticmethod
    def from_dict(values: dict[str, Any]) -> RenderJob:
        """The job of `dataclasses.asdict`, also after a way through JSON."""
        return RenderJob(**{**values, "views": tuple(values["views"]), "settings": tuple(values["settings"])})

    @property
    def example_seed(self) -> int:
        """Seed of the example: of object, number and run."""
        return zlib.crc32(f"{self.object}|{self.number}|{self.seed}".encode())


def render_example(job: RenderJob) -> TrainingExample:
    """Make one example; raises a `Gena3DError` for an object that cannot be loaded, closed or seen."""
    item = _load(job.meshes, job.cache, job.object)
    seed = job.example_seed
    rng = np.random.default_rng(seed)
    settings = replace(_settings(job.settings), views=int(rng.integers(job.views[0], job.views[1] + 1)))
    with nullcontext() if job.rays is None else casting_with(torch_caster_factory(job.rays)):
        example = make_example(item.mesh, settings, seed, scale_m=item.scale_m, others=_others(job, rng))
    inputs = prepare_inputs([example.observation], job.image_size, job.resolution, "observed")
    occupancy = solid_occupancy(example.mesh, inputs.S_world_grid[0], job.resolution)
    info = {
        "object": job.object,
        "category": item.category,
        "seed": job.seed,
        "number": job.number,
        "occlusion": example.occlusion,
        "table": example.observation.support is not None,
        "points": len(example.observation.points_m),
    }
    return training_example(inputs, occupancy, info)


def training_example(inputs: ObjectInputs, occupancy: np.ndarray, info: dict[str, Any]) -> TrainingExample:
    """Network inputs of one object and the filled share (R, R, R) of its voxels, as they are stored."""
    crops = inputs.crops.copy()
    crops[:, :3] *= 255.0
    return TrainingExample(
        np.round(occupancy * 255.0).astype(np.uint8),
        inputs.clouds[0],
        np.round(crops).astype(np.uint8),
        inputs.visibility,
        inputs.S_world_grid[0],
        info,
    )


@lru_cache(maxsize=2)
def _source(text: str, cache: str | None) -> MeshSource:
    return open_source(text, None if cache is None else Path(cache))


@lru_cache(maxsize=8)
def _settings(texts: tuple[str, ...]) -> ExampleSettings:
    return with_text_settings(ExampleSettings(), texts)


@lru_cache(maxsize=4 * OTHERS_POOL)
def _load(meshes: str, cache: str | None, object_id: str) -> TrainingMesh:
    return _source(meshes, cache).load(object_id)


def _others(job: RenderJob, rng: np.random.Generator) -> list[Mesh]:
    """Meshes of other objects; one that cannot be loaded is left out, since its own examples report it."""
    ids = _source(job.meshes, job.cache).ids()
    pool = np.random.default_rng(job.seed).permutation(len(ids))[:OTHERS_POOL]
    found = []
    for index in rng.choice(pool, OTHERS):
        try:
            found.append(_load(job.meshes, job.cache, ids[int(index)]).mesh)
        except Gena3DError:
            continue
    return found


def list_jobs(
    meshes: str,
    per_object: int,
    seed: int,
    *,
    views: tuple[int, int] = (1, 4),
    settings: Sequence[str] = (),
    image_size: int = IMAGE_SIZE,
    resolution: int = RESOLUTION,
    objects: int | None = None,
    cache: str | None = None,
    rays: str | None = None,
) -> list[RenderJob]:
    """`per_object` jobs for each object (the first `objects`), shuffled by `seed` so that each shard mixes objects.

    A few jobs of an object follow one another: the mesh, which may take as long to make as an example, is then at hand.
    """
    ids = list(_source(meshes, cache).ids())[:objects]
    if not ids:
        raise InputError(f"mesh source '{meshes}' has no object")
    blocks = [(id, first) for id in ids for first in range(0, per_object, CHUNK)]
    order = np.random.default_rng(seed).permutation(len(blocks))
    return [
        RenderJob(meshes, blocks[k][0], number, seed, views, tuple(settings), image_size, resolution, cache, rays)
        for k in order
        for number in range(blocks[k][1], min(blocks[k][1] + CHUNK, per_object))
    ]


def render_shards(jobs: Sequence[RenderJob], out: Path, shard_size: int, workers: int = 1) -> dict[str, Any]:
    """Make the examples of all jobs into shards below `out`; finished shards stay. Returns counts and seconds.

    Jobs that fail are left out and listed in failed.jsonl. Raises `InputError` if `out` holds shards of other jobs.
    """
    specific = ("object", "number", "cache", "rays")
    common = {key: value for key, value in asdict(jobs[0]).items() if key not in specific} if jobs else {}
    made = Production(_attempt, write_shard, lambda job: {"object": job.object, "number": job.number}, common)
    return produce_shards(jobs, out, shard_size, workers, made)


def _attempt(job: RenderJob) -> TrainingExample | str:
    return attempted(render_example, job)


def parse_views(text: str) -> tuple[int, int]:
    """Argument type: "2" or "1..4"."""
    low, _, high = text.partition("..")
    try:
        views = int(low), int(high or low)
    except ValueError:
        views = (0, 0)
    if not 1 <= views[0] <= views[1]:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of views such as 2 or 1..4")
    return views


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.render", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--meshes", required=True, metavar="SOURCE", help="folder of meshes or procedural:COUNT[:SEED]")
    add("--out", required=True, type=Path, metavar="DIR", help="folder of the shards; finished ones are kept")
    add("--examples-per-object", type=int, default=8, metavar="N", help="(default: 8)")
    add("--objects", type=int, metavar="N", help="only the first N objects")
    add("--views", type=parse_views, default=(1, 4), metavar="1..4", help="views, drawn for each example")
    add("--workers", type=int, default=1, metavar="N", help="processes of one thread each (default: 1)")
    add("--seed", type=int, default=0, metavar="N")
    add("--shard-size", type=int, default=128, metavar="N", help="examples of a shard (default: 128)")
    add("--image-size", type=int, default=IMAGE_SIZE, metavar="PX", help=f"side of the crops (default: {IMAGE_SIZE})")
    add("--resolution", type=int, default=RESOLUTION, metavar="R", help=f"of the grid (default: {RESOLUTION})")
    add("--cache", type=Path, metavar="DIR", help="folder of closed meshes (default: OUT/meshes)")
    add("--rays", choices=("processor", "torch"), default="processor", help="what casts rays (default: processor)")
    add("--device", metavar="DEVICE", help="torch device of --rays torch (default: the accelerator, if there is one)")
    add("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="fields of ExampleSettings")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 if at least one example exists, 1 for what a `Gena3DError` says."""
    args = _parser().parse_args(arguments)
    try:
        if min(args.examples_per_object, args.shard_size, args.workers, args.image_size, args.resolution) < 1:
            raise InputError("numbers of examples, workers and pixels must be at least 1")
        with_text_settings(ExampleSettings(), args.settings)  # a slip of the pen fails here, not in every worker
        jobs = list_jobs(
            args.meshes,
            args.examples_per_object,
            args.seed,
            views=args.views,
            settings=args.settings,
            image_size=args.image_size,
            resolution=args.resolution,
            objects=args.objects,
            cache=str(args.cache or args.out / "meshes"),
            rays=(args.device or default_device()) if args.rays == "torch" else None,
        )
        report = render_shards(jobs, args.out, args.shard_size, args.workers)
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(summary(report))
    return 0 if report["examples"] or report["shards_before"] else 1


if __name__ == "__main__":
    sys.exit(main())
