"""`gena3d evaluate robustness DATA`: how completions get worse as masks, poses and depth do."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, add_generator_arguments, integer
from .object_methods import (
    add_data_argument,
    add_object_arguments,
    chosen_objects,
    evaluation_results,
    given_arguments,
    method_makers,
    problem_lines,
    shares,
)

if TYPE_CHECKING:
    from ..metrics.object_evaluation import ExampleResult, MethodMaker
    from ..metrics.robustness import LevelRow

CHARTED = ("chamfer", 100.0, "Chamfer distance, % of the longest side")
"""Key of the rows, factor, words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    add_data_argument(parser)
    parser.add_argument("--views", type=integer(1), default=2, metavar="N", help="number of views (default: 2)")
    parser.add_argument(
        "--occlusion", type=shares, default=(0.2,), metavar="0.2", help="hidden share of the surface (default: 0.2)"
    )
    parser.add_argument("--protocol", default="surface", metavar="NAME", help="surface (GENA3D's masks) or objects")
    parser.add_argument(
        "--setting", action="append", default=[], metavar="KEY=VALUE", help="change a setting of all examples"
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME[=LEVELS]",
        help="mask, position, rotation, depth_noise, holes, blind_views or cloud, such as mask=-2,0,2 (default: all)",
    )
    add_object_arguments(parser, "observed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the curves (default: FILE of --json as .png)")
    add_generator_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Evaluate every level of every variation, print the table, write JSON and chart if asked."""
    from ..errors import InputError
    from ..io.object_dataset import ObjectDataset
    from ..metrics.object_evaluation import EvaluationPlan
    from ..metrics.object_protocol import Condition, example_settings
    from ..metrics.object_table import make_rows
    from ..metrics.robustness import level_rows, make_levels, markdown
    from .stages import checked_device

    args.device = checked_device(args.device)
    if len(args.occlusion) != 1:
        raise UsageError(f"--occlusion takes one share here, got {len(args.occlusion)}")
    dataset = ObjectDataset.open(args.data)
    entries = chosen_objects(dataset, args)
    makers = method_makers(dataset, args)
    base = Condition(args.views, args.occlusion[0])
    try:
        levels = make_levels(_chosen_levels(args.vary), base)
        for level in levels:
            example_settings(args.protocol, level.condition, args.setting)
    except InputError as error:
        raise UsageError(str(error)) from error
    cloudless = _without_cloud(makers) if any(level.drops_cloud for level in levels) else {}
    conditions = tuple(dict.fromkeys(level.condition for level in levels if not level.drops_cloud))
    draws = args.hypotheses, args.draws, args.seed
    plan = EvaluationPlan(args.data, entries, conditions, args.protocol, tuple(args.setting), *draws, sets=False)
    results = evaluation_results(plan, makers, args)
    dropped: list[ExampleResult] = []
    if cloudless:
        own = replace(plan, conditions=(base,))
        dropped = evaluation_results(own, cloudless, args)
    rows = level_rows(levels, make_rows(results), make_rows(dropped))
    print(markdown(rows))
    for line in problem_lines([*results, *dropped]):
        print(line)
    _write(args, rows, [entry.id for entry in entries], problem_lines([*results, *dropped]))
    return 0


def _chosen_levels(texts: Sequence[str]) -> dict[str, Sequence[float]]:
    """NAME or NAME=LEVELS -> levels; all variations for none. Raises `UsageError` for what is no number."""
    from ..metrics.robustness import VARIATIONS

    chosen: dict[str, Sequence[float]] = {}
    for text in texts or list(VARIATIONS):
        name, equals, levels = text.partition("=")
        try:
            given = tuple(float(part) for part in levels.split(",")) if equals else None
        except ValueError as error:
            raise UsageError(f"--vary '{text}': levels are numbers between commas") from error
        chosen[name] = given if given is not None else VARIATIONS[name].levels if name in VARIATIONS else ()
    return chosen


def _without_cloud(makers: Mapping[str, MethodMaker]) -> dict[str, MethodMaker]:
    """The generators with a checkpoint, whose network shall not see the partial cloud; those without images need it."""
    from ..errors import InputError
    from ..generation import CHECKPOINT_GENERATORS

    found: dict[str, Any] = {}
    for label, make in makers.items():
        if isinstance(make, partial) and make.args and make.args[0] in CHECKPOINT_GENERATORS:
            cloudless = partial(make.func, *make.args, **{**make.keywords, "use_cloud": False})
            try:
                cloudless()
            except InputError as error:
                print(f"{label} is left out where the cloud is dropped: {error}", file=sys.stderr)
                continue
            found[label] = cloudless
    return found


def _write(args: argparse.Namespace, rows: Sequence[LevelRow], objects: list[str], problems: list[str]) -> None:
    from .. import __version__
    from ..io.atomic import write_file
    from ..viz.curves import png_bytes

    if args.json:
        content = {
            "schema": 1,
            "command": "evaluate robustness",
            "arguments": given_arguments(args),
            "version": __version__,
            "rows": [row.as_json() for row in rows],
            "objects": objects,
            "problems": problems,
        }
        write_file(args.json, json.dumps(content, indent=1).encode())
        print(f"wrote {args.json}")
    chart = args.chart or (args.json.with_suffix(".png") if args.json else None)
    if chart:
        write_file(chart, png_bytes(_chart(rows)))
        print(f"wrote {chart}")


def _chart(rows: Sequence[LevelRow]) -> Any:
    """A panel for each variation with a curve for each method."""
    from ..metrics.robustness import VARIATIONS
    from ..viz.curves import Curve, Panel, curve_sheet

    key, factor, words = CHARTED
    panels = []
    for name in dict.fromkeys(row.level.variation for row in rows):
        own = [row for row in rows if row.level.variation == name]
        curves = []
        for method in dict.fromkeys(row.row.method for row in own):
            points = [row for row in own if row.row.method == method]
            curves.append(
                Curve(
                    method,
                    [row.level.value for row in points],
                    [factor * row.row.means[key] for row in points],
                    [factor * row.row.errors[key] for row in points],
                )
            )
        panels.append(Panel(VARIATIONS[name].title, VARIATIONS[name].unit, curves))
    return curve_sheet(panels, words)
