"""`gena3d bench generator`: seconds and memory of the generators' networks beside the arithmetic floor."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, integer, integers

if TYPE_CHECKING:
    from ..benchmarks.settings import Settings

SIZES = ("tiny", "edge", "full")
PARTS = ("structure", "scene", "detail")
DTYPES = ("float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add = parser.add_argument
    add("--sizes", type=_names(SIZES), default=SIZES, metavar="A,B", help="of tiny, edge, full (default: all)")
    add("--parts", type=_names(PARTS), default=PARTS, metavar="A,B",
        help="structure: stage 1; scene: SceneGen's; detail: stages 1 and 2 together (default: all)")  # fmt: skip
    add("--views", type=integers(1), default=(1, 4), metavar="1,4", help="views of each object (default: 1,4)")
    add("--objects", type=integers(1), default=(1, 8), metavar="1,8", help="objects at once (default: 1,8)")
    add("--steps", type=integer(1), default=12, metavar="N", help="guided steps (default: 12; SceneGen takes 25)")
    add("--repeat", type=integer(1), default=3, metavar="N", help="runs after one warm-up (default: 3)")
    add("--patience", type=integer(1), default=30, metavar="SECONDS",
        help="a measurement is repeated as long as it stays below this, and extrapolated from one step, or left out, "
        "where one run would take more than twice as long (default: 30)")  # fmt: skip
    add(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="torch device (default: the CPU, then the accelerator if any)",
    )
    add("--dtype", choices=("auto", *DTYPES), default="auto",
        help="of the matrix products (default: float32 on a CPU, bfloat16 elsewhere)")  # fmt: skip
    add("--threads", type=integer(1), metavar="N", help="CPU threads (default: as torch finds them)")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Argument type: comma-separated names out of `known`."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"'{unknown[0]}' is not among {', '.join(known)}")
        return names

    return parse


def run(args: argparse.Namespace) -> int:
    """Measure and print tables; write JSON if asked."""
    import torch

    from ..benchmarks.report import report
    from ..benchmarks.worker import measure
    from ..io.atomic import write_file

    if args.threads is not None:
        torch.set_num_threads(args.threads)
    rows: list[dict[str, Any]] = []
    machine = _machine()
    print("machine: " + ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None))
    devices = _devices(args.device)
    chosen = [_settings(args, device) for device in devices]
    for settings in chosen:
        rate = settings.matrix_rate / 1e12
        print(f"matrix products: {rate:.3g} TFLOP/s ({settings.device}, {settings.dtype})")
        for task, what in _work(args):
            label = ", ".join(f"{key} {value}" for key, value in what.items())
            print(f"measuring on {settings.device}: {task}, {label}", file=sys.stderr, flush=True)
            rows.append(measure(task, settings, what))
    print("\n" + report(rows))
    if devices == ["cpu"]:
        print("\n- not measured: any accelerator (none here, or none asked for)")
    if args.json:
        rates = [{"device": s.device, "dtype": s.dtype, "operations_per_s": s.matrix_rate} for s in chosen]
        content = {"schema": 1, "command": "bench generator", "machine": machine, "matrix_rates": rates, "rows": rows}
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    return 0


def _devices(name: str) -> list[str]:
    """The devices to measure on."""
    from ..device import default_device
    from .stages import checked_device

    if name == "auto":
        return list(dict.fromkeys(["cpu", default_device()]))
    return [checked_device(name)]


def _settings(args: argparse.Namespace, device: str) -> Settings:
    import torch

    from ..benchmarks.measuring import matrix_rate
    from ..benchmarks.settings import DTYPES as TORCH_DTYPES
    from ..benchmarks.settings import Settings

    on_cpu = torch.device(device).type == "cpu"
    dtype = args.dtype if args.dtype != "auto" else "float32" if on_cpu else "bfloat16"
    try:
        rate = matrix_rate(device, TORCH_DTYPES[dtype])
    except RuntimeError as error:
        raise UsageError(f"--dtype {dtype}: no matrix products on {device} ({error})") from error
    return Settings(device, dtype, args.threads, args.steps, args.repeat, float(args.patience), rate)


def _work(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Tasks of `benchmarks.worker` and what each is about, in the order of the tables."""
    for size in args.sizes:
        if "structure" in args.parts:
            for views in args.views:
                for objects in args.objects:
                    yield "structure", {"size": size, "views": views, "objects": objects}
        if "scene" in args.parts:
            yield "scene", {"size": size}
        if "detail" in args.parts:
            for views in args.views:
                yield "detail", {"size": size, "views": views}


def _machine() -> dict[str, Any]:
    import torch

    from ..device import device_names

    return {
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "devices": device_names(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
