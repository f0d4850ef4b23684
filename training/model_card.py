"""`python -m training.model_card CHECKPOINT --table rows.json`: MODEL_CARD.md beside a checkpoint of ours.

What the checkpoint says of itself, and what `gena3d evaluate objects|scenes … --json rows.json` measured: no figure is
typed. Checkpoints are those of make_edge and of export_scene.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.errors import DataFormatError, Gena3DError
from gena3d_core.generative.hypotheses import CHANCE_CURVE
from gena3d_core.io.atomic import write_file
from gena3d_core.metrics.object_table import markdown_of
from gena3d_core.metrics.scene_table import scene_markdown_of
from gena3d_core.models.scene_flow import SceneFlow

from .recipes import make_recipe

CARD = "MODEL_CARD.md"
SHOWN = ("iou", "chamfer", "f1", "f2", "unseen_error", "free_space_violation", "observed_coverage", "ece", "auroc")
"""Figures that the card's tables have, of those in the rows."""
LIMITS = """\
- Shape of one object at a time, stage 1 only: occupancy on a 64³ grid around the object, a surface between its voxels.
  Parts thinner than a voxel come out a voxel wide or not at all. Colours come from the views, not from this model.
- Trained on simulated views of small household objects and made-up shapes, standing upright or lying on a plane; other
  things (people, plants, furniture as a whole, transparent and mirroring objects) are foreign to it.
- What no view saw is imagined. Draw several hypotheses and read the confidence before a robot reaches behind an object.
"""


SCENE_LIMITS = """\
- From one picture with masks, without depth or camera: objects together, in units of the largest, upright, turned as
  the picture sees them; metres come from whatever else is known. Stage 1 only: occupancy on a 64³ grid for each object.
- Trained on simulated table scenes of two to seven small household objects and made-up shapes. Rooms, furniture and
  outdoor scenes are foreign to it; so are pictures from straight above or from below the table.
- Trained for minutes on a CPU: places are better than shapes. With depth or posed views, mode `objects` is better.
"""


def scene_card(bundle: ModelBundle, table: Mapping[str, Any] | None) -> str:
    """Text of the card of a checkpoint of scenes; table: content of the JSON of `gena3d evaluate scenes`, or None."""
    facts = bundle.metadata
    try:
        data, settings = facts["data"], facts["settings"]
        lines = [
            "# The edge checkpoint of gena3d for scenes",
            "",
            "A small SceneGen: from one picture with the masks of its objects to all of them and their layout, on a",
            "CPU. Grown by `training/` of this package from the edge checkpoint, whose files it needs beside it.",
            "",
            "| | |",
            "|---|---|",
            f"| licence | {facts['license']} |",
            f"| networks, with those of the base | {_sizes(bundle)} |",
            f"| data | {data['examples']} pictures with a query asset, of {data['scenes']} scenes |",
            f"| training | {facts['step']} steps, {facts['hours']} h |",
            f"| held-out scenes of the training split | flow loss {facts['held_out_flow']:.4f}, "
            f"translation error {facts['held_out_translation_error']:.3f} of the query's size |",
            f"| made by | `python -m training.train {facts['recipe']} {_changed(facts['recipe'], settings)}`, "
            "`python -m training.export_scene` |",
            *([f"| before that | {facts['history']} |"] if "history" in facts else []),
            f"| at commit | {facts['commit']} |",
            "",
            "## Limits",
            "",
            SCENE_LIMITS,
        ]
    except KeyError as error:
        raise DataFormatError(f"{bundle.source}: its metadata lacks {error}: was it made by export_scene?") from error
    if table is not None:
        given = table["arguments"]
        lines += [
            "## Measured",
            "",
            f"{len(table['scenes'])} scenes of the split '{given['split']}', which were not used for training or "
            f"tuning; {given['views']} picture(s) of each, seed {given['seed']}.",
            "",
            scene_markdown_of(table["rows"]),
        ]
    return "\n".join(lines).rstrip() + "\n"


