"""`gena3d evaluate objects DATA`: completions of single objects against their true shapes, beside baselines."""

from __future__ import annotations

import argparse
import json
import os
import sys
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, add_generator_arguments, check_name, integer, integers

if TYPE_CHECKING:
    from ..io.object_dataset import ObjectDataset, ObjectEntry
    from ..metrics.object_evaluation import EvaluationPlan, ExampleResult, MethodMaker
    from ..metrics.object_table import Row

CATEGORIES: dict[str, Callable[[ObjectEntry], bool]] = {
    "all": lambda entry: True,
    "everyday": lambda entry: not entry.procedural,
    "procedural": lambda entry: entry.procedural,
}
"""Groups of objects; everyday is what was modelled after things, procedural what a generator of shapes made."""
IMAGE_NETWORKS = {
    "inception": ("FID, KID", "TorchScript file"),
    "clip": ("CLIP score", "TorchScript file or folder of transformers"),
    "lpips": ("LPIPS", "folder of backbone.safetensors and linear.safetensors, or TorchScript file"),
    "judge": ("PCS", "folder of a vision-language model of transformers"),
}
"""Option -> (figures, what its weights are)."""
DEFAULT_BASELINES = ("observed", "hull", "mirror", "nearest")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of objects: objects.csv and shards of meshes")
    parser.add_argument("--views", type=integers(1), default=(1, 2, 4), metavar="1,2,4", help="numbers of views")
    parser.add_argument(
        "--occlusion", type=_shares, default=(0.2, 0.5, 0.7), metavar="0.2,0.5,0.7", help="hidden shares of the surface"
    )
    parser.add_argument("--protocol", default="surface", metavar="NAME", help="surface (GENA3D's masks) or objects")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the examples"
    )
    objects = parser.add_argument_group("objects")
    objects.add_argument("--split", metavar="NAME", help="default: val where there is one, else all")
    objects.add_argument("--objects", metavar="ID,ID", help="only these")
    objects.add_argument("--categories", default="all", choices=list(CATEGORIES), help="kinds of objects")
    objects.add_argument("--limit", type=integer(1), metavar="N", help="a fixed choice of N of them")
    methods = parser.add_argument_group("methods")
    methods.add_argument("--generator", metavar="NAME", help="default: edge, where a checkpoint is at hand")
    methods.add_argument(
        "--compare", action="append", default=[], metavar="LABEL=CHECKPOINT", help="another checkpoint, as a row LABEL"
    )
    methods.add_argument(
        "--baselines", default=",".join(DEFAULT_BASELINES), metavar="NAME,NAME", help="or none (default: all there are)"
    )
    methods.add_argument(
        "--library", type=Path, metavar="DIR", help="shapes that `nearest` knows (default: the train split of DATA)"
    )
    methods.add_argument("--hypotheses", type=integer(1), default=1, metavar="S", help="samples drawn for each object")
    methods.add_argument(
        "--draws", type=integer(1), default=1, metavar="N", help="results of each object that are averaged"
    )
    methods.add_argument("--device", default="cpu", metavar="DEVICE", help="torch device of the generators")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of examples and samples (default: 0)")
    parser.add_argument("--jobs", type=integer(1), metavar="N", help="processes (default: one a processor, 1 on a GPU)")
    parser.add_argument("--no-sets", action="store_true", help="leave out MMD and COV, which take their time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    pictures = parser.add_argument_group("metrics of pictures, by networks whose weights you have")
    for name, (what, kind) in IMAGE_NETWORKS.items():
        pictures.add_argument(f"--{name}", type=Path, metavar="PATH", help=f"{what}: {kind}")
    add_generator_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate every method under every condition, print tables, write JSON if asked."""
    from tqdm import tqdm

    from ..errors import Gena3DError, InputError
    from ..io.object_dataset import ObjectDataset
    from ..metrics.image_networks import load_networks
    from ..metrics.object_evaluation import EvaluationPlan, evaluate, ordered
    from ..metrics.object_protocol import Condition, example_settings
    from .stages import checked_device

    args.device = checked_device(args.device)
    dataset = ObjectDataset.open(args.data)
    entries = _chosen(dataset, args)
    makers = _methods(dataset, args)
    conditions = tuple(Condition(views, share) for share in args.occlusion for views in args.views)
    try:
        for condition in conditions:
            example_settings(args.protocol, condition, args.setting)
    except InputError as error:
        raise UsageError(str(error)) from error
    networks = tuple((name, getattr(args, name)) for name in IMAGE_NETWORKS if getattr(args, name) is not None)
    load_networks(dict(networks))  # what is wrong with them shows before the work, not after
    plan = EvaluationPlan(
        args.data,
        entries,
        conditions,
        args.protocol,
        tuple(args.setting),
        args.hypotheses,
        args.draws,
        args.seed,
        networks,
    )
    processes = args.jobs or (max(1, os.cpu_count() or 1) if args.device == "cpu" else 1)
    count = len(entries) * len(conditions)
    print(f"{len(entries)} objects, {len(conditions)} conditions, methods: {', '.join(makers)}", file=sys.stderr)
    done = list(tqdm(evaluate(plan, makers, min(processes, count)), total=count, disable=None, unit="example"))
    results = ordered(done, plan)
    if all(result.problem for result in results):
        raise Gena3DError(f"no example could be made of any object: {results[0].problem}")
    tables = _tables(results, args, processes)
    for group, rows in tables.items():
        _print_table(group, rows, len(tables) > 1)
    for line in _problems(results):
        print(line)
    if args.json:
        _write(args, plan, tables, results)
    return 0


def _shares(text: str) -> tuple[float, ...]:
    """Argument type: comma-separated shares in [0, 1)."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0.0 <= value < 1.0 for value in values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different shares in [0, 1)")
    return values


