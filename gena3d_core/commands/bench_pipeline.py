"""`gena3d bench pipeline`: where the time goes, stage by stage; then the nodes under load, where ROS is at hand."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_pipeline_arguments, integer, integers

if TYPE_CHECKING:
    from ..pipeline import Pipeline
    from ..types import View

ROS_BENCHMARKS = {"latency": (), "accumulator": ("--seconds",)}
"""Benchmark of `gena3d_ros.benchmark` -> its options that are given here."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    parser.add_argument("--recording", type=Path, metavar="INPUT", help="measure on this instead of a rendered scene")
    parser.add_argument("--frames", type=integers(), metavar="0,478,204", help="frames of the recording")
    parser.add_argument("--views", type=integer(1, 20), default=4, metavar="N", help="views to use (default: 4)")
    parser.add_argument("--repeat", type=integer(1), default=5, metavar="N", help="runs after one warm-up (default: 5)")
    parser.add_argument("--seconds", type=integer(1), default=30, metavar="N", help="length of the load on the nodes")
    parser.add_argument("--no-ros", action="store_true", help="measure the core only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print tables; write JSON if asked."""
    from ..io import load_views
    from ..io.atomic import write_file
    from ..simulation import default_scene, views_from_scene
    from .stages import make_pipeline

    pipeline = make_pipeline(args)
    if args.recording:
        name = str(args.recording)
        row = measure(name, lambda: load_views(args.recording, args.frames, args.views), pipeline, args.repeat)
    else:
        row = measure("rendered scene", lambda: views_from_scene(default_scene(), args.views), pipeline, args.repeat)
    print(_table(row))
    content: dict[str, Any] = {"schema": 1, "command": "bench pipeline", "machine": _machine(pipeline), "rows": [row]}
    content["ros"] = [] if args.no_ros else _measure_nodes(args.seconds)
    if args.json:
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    return 0


def measure(name: str, load: Callable[[], Sequence[View]], pipeline: Pipeline, repeat: int) -> dict[str, Any]:
    """Medians over `repeat` runs after one warm-up: seconds by stage, and what was reconstructed."""
    import numpy as np

    from ..io.mesh_files import mesh_to_glb

    start = time.perf_counter()
    views = load()
    load_s = time.perf_counter() - start
    result = pipeline.run(views)
    runs = [dict(pipeline.run(views).scene.timings_s) for _ in range(repeat)]
    start = time.perf_counter()
    for entry in result.scene.objects:
        mesh_to_glb(entry.mesh)
    export_s = time.perf_counter() - start
    return {
        "input": name,
        "views": len(views),
        "objects": len(result.scene.objects),
        "faces": sum(len(entry.mesh.faces) for entry in result.scene.objects),
        "repeat": repeat,
        "median_s": {stage: float(np.median([run[stage] for run in runs])) for stage in runs[0]},
        "load_s": load_s,
        "export_s": export_s,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _table(row: dict[str, Any]) -> str:
    total = row["median_s"]["total"]
    lines = [f"{row['input']}: {row['views']} views, {row['objects']} objects, {row['faces']} faces"]
    for stage, seconds in row["median_s"].items():
        share = f"{100 * seconds / total:4.0f} %" if stage != "total" else ""
        lines.append(f"  {stage:<14}{1000 * seconds:9.1f} ms  {share}")
    lines.append(f"  (median of {row['repeat']} runs; export {1000 * row['export_s']:.1f} ms; "
                 f"peak memory {row['peak_memory_mb']:.0f} MB)")  # fmt: skip
    return "\n".join(lines)


def _measure_nodes(seconds: int) -> list[dict[str, Any]]:
    """Each benchmark of the ROS nodes in a process of its own; none where ROS is not importable."""
    if any(importlib.util.find_spec(name) is None for name in ("rclpy", "gena3d_ros")):
        print("nodes: not measured, because ROS 2 (rclpy) is not importable here")
        return []
    figures = []
    given = {"--seconds": str(seconds)}
    for what, options in ROS_BENCHMARKS.items():
        arguments = [text for option in options for text in (option, given[option])]
        command = [sys.executable, "-m", "gena3d_ros.benchmark", what, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + 180, check=False)
        try:
            result = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, ValueError):
            print(f"nodes: '{what}' gave no figures (exit code {done.returncode})", file=sys.stderr)
            continue
        figures.append(result)
        print(f"node benchmark '{what}':")
        for key, value in result.items():
            print(f"  {key:<24}{value}")
    return figures


def _machine(pipeline: Pipeline) -> dict[str, Any]:
    import torch

    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "device": pipeline.config.device,
    }


def _peak_memory_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