def _changed(recipe: str, settings: Mapping[str, Any]) -> str:
    """`key=value` of the settings that are not the recipe's own; places on a disk are left out."""
    own = asdict(make_recipe(recipe, ["data=.", "out=."]))
    changed = {k: v for k, v in settings.items() if k in own and _plain(own[k]) != _plain(v)}
    return " ".join(
        f"{key}={value}" for key, value in changed.items() if key not in ("data", "out", "start", "threads")
    )


def _plain(value: Any) -> Any:
    """Tuples as JSON gives them back."""
    return list(value) if isinstance(value, tuple) else value


def card(bundle: ModelBundle, table: Mapping[str, Any] | None) -> str:
    """Text of the card; table: content of the JSON of `gena3d evaluate objects`, or None."""
    facts = bundle.metadata
    try:
        flow, vae, data = facts["flow"], facts["vae"], facts["data"]
        kinds = _kinds(data["objects_by_category"])
        lines = [
            "# The edge checkpoint of gena3d",
            "",
            "A small GENA3D: from one or more posed views of an object and its partial point cloud to the whole",
            "object, on a CPU. Made by `training/` of this package, from random weights.",
            "",
            "| | |",
            "|---|---|",
            f"| licence | {facts['license']} |",
            f"| networks | {_sizes(bundle)} |",
            f"| data | {data['examples']} examples of {data['objects']} objects: {kinds} |",
            f"| training | VAE: {vae['step']} steps, {vae['hours']} h, flow: {flow['step']} steps, {flow['hours']} h |",
            f"| held-out objects of the training split | VAE IoU {vae['iou']:.3f}, "
            f"flow loss {flow['held_out_loss']:.4f} |",
            f"| temperature of its logits | {facts['occupancy_temperature']} |",
            f"| slope and intercept of its chances | {facts.get(CHANCE_CURVE, 'none')} |",
            f"| made by | `{facts['command']}` |",
            f"| at commit | {facts['commit']} |",
            "",
            "## Limits",
            "",
            LIMITS,
        ]
    except KeyError as error:
        raise DataFormatError(f"{bundle.source}: its metadata lacks {error}: was it made by make_edge?") from error
    if table is not None:
        lines += _tables(table)
    return "\n".join(lines).rstrip() + "\n"


def _kinds(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _sizes(bundle: ModelBundle) -> str:
    counts = {role: sum(p.numel() for p in module.parameters()) for role, module in bundle.modules.items()}
    parts = ", ".join(f"{role} {count / 1e6:.1f} M" for role, count in counts.items())
    return f"{sum(counts.values()) / 1e6:.1f} M parameters: {parts}"


def _tables(table: Mapping[str, Any]) -> list[str]:
    given = table["arguments"]
    objects, kinds = len(table["objects"]), {"all": table["rows"], **table["groups"]}
    lines = [
        "## Measured",
        "",
        f"{objects} objects of the split '{given['split'] or 'val'}', which were not used for training or tuning; "
        f"{given['hypotheses']} hypotheses, seed {given['seed']}. Distances in % of the longest side.",
        "",
    ]
    for kind, rows in kinds.items():
        shown = [{key: row.get(key) for key in ("method", "views", "occlusion", "objects", *SHOWN)} for row in rows]
        lines += [f"{kind} objects", "", markdown_of(shown), ""]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed with one line on stderr, 2 wrong arguments."""
    parser = argparse.ArgumentParser(prog="python -m training.model_card", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder that make_edge or export_scene wrote")
    parser.add_argument("--table", type=Path, help="JSON of `gena3d evaluate objects`, or `scenes`")
    options = parser.parse_args(arguments)
    try:
        bundle = open_checkpoint(options.checkpoint)
        scenes = isinstance(bundle.modules.get("sparse_structure_flow"), SceneFlow)
        kind = "evaluate scenes" if scenes else "evaluate objects"
        table = None if options.table is None else _read(options.table, kind)
        text = (scene_card if scenes else card)(bundle, table)
        write_file(options.checkpoint / CARD, text.encode())
    except Gena3DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(options.checkpoint / CARD)
    return 0


def _read(file: Path, kind: str) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{file}: no table: {error}") from error
    if content.get("command") != kind:
        raise DataFormatError(f"{file}: is not of `gena3d {kind}`")
    return content


if __name__ == "__main__":
    sys.exit(main())
