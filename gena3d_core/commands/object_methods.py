"""Which objects, by which methods, on how many processes: options of the evaluations of single objects."""

from __future__ import annotations

import argparse
import os
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, check_name, integer

if TYPE_CHECKING:
    from ..io.object_dataset import ObjectDataset, ObjectEntry
    from ..metrics.object_evaluation import EvaluationPlan, ExampleResult, MethodMaker

CATEGORIES: dict[str, Callable[[ObjectEntry], bool]] = {
    "all": lambda entry: True,
    "everyday": lambda entry: not entry.procedural,
    "procedural": lambda entry: entry.procedural,
}
"""Groups of objects; everyday is what was modelled after things, procedural what a generator of shapes made."""
DEFAULT_BASELINES = ("observed", "hull", "mirror", "nearest")


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """DATA."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of objects: objects.csv and shards of meshes")


def add_object_arguments(parser: argparse.ArgumentParser, baselines: str) -> None:
    """Choice of objects and methods, seed and processes."""
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
    methods.add_argument("--baselines", default=baselines, metavar="NAME,NAME", help="or none (default: %(default)s)")
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


def process_count(args: argparse.Namespace, examples: int) -> int:
    """Processes that `--jobs` allows for so many examples."""
    return min(examples, args.jobs or (max(1, os.cpu_count() or 1) if args.device == "cpu" else 1))


def shares(text: str) -> tuple[float, ...]:
    """Argument type: comma-separated shares in [0, 1)."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (-1.0,)
    if not all(0.0 <= value < 1.0 for value in values) or len(set(values)) < len(values):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different shares in [0, 1)")
    return values


def chosen_objects(dataset: ObjectDataset, args: argparse.Namespace) -> tuple[ObjectEntry, ...]:
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


def method_makers(dataset: ObjectDataset, args: argparse.Namespace) -> dict[str, MethodMaker]:
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


def evaluation_results(
    plan: EvaluationPlan, makers: Mapping[str, MethodMaker], args: argparse.Namespace
) -> list[ExampleResult]:
    """Results in the order of the plan, with a bar of progress; none for no conditions. Raises `Gena3DError` where no
    example could be made of any object."""
    from tqdm import tqdm

    from ..errors import Gena3DError
    from ..metrics.object_evaluation import evaluate, ordered

    if not plan.conditions:
        return []
    count = len(plan.entries) * len(plan.conditions)
    print(
        f"{len(plan.entries)} objects, {len(plan.conditions)} conditions, methods: {', '.join(makers)}", file=sys.stderr
    )
    made = evaluate(plan, makers, process_count(args, count))
    results = ordered(list(tqdm(made, total=count, disable=None, unit="example")), plan)
    if all(result.problem for result in results):
        raise Gena3DError(f"no example could be made of any object: {results[0].problem}")
    return results


def problem_lines(results: Sequence[ExampleResult]) -> list[str]:
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


def given_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """The options as JSON can hold them, for the record."""
    given = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    return {key: value for key, value in given.items() if key not in ("verb", "what", "debug", "json", "chart")}
