"""Types of command-line arguments and the check of names, shared by the verbs."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..types import BoxPrompt, PointPrompt

P = TypeVar("P")


class UsageError(Exception):
    """The arguments are wrong in a way that only shows once a verb runs; exit code 2."""


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Argument type: an integer from `low` to `high` (inclusive; None: no limit)."""
    limits = f"from {low} to {high}" if high is not None else f"of at least {low}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number {limits}")
        return value

    return parse


def integers(low: int = 0) -> Callable[[str], tuple[int, ...]]:
    """Argument type: comma-separated distinct integers, each at least `low`."""
    one = integer(low)

    def parse(text: str) -> tuple[int, ...]:
        values = tuple(one(part) for part in text.split(","))
        if len(set(values)) != len(values):
            raise argparse.ArgumentTypeError(f"'{text}' names a number twice")
        return values

    return parse


BOXES = '[{"view": "000204", "box_xyxy": [x_min, y_min, x_max, y_max], "label": "mug"}, ...]'
POINTS = '[{"view": "000204", "points_xy": [[x, y], ...], "on_object": [true, ...], "label": "mug"}, ...]'


def boxes(text: str) -> tuple[BoxPrompt, ...]:
    """Argument type: box prompts as JSON text or the name of a JSON file, as in `BOXES`; a number may name the view."""
    return _prompts(text, _box, f"boxes must be {BOXES}")


def points(text: str) -> tuple[PointPrompt, ...]:
    """Argument type: clicks on objects as JSON text or the name of a JSON file, as in `POINTS`, one entry an object.

    `on_object` says of each point whether it is on the object; without it, all are.
    """
    return _prompts(text, _points, f"points must be {POINTS}")


def _prompts(text: str, parse: Callable[[dict], P], wanted: str) -> tuple[P, ...]:
    try:
        content = text if text.lstrip().startswith(("[", "{")) else Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' is neither JSON nor a readable file ({error})") from error
    try:
        entries = json.loads(content)
        return tuple(parse(entry) for entry in ([entries] if isinstance(entries, dict) else entries))
    except (KeyError, TypeError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{wanted} ({type(error).__name__}: {error})") from error


def _box(entry: dict) -> BoxPrompt:
    from ..types import BoxPrompt

    x_min, y_min, x_max, y_max = (float(value) for value in entry["box_xyxy"])
    if not (x_min <= x_max and y_min <= y_max):
        raise ValueError(f"box {entry['box_xyxy']} is empty or holds NaN")
    return BoxPrompt(_view(entry), (x_min, y_min, x_max, y_max), str(entry.get("label", "")))


def _points(entry: dict) -> PointPrompt:
    from ..types import PointPrompt

    pixels = tuple((float(x), float(y)) for x, y in entry["points_xy"])
    flags = tuple(bool(flag) for flag in entry.get("on_object", ()))
    return PointPrompt(_view(entry), pixels, flags, str(entry.get("label", "")))


def _view(entry: dict) -> str:
    view = entry["view"]
    return f"{view:06d}" if isinstance(view, int) else str(view)


def known_size(text: str) -> tuple[int, float]:
    """Argument type: `ID=METRES`, the longest side of an object."""
    id, _, size = text.partition("=")
    try:
        found = int(id), float(size)
    except ValueError:
        found = -1, math.nan
    if found[0] < 0 or not 0 < found[1] < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not an object's number and its longest side in metres: 3=0.095")
    return found


def check_name(option: str, name: str, known: Collection[str]) -> None:
    """Raise `UsageError` unless `name` is among `known`."""
    if name not in known:
        raise UsageError(f"{option} '{name}' is unknown; choose one of: {', '.join(sorted(known))}")


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose the implementations of the pipeline's stages."""
    group = parser.add_argument_group("stages")
    group.add_argument(
        "--stereo",
        default="auto",
        metavar="NAME",
        help="depth_camera, plane_sweep, sfm, pi3x, pi3, vggt, or auto (default: the best here, see its licence)",
    )
    group.add_argument(
        "--segmenter",
        default="tabletop",
        metavar="NAME",
        help="finds the objects: tabletop (default), sam, sam2, sam3, grounded (by words), auto",
    )
    group.add_argument(
        "--segmenter-checkpoint", metavar="PATH", help="its weights, where they are not in their usual place"
    )
    group.add_argument(
        "--amodal",
        default="none",
        metavar="NAME",
        help="paints hidden parts into the views: none (default: masks only), oaac, flux, pix2gestalt, auto",
    )
    group.add_argument(
        "--amodal-checkpoint", metavar="DIR", help="its weights, where they are not in their usual place"
    )
    group.add_argument("--amodal-steps", type=integer(1, 1000), metavar="N", help="its sampling steps")
    group.add_argument(
        "--generator",
        default="auto",
        metavar="NAME",
        help="completes them; observed: only what was seen; auto (default): edge, which comes with the package",
    )
    group.add_argument(
        "--device", default="auto", metavar="DEVICE", help="torch device (default: auto, the accelerator if any)"
    )
    group.add_argument("--no-refine", action="store_true", help="trust the recorded poses as they are")
    group.add_argument(
        "--max-faces", type=integer(4), default=20_000, metavar="N", help="face budget of each mesh (default: 20000)"
    )
    group.add_argument("--watertight", action="store_true", help="close every mesh, also where nothing was seen")
    add_generator_arguments(parser)


AMODAL_OPTIONS = ("checkpoint", "steps")
"""Arguments `--amodal-...` that go to a view completer with a network, under these names, where they are given."""
GENERATOR_OPTIONS = (
    "checkpoint",
    "image_encoder",
    "geometry_encoder",
    "max_assets",
    "allow_download",
    "steps",
    "guidance_strength",
    "method",
    "fusion",
    "detail",
    "dtype",
    "max_memory",
)
"""Arguments that go to a generator with a checkpoint, under their own names, where they are given."""


def add_generator_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of generators with a checkpoint."""
    group = parser.add_argument_group("generators with a checkpoint")
    group.add_argument("--checkpoint", metavar="NAME|DIR", help="weights: a family, folder, file or hub repository")
    group.add_argument("--image-encoder", metavar="NAME|FILE", help="of checkpoints that come without one")
    group.add_argument("--geometry-encoder", metavar="DIR", help="of checkpoints of scenes that come without one")
    group.add_argument(
        "--max-assets", type=integer(2, 64), metavar="N", help="objects of a scene generated together (default: 16)"
    )
    group.add_argument(
        "--download",
        dest="allow_download",
        action="store_const",
        const=True,
        help="fetch what the checkpoint lacks from the Hugging Face hub",
    )
    group.add_argument("--steps", type=integer(1, 1000), metavar="N", help="sampling steps of each stage")
    group.add_argument("--guidance", dest="guidance_strength", type=float, metavar="W", help="0: without guidance")
    group.add_argument("--method", choices=["euler", "heun"], help="integration (default: euler)")
    group.add_argument(
        "--fusion",
        choices=["view_wise", "concatenated", "stochastic", "multidiffusion"],
        help="how several views condition the generator (default: the checkpoint's)",
    )
    group.add_argument(
        "--detail", choices=["auto", "structure", "full"], help="structure: stage 1 only (default: auto, all there is)"
    )
    group.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the matrix products")
    group.add_argument("--max-memory", metavar="6GB", help="work on fewer objects at once so that they fit")
