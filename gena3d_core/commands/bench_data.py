"""`gena3d bench data`: how fast training examples are made, stage by stage, on one core."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

from .arguments import check_name, integer, integers

OCCLUSIONS = ("none", "surface", "objects")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add = parser.add_argument
    add("--views", type=integers(1), default=(1, 2, 4), metavar="1,2,4", help="views of an example (default: 1,2,4)")
    add("--occlusion", type=lambda text: tuple(text.split(",")), default=OCCLUSIONS, metavar="A,B",
        help=f"of {', '.join(OCCLUSIONS)} (default: all)")  # fmt: skip
    add("--examples", type=integer(1), default=12, metavar="N", help="examples of each kind (default: 12)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table; write JSON if asked."""
    import cv2
    import torch

    from ..benchmarks.data import as_records, data_table, measure_data
    from ..io.atomic import write_file

    for name in args.occlusion:
        check_name("--occlusion", name, OCCLUSIONS)
    torch.set_num_threads(1)  # as the workers of training.render do
    cv2.setNumThreads(1)
    rows = measure_data(args.occlusion, args.views, args.examples)
    machine = {"platform": platform.platform(), "cpus": os.cpu_count()}
    print(f"machine: platform {machine['platform']}, cpus {machine['cpus']}")
    print(f"objects of about {rows[0].median_faces} faces; processor time of one core, means of {args.examples}")
    print(data_table(rows))
    if args.json:
        content = {"schema": 1, "command": "bench data", "machine": machine, "rows": as_records(rows)}
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    return 0
