"""`gena3d bench pipeline | generator | scene | frontends | data`: where time and memory go."""

from __future__ import annotations

import argparse
from types import ModuleType

from . import bench_data, bench_frontends, bench_generator, bench_pipeline, bench_scene

BENCHMARKS: dict[str, tuple[str, ModuleType]] = {
    "pipeline": ("the pipeline stage by stage, then the nodes under load where ROS is at hand", bench_pipeline),
    "generator": ("the networks of the generators: time and memory beside the arithmetic floor", bench_generator),
    "frontends": ("segmenters, stereo matchers and 2D amodal completers: time and peak memory", bench_frontends),
    "scene": ("one picture with masks to meshes and a layout, stage by stage", bench_scene),
    "data": ("the data engine: how fast training examples are made, stage by stage", bench_data),
}
"""What is measured -> (in words, module with `add_arguments` and `run`)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs and their options."""
    what = parser.add_subparsers(metavar="WHAT", dest="what", required=True)
    for name, (summary, module) in BENCHMARKS.items():
        sub = what.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    """Measure; the exit code."""
    return BENCHMARKS[args.what][1].run(args)
