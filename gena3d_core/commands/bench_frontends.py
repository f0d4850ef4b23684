"""`gena3d bench frontends`: seconds and peak memory of segmenters, stereo matchers and 2D amodal completers."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from .arguments import UsageError, integer, integers

STAGES = ("segmentation", "stereo", "amodal")
SIZES = {"tiny": "tiny", "real": "real", "none": "no weights"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add = parser.add_argument
    add("--stages", type=_names(STAGES), default=STAGES, metavar="A,B", help=f"of {', '.join(STAGES)} (default: all)")
    add("--sizes", type=_names(tuple(SIZES)), default=tuple(SIZES), metavar="A,B",
        help="tiny: random weights; real: those of this machine; none: takes no weights (default: all)")  # fmt: skip
    add("--names", type=lambda text: tuple(text.split(",")), default=(), metavar="A,B", help="only these front ends")
    add("--recording", type=Path, metavar="PATH", help="measure on this recording, not on the simulated scene")
    add("--frames", type=integers(), default=(), metavar="0,478,204", help="frames of the recording")
    add("--views", type=integer(1, 20), default=4, metavar="N", help="views to use (default: 4)")
    add("--checkpoint", type=_checkpoint, action="append", default=[], metavar="NAME=PATH",
        help="weights of a front end that are not in their usual place; may be repeated")  # fmt: skip
    add("--device", default="auto", metavar="DEVICE", help="torch device (default: the accelerator if any)")
    add("--repeat", type=integer(1), default=3, metavar="N", help="runs after the first (default: 3)")
    add("--patience", type=integer(1), default=30, metavar="SECONDS",
        help="a front end is repeated as long as it stays below this (default: 30)")  # fmt: skip
    add("--timeout", type=integer(1), default=600, metavar="SECONDS",
        help="one that takes longer, loading included, is given up on a CPU (default: 600)")  # fmt: skip
    add("--threads", type=integer(1), metavar="N", help="CPU threads (default: as torch finds them)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"'{unknown[0]}' is not among {', '.join(known)}")
        return names

    return parse


def _checkpoint(text: str) -> tuple[str, str]:
    name, separator, path = text.partition("=")
    if not separator or not path:
        raise argparse.ArgumentTypeError(f"'{text}' must be NAME=PATH, such as sam=sam_vit_b_01ec64.pth")
    return name, path


def run(args: argparse.Namespace) -> int:
    """Measure and print tables; write JSON if asked."""
    import torch

    from ..benchmarks.front_end_stages import FRONT_ENDS
    from ..benchmarks.front_ends import Task, measure_in_process, tables
    from ..device import device_names
    from ..io.atomic import write_file
    from .stages import checked_device

    sizes = {SIZES[size] for size in args.sizes}
    names = {front_end.name for front_end in FRONT_ENDS}
    if unknown := sorted(({*args.names} | {name for name, _ in args.checkpoint}) - names):
        raise UsageError(f"'{unknown[0]}' is no front end; choose of: {', '.join(sorted(names))}")
    chosen = [
        front_end
        for front_end in FRONT_ENDS
        if front_end.stage in args.stages
        and front_end.size in sizes
        and (not args.names or front_end.name in args.names)
    ]
    device, checkpoints = checked_device(args.device), dict(args.checkpoint)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    machine = {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "devices": device_names(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None))
    rows = []
    for front_end in chosen:
        print(f"measuring {front_end.stage}: {front_end.name} ({front_end.size})", file=sys.stderr, flush=True)
        task = Task(
            stage=front_end.stage,
            name=front_end.name,
            size=front_end.size,
            views=args.views,
            recording=str(args.recording or ""),
            frames=tuple(args.frames),
            device=device,
            checkpoint=checkpoints.get(front_end.name, "") if front_end.size == "real" else "",
            repeat=args.repeat,
            patience_s=float(args.patience),
            threads=args.threads,
        )
        rows.append(measure_in_process(task, float(args.timeout)))
    print(f"input: {args.recording or 'simulated scene'}; first run: loading + working")
    print(f"peak memory: what a front end alone needs of libraries, weights and working memory\n\n{tables(rows)}")
    if args.json:
        content = {"schema": 1, "command": "bench frontends", "machine": machine, "rows": rows}
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    return 0