def _chosen(dataset: ObjectDataset, args: argparse.Namespace) -> tuple[ObjectEntry, ...]:
    """The objects that the options name, in the order of the table."""
    from ..errors import InputError

    split = args.split or ("val" if "val" in dataset.splits else None)
    try:
        entries = dataset.select(split, args.objects.split(",") if args.objects else None)
    except InputError as error:
        raise UsageError(str(error)) from error
    entries = tuple(entry for entry in entries if CATEGORIES[args.categories](entry))
    if not entries:
        raise UsageError(f"{args.data}: no object is left to evaluate (split {split}, {args.categories})")
    if args.limit is not None:
        # Mixed by a hash of the id, since tables are sorted: the choice stays as it is, and grows with N.
        kept = set(sorted((entry.id for entry in entries), key=lambda id: (zlib.crc32(id.encode()), id))[: args.limit])
        entries = tuple(entry for entry in entries if entry.id in kept)
    return entries


def _methods(dataset: ObjectDataset, args: argparse.Namespace) -> dict[str, MethodMaker]:
    """Label -> maker. Generators with a checkpoint are opened once here, so that what is wrong shows at once."""
    from ..baselines import BASELINES, make_baseline
    from ..checkpoints.locate import local_folder
    from ..generation import CHECKPOINT_GENERATORS, GENERATORS, make_generator
    from .stages import generator_options

    makers: dict[str, Any] = {}
    for name in [] if args.baselines == "none" else args.baselines.split(","):
        check_name("--baselines", name, BASELINES)
        library: Path | None = args.library
        split: str | None = "train"
        if name == "nearest" and library is None:
            if "train" not in dataset.splits:
                print(f"{args.data} has no train split: nearest is left out (--library names shapes)", file=sys.stderr)
                continue
            library = args.data
        elif library is not None:
            split = _library_split(library)
        makers[name] = partial(make_baseline, name, library, split)
    if args.generator is None:
        args.generator = "edge" if args.checkpoint or local_folder("edge") is not None else None
    if args.generator is None:
        print("no checkpoint of edge on this machine: baselines only (--checkpoint names one)", file=sys.stderr)
    else:
        check_name("--generator", args.generator, GENERATORS)
        options = generator_options(args)
        if args.generator in CHECKPOINT_GENERATORS:
            options["device"] = args.device
        makers[args.generator] = partial(make_generator, args.generator, **options)
    for text in args.compare:
        label, equals, checkpoint = text.partition("=")
        if not (label and equals and checkpoint) or label in makers:
            raise UsageError(f"--compare '{text}' must be LABEL=CHECKPOINT with a label of its own")
        name = label if label in CHECKPOINT_GENERATORS else "edge"
        makers[label] = partial(make_generator, name, checkpoint=checkpoint, device=args.device)
    if not makers:
        raise UsageError("there is no method to evaluate: give --generator, --checkpoint or --baselines")
    for label, make in makers.items():
        if label not in BASELINES:
            make()
    return makers


def _library_split(directory: Path) -> str | None:
    from ..io.object_dataset import ObjectDataset

    return "train" if "train" in ObjectDataset.open(directory).splits else None


def _tables(results: Sequence[ExampleResult], args: argparse.Namespace, processes: int) -> dict[str, list[Row]]:
    """Rows of all objects, and of each kind apart where there are both."""
    groups = {args.categories: list(results)}
    if args.categories == "all" and len({result.entry.procedural for result in results}) == 2:
        for name in ("procedural", "everyday"):
            groups[name] = [result for result in results if CATEGORIES[name](result.entry)]
    from ..metrics.object_table import add_sets, make_rows

    tables = {name: make_rows(own) for name, own in groups.items()}
    if args.no_sets:
        return tables
    return {name: add_sets(rows, groups[name], processes) for name, rows in tables.items()}


def _print_table(group: str, rows: Sequence[Row], titled: bool) -> None:
    from ..metrics.object_table import markdown

    if titled:
        print(f"\n{group} objects\n")
    print(markdown(rows))


def _problems(results: Sequence[ExampleResult]) -> list[str]:
    """What went amiss: objects without example, and failures of each method, with the first reason."""
    without = [result for result in results if result.problem]
    lines = []
    if without:
        first = without[0]
        lines.append(f"{len(without)} of {len(results)} examples could not be made ({first.entry.id}: {first.problem})")
    failed: dict[str, list[str]] = {}
    for result in results:
        for part in result.results:
            if part.problem:
                failed.setdefault(part.method, []).append(f"{result.entry.id}: {part.problem}")
    return lines + [
        f"{method} failed {len(reasons)} times, which counts as an empty result ({reasons[0]})"
        for method, reasons in failed.items()
    ]


def _write(
    args: argparse.Namespace,
    plan: EvaluationPlan,
    tables: dict[str, list[Row]],
    results: Sequence[ExampleResult],
) -> None:
    from .. import __version__
    from ..io.atomic import write_file

    main, *others = tables
    given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    content = {
        "schema": 1,
        "command": "evaluate objects",
        "arguments": {key: value for key, value in given.items() if key not in ("verb", "what", "debug", "json")},
        "version": __version__,
        "rows": [row.as_json() for row in tables[main]],
        "groups": {name: [row.as_json() for row in tables[name]] for name in others},
        "objects": [entry.id for entry in plan.entries],
        "problems": _problems(results),
    }
    write_file(args.json, json.dumps(content, indent=1).encode())
    print(f"wrote {args.json}")
