"""`gena3d bench scene`: one picture with masks to meshes and a layout, stage by stage."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .arguments import add_pipeline_arguments, integer

if TYPE_CHECKING:
    from ..pipeline import Pipeline
    from ..types import SceneObservation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add = parser.add_argument
    add("--photo", type=Path, metavar="INPUT", help="measure on this picture with masks instead of a rendered one")
    add("--assets", type=integer(1, 64), default=4, metavar="N", help="objects of it, the largest first (default: 4)")
    add("--repeat", type=integer(1), default=3, metavar="N", help="runs after one warm-up (default: 3)")
    add("--threads", type=integer(1), metavar="N", help="CPU threads (default: as torch finds them)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print a table; write JSON if asked."""
    import torch

    from ..benchmarks.scene_photo import largest, photo_of_scene
    from ..checkpoints.locate import local_folder
    from ..io import load_photo_scene
    from ..io.atomic import write_file
    from ..views.scene_masks import checked_scene
    from .stages import make_pipeline

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    untrained = args.checkpoint is None and args.generator == "auto" and local_folder("edge_scene") is None
    with TemporaryDirectory() as folder:
        if untrained:
            args.checkpoint = str(Path(folder) / "untrained")
            _save_untrained(Path(args.checkpoint))
        pipeline = make_pipeline(args, "scene")
    if args.photo:
        found = load_photo_scene([args.photo])
        scene = checked_scene(found.ids, found.labels, found.images, found.masks).scene
    else:
        scene = photo_of_scene()
    row = measure(str(args.photo or "rendered scene"), largest(scene, args.assets), pipeline, args.repeat)
    row["weights"] = "edge, grown but untrained" if untrained else str(args.checkpoint or args.generator)
    print(_table(row))
    if args.json:
        machine = {
            "platform": platform.platform(),
            "cpus": os.cpu_count(),
            "torch": torch.__version__,
            "torch_threads": torch.get_num_threads(),
            "device": pipeline.config.device,
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        }
        content = {"schema": 1, "command": "bench scene", "machine": machine, "rows": [row]}
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    return 0


def measure(name: str, scene: SceneObservation, pipeline: Pipeline, repeat: int) -> dict[str, Any]:
    """Medians over `repeat` runs after one warm-up: seconds by stage, and what came out."""
    import numpy as np

    made = pipeline.run_photos(scene)
    runs = [dict(pipeline.run_photos(scene).timings_s) for _ in range(repeat)]
    return {
        "input": name,
        "images": len(scene.images),
        "assets": len(scene.ids),
        "objects": len(made.objects),
        "faces": sum(len(item.mesh.faces) for item in made.objects),
        "repeat": repeat,
        "median_s": {stage: float(np.median([run[stage] for run in runs])) for stage in runs[0]},
    }


def _save_untrained(folder: Path) -> None:
    """Where no checkpoint of scenes is at hand: the object model that comes with the package, grown. It takes as long
    as a trained one; what comes out means nothing."""
    import torch

    from ..checkpoints.bundle import SamplerDefaults
    from ..checkpoints.open import open_checkpoint
    from ..checkpoints.presets import random_scene_bundle
    from ..checkpoints.save import save_bundle

    bundle = random_scene_bundle("edge", base=open_checkpoint("edge", dtype=torch.float32))
    defaults = SamplerDefaults(steps=25, guidance_strength=5.0, guidance_interval=(0.0, 1.0))
    save_bundle(replace(bundle, samplers={"sparse_structure": defaults}), folder)


def _table(row: dict[str, Any]) -> str:
    lines = [f"{row['input']}: {row['images']} image, {row['assets']} assets; {row['weights']}"]
    lines += [f"  {stage:<12}{seconds:8.2f} s" for stage, seconds in row["median_s"].items()]
    lines.append(f"  ({row['objects']} objects, {row['faces']} faces; median of {row['repeat']} runs)")
    return "\n".join(lines)
