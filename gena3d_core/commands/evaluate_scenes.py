"""`gena3d evaluate scenes DATA`: scenes imagined from pictures against their truth, beside simpler ways."""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, check_name, integer
from .image_networks import add_network_arguments, given_networks
from .object_methods import given_arguments, process_count

if TYPE_CHECKING:
    from ..metrics.scene_evaluation import SceneOutcome, ScenePlan
    from ..metrics.scene_methods import SceneMethodMaker
    from ..metrics.scene_table import SceneResult

CHECKPOINT, BASE = "edge_scene", "edge"
METHODS: dict[str, str] = {
    "scene": "SceneGen: all assets together, with their places",
    "alone": "each asset by itself, placed where its mask meets the table, by the true camera",
    "alone_depth": "the same, placed at the true depth of its mask",
    "no_scene_attention": "SceneGen whose assets attend to themselves only",
    "no_geometry": "SceneGen without F_geo",
    "no_scene_image": "SceneGen without F_global_V",
    "no_mask": "SceneGen without F_mask",
}
"""Method -> what it is."""
DEFAULT_METHODS = ("scene", "alone", "no_scene_attention")
COMPARED = ("cd_s", "fs_s", "iou_b")
"""Figures in which `scene` is compared with the others, scene by scene."""
NETWORKS = ("lpips", "inception", "clip", "dino")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the sub-verb."""
    parser.add_argument("data", type=Path, metavar="DATA", help="folder of layouts (JSON), or one with scenes/ in it")
    parser.add_argument("--objects", type=Path, metavar="DIR", help="the objects in them (default: objects/ near DATA)")
    parser.add_argument("--split", default="val", metavar="NAME", help="(default: val)")
    parser.add_argument("--scenes", metavar="ID,ID", help="only these")
    parser.add_argument("--limit", type=integer(1), metavar="N", help="a fixed choice of N scenes")
    parser.add_argument("--views", type=integer(1), default=1, metavar="K", help="pictures of each scene (default: 1)")
    methods = parser.add_argument_group("methods")
    methods.add_argument(
        "--methods",
        default=",".join(DEFAULT_METHODS),
        metavar="NAME,NAME",
        help=f"of {', '.join(METHODS)} (default: %(default)s); a part left out here was there in training",
    )
    methods.add_argument(
        "--checkpoint", default=CHECKPOINT, metavar="NAME|DIR", help="of scenes (default: %(default)s)"
    )
    methods.add_argument("--base", default=BASE, metavar="NAME|DIR", help="of single objects (default: %(default)s)")
    methods.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="LABEL=CHECKPOINT",
        help="another checkpoint of scenes, such as one that was trained without a part, as a row LABEL",
    )
    methods.add_argument("--no-contacts", action="store_true", help="no second rows, with contacts resolved")
    methods.add_argument("--device", default="cpu", metavar="DEVICE", help="torch device of the networks")
    methods.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the matrix products")
    methods.add_argument(
        "--hypotheses", type=integer(1, 64), default=4, metavar="N", help="samples of each scene (default: 4)"
    )
    methods.add_argument("--steps", type=integer(1, 1000), metavar="N", help="sampling steps of SceneGen")
    methods.add_argument("--guidance", dest="guidance_strength", type=float, metavar="W", help="0: without guidance")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="of pictures and samples (default: 0)")
    parser.add_argument("--jobs", type=integer(1), metavar="N", help="processes (default: one a processor, 1 on a GPU)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows to FILE")
    add_network_arguments(parser, NETWORKS)


def run(args: argparse.Namespace) -> int:
    """Evaluate every method, print tables, write JSON if asked."""
    from ..metrics.scene_table import scene_markdown, scene_rows
    from .stages import checked_device

    args.device = checked_device(args.device)
    makers = _makers(args)
    plan = _plan(args)
    outcomes = _outcomes(plan, makers, args)
    results = [result for outcome in outcomes for result in outcome.results]
    rows = scene_rows(_by_method(results))
    print(scene_markdown(rows))
    differences = _differences(results)
    for line in (*_difference_lines(differences), *_problem_lines(outcomes)):
        print(line)
    if args.json:
        _write(args, plan, [row.as_json() for row in rows], differences, _problem_lines(outcomes))
    return 0


def _plan(args: argparse.Namespace) -> ScenePlan:
    from ..errors import InputError
    from ..io.object_dataset import TABLE
    from ..io.scene_layouts import open_layout_folder
    from ..metrics.scene_evaluation import ScenePlan

    layouts = args.data / "scenes" if (args.data / "scenes").is_dir() else args.data
    near = (args.data / "objects", args.data.parent / "objects") if args.objects is None else (args.objects,)
    objects = next((folder for folder in near if (folder / TABLE).is_file()), None)
    if objects is None:
        raise UsageError(f"no {TABLE} in {' or '.join(map(str, near))}: name the folder of objects with --objects")
    try:
        ids = list(open_layout_folder(layouts, args.split).ids())
    except InputError as error:
        raise UsageError(str(error)) from error
    if args.scenes:
        wanted = args.scenes.split(",")
        for id in wanted:
            check_name("--scenes", id, ids)
        ids = [id for id in ids if id in wanted]
    if args.limit is not None:
        # Mixed by a hash of the id: the choice stays as it is, and grows with N.
        kept = set(sorted(ids, key=lambda id: (zlib.crc32(id.encode()), id))[: args.limit])
        ids = [id for id in ids if id in kept]
    contacts = not args.no_contacts
    return ScenePlan(layouts, args.split, objects, tuple(ids), args.views, args.seed, contacts, given_networks(args))


def _makers(args: argparse.Namespace) -> dict[str, SceneMethodMaker]:
    """Label -> maker; each is opened once here, so that what is wrong shows at once."""
    from ..metrics.scene_methods import SceneNetworkOptions, alone_scene, joint_scene

    own = SceneNetworkOptions(args.device, args.dtype, args.steps, args.guidance_strength, args.hypotheses)
    # Steps and guidance that suit one network may not suit the other, which has defaults of its own.
    base = SceneNetworkOptions(args.device, args.dtype, hypotheses=args.hypotheses)
    makers: dict[str, Any] = {}
    for name in args.methods.split(","):
        check_name("--methods", name, METHODS)
        if name in ("alone", "alone_depth"):
            makers[name] = partial(alone_scene, args.base, "table" if name == "alone" else "sensor", base)
        else:
            makers[name] = partial(joint_scene, args.checkpoint, "" if name == "scene" else name, own)
    for text in args.compare:
        label, equals, checkpoint = text.partition("=")
        if not (label and equals and checkpoint) or label in makers:
            raise UsageError(f"--compare '{text}' must be LABEL=CHECKPOINT with a label of its own")
        makers[label] = partial(joint_scene, checkpoint, "", own)
    for make in makers.values():
        make()
    return makers


def _outcomes(plan: ScenePlan, makers: dict[str, SceneMethodMaker], args: argparse.Namespace) -> list[SceneOutcome]:
    """In the order of the plan. Raises `Gena3DError` where no scene could be made."""
    from tqdm import tqdm

    from ..errors import Gena3DError
    from ..metrics.scene_evaluation import evaluate_scenes

    count = len(plan.ids)
    print(f"{count} scenes, methods: {', '.join(makers)}", file=sys.stderr)
    made = evaluate_scenes(plan, makers, process_count(args, count))
    found = {outcome.scene: outcome for outcome in tqdm(made, total=count, disable=None, unit="scene")}
    outcomes = [found[id] for id in plan.ids]
    if all(outcome.problem for outcome in outcomes):
        raise Gena3DError(f"no scene could be made: {outcomes[0].problem}")
    return outcomes


def _by_method(results: Sequence[SceneResult]) -> list[SceneResult]:
    """Methods in the order of the first scene."""
    order = {name: place for place, name in enumerate(dict.fromkeys(result.method for result in results))}
    return sorted(results, key=lambda result: order[result.method])


def _differences(results: Sequence[SceneResult]) -> list[dict[str, Any]]:
    """How far `scene` is from each other method as it came: means over the same scenes, with 95 % intervals."""
    from ..metrics.scene_table import paired_difference
    from ..metrics.summaries import CONFIDENCE, finite_or_none

    names = list(dict.fromkeys(result.method for result in results))
    found = []
    for other in names if "scene" in names else []:
        if other != "scene":
            for figure in COMPARED:
                mean, error = paired_difference(results, "scene", other, figure)
                values = {"difference": mean, "ci95": CONFIDENCE * error}
                found.append({"other": other, "figure": figure, **{k: finite_or_none(v) for k, v in values.items()}})
    return found


def _difference_lines(differences: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for other in dict.fromkeys(item["other"] for item in differences):
        parts = []
        for item in (item for item in differences if item["other"] == other):
            value, spread = item["difference"], item["ci95"]
            shown = "unknown" if value is None else f"{value:+.4f}" + ("" if spread is None else f" ± {spread:.4f}")
            parts.append(f"{item['figure']} {shown}")
        lines.append(f"scene minus {other}, on the same scenes: {', '.join(parts)}")
    return lines


def _problem_lines(outcomes: Sequence[SceneOutcome]) -> list[str]:
    """What went amiss: scenes without example, and failures of each method, with the first reason."""
    lines = []
    if without := [outcome for outcome in outcomes if outcome.problem]:
        first = without[0]
        lines.append(f"{len(without)} of {len(outcomes)} scenes could not be made ({first.scene}: {first.problem})")
    failed: dict[str, list[str]] = {}
    for result in (result for outcome in outcomes for result in outcome.results):
        if result.problem:
            failed.setdefault(result.method, []).append(f"{result.scene}: {result.problem}")
    return lines + [
        f"{method} failed {len(reasons)} times, which counts as an empty scene ({reasons[0]})"
        for method, reasons in failed.items()
    ]


def _write(
    args: argparse.Namespace,
    plan: ScenePlan,
    rows: list[dict[str, Any]],
    differences: list[dict[str, Any]],
    problems: list[str],
) -> None:
    from .. import __version__
    from ..io.atomic import write_file

    content = {
        "schema": 1,
        "command": "evaluate scenes",
        "arguments": given_arguments(args),
        "version": __version__,
        "rows": rows,
        "differences": differences,
        "scenes": list(plan.ids),
        "problems": problems,
    }
    write_file(args.json, json.dumps(content, indent=1).encode())
    print(f"wrote {args.json}")
