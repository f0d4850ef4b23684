"""`gena3d evaluate objects DATA`: completions of single objects against their true shapes, beside baselines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import UsageError, add_generator_arguments, integers
from .image_networks import add_network_arguments, given_networks
from .object_methods import (
    CATEGORIES,
    DEFAULT_BASELINES,
    add_data_argument,
    add_object_arguments,
    chosen_objects,
    evaluation_results,
    given_arguments,
    method_makers,
    problem_lines,
    process_count,
    shares,
)

if TYPE_CHECKING:
    from ..metrics.object_evaluation import EvaluationPlan, ExampleResult
    from ..metrics.object_table import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add_data_argument(parser)
    parser.add_argument("--views", type=integers(1), default=(1, 2, 4), metavar="1,2,4", help="numbers of views")
    parser.add_argument(
        "--occlusion", type=shares, default=(0.2, 0.5, 0.7), metavar="0.2,0.5,0.7", help="hidden shares of the surface"
    )
    parser.add_argument("--protocol", default="surface", metavar="NAME", help="surface (GENA3D's masks) or objects")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="KEY=VALUE", help="change a setting of the examples"
    )
    add_object_arguments(parser, ",".join(DEFAULT_BASELINES))
    parser.add_argument("--no-sets", action="store_true", help="leave out MMD and COV, which take their time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    add_network_arguments(parser)
    add_generator_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate every method under every condition, print tables, write JSON if asked."""
    from ..errors import InputError
    from ..io.object_dataset import ObjectDataset
    from ..metrics.object_evaluation import EvaluationPlan
    from ..metrics.object_protocol import Condition, example_settings
    from .stages import checked_device

    args.device = checked_device(args.device)
    dataset = ObjectDataset.open(args.data)
    entries = chosen_objects(dataset, args)
    makers = method_makers(dataset, args)
    conditions = tuple(Condition(views, share) for share in args.occlusion for views in args.views)
    try:
        for condition in conditions:
            example_settings(args.protocol, condition, args.setting)
    except InputError as error:
        raise UsageError(str(error)) from error
    networks = given_networks(args)
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
        sets=not args.no_sets,
    )
    results = evaluation_results(plan, makers, args)
    tables = _tables(results, args, process_count(args, len(results)))
    for group, rows in tables.items():
        _print_table(group, rows, len(tables) > 1)
    for line in problem_lines(results):
        print(line)
    if args.json:
        _write(args, plan, tables, results)
    return 0


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


def _write(
    args: argparse.Namespace,
    plan: EvaluationPlan,
    tables: dict[str, list[Row]],
    results: Sequence[ExampleResult],
) -> None:
    from .. import __version__
    from ..io.atomic import write_file

    main, *others = tables
    content = {
        "schema": 1,
        "command": "evaluate objects",
        "arguments": given_arguments(args),
        "version": __version__,
        "rows": [row.as_json() for row in tables[main]],
        "groups": {name: [row.as_json() for row in tables[name]] for name in others},
        "objects": [entry.id for entry in plan.entries],
        "problems": problem_lines(results),
    }
    write_file(args.json, json.dumps(content, indent=1).encode())
    print(f"wrote {args.json}")
