"""`gena3d reconstruct INPUT --out DIR`: a recording in, object meshes and poses out."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import UsageError, add_pipeline_arguments, boxes, integer, integers, known_size, points

if TYPE_CHECKING:
    from ..io import Recording
    from ..types import Scene

DEFAULT_VIEWS = 8
HYPOTHESES = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "input",
        nargs="+",
        type=Path,
        metavar="INPUT",
        help="RGB-D folder, transforms.json, rosbag2 or .mcap; or pictures, of one scene with masks beside them: a "
        "folder with image.jpg, mask_00.png, mask_01.png, ... each",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the result")
    parser.add_argument(
        "--mode",
        choices=["auto", "objects", "scene"],
        default="auto",
        help="objects: each by itself, placed by measured points; scene: all together with their layout; auto "
        "(default): objects where cameras are posed, scene for pictures without",
    )
    parser.add_argument(
        "--known-size",
        type=known_size,
        action="append",
        default=[],
        metavar="ID=METRES",
        help="longest side of an object, for pictures: gives the scene its scale; may be repeated",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--frames", type=integers(), metavar="0,478,204", help="use exactly these frames")
    which.add_argument(
        "--views",
        type=integer(1, 20),
        default=DEFAULT_VIEWS,
        metavar="N",
        help=f"use the N most informative views, 1 to 20 (default: {DEFAULT_VIEWS})",
    )
    parser.add_argument("--boxes", type=boxes, default=(), metavar="JSON", help="boxes around objects: JSON or a file")
    parser.add_argument("--points", type=points, default=(), metavar="JSON", help="clicks on objects: JSON or a file")
    parser.add_argument("--prompt", action="append", default=[], metavar="TEXT", help="name an object; may be repeated")
    parser.add_argument("--seed", type=integer(0), default=0, metavar="N", help="random seed (default: 0)")
    parser.add_argument(
        "--hypotheses", type=integer(1, 64), metavar="N", help="samples drawn of each object or scene (default: 4)"
    )
    parser.add_argument("--no-overview", action="store_true", help="do not draw overview.png")
    bag = parser.add_argument_group("rosbag2 input (found out when not given)")
    bag.add_argument("--color-topic", default="", metavar="TOPIC")
    bag.add_argument("--depth-topic", default="", metavar="TOPIC")
    bag.add_argument("--camera-info-topic", default="", metavar="TOPIC")
    bag.add_argument("--world-frame", default="", metavar="FRAME", help="frame of the result (default: root of TF)")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Reconstruct, save, and print what was found."""
    from ..io import is_photo_scene, is_plain_images, save_scene
    from .stages import ProgressBar, make_pipeline

    if args.mode != "objects" and (
        is_photo_scene(args.input) or (args.mode == "scene" and is_plain_images(args.input))
    ):
        return _run_photos(args)
    load = _reader(args)
    if args.known_size:
        raise UsageError("--known-size is for pictures with masks: recordings have their own metres")
    # Torch takes seconds to import: only once the input is known to be there. A recording's cameras are posed.
    pipeline = make_pipeline(args, "objects" if args.mode == "auto" else args.mode)
    recording = load()
    with ProgressBar() as progress:
        result = pipeline.run(
            recording.views,
            boxes=args.boxes,
            points=args.points,
            text_prompts=args.prompt,
            hypotheses=args.hypotheses or HYPOTHESES,
            seed=args.seed,
            frame_id=recording.frame_id,
            progress=progress,
        )
    pictures = {}
    if not args.no_overview:
        from ..viz import overview

        pictures["overview"] = overview(result)
    save_scene(result, args.out, pictures)
    _report(result.scene, args.out)
    return 0


def _run_photos(args: argparse.Namespace) -> int:
    """The same for pictures without cameras, with masks beside them."""
    from ..io import load_photo_scene, save_scene
    from ..views.scene_masks import checked_scene

    if args.boxes or args.prompt or args.frames:
        raise UsageError("--frames, --boxes and --prompt are for recordings: pictures without cameras come with masks")
    photos = load_photo_scene(args.input)
    checked = checked_scene(photos.ids, photos.labels, photos.images, photos.masks)
    from .stages import ProgressBar, make_pipeline

    pipeline = make_pipeline(args, "scene")
    with ProgressBar() as progress:
        scene = pipeline.run_photos(
            checked.scene,
            sizes_m=dict(args.known_size),
            hypotheses=args.hypotheses or HYPOTHESES,
            seed=args.seed,
            progress=progress,
        )
    scene = replace(scene, view_names=photos.names, warnings=(*checked.warnings, *scene.warnings))
    pictures = {}
    if not args.no_overview:
        from ..viz import scene_sheet

        pictures["overview"] = scene_sheet(checked.scene, scene)
    save_scene(scene, args.out, pictures)
    _report(scene, args.out)
    return 0


def _reader(args: argparse.Namespace) -> Callable[[], Recording]:
    """What will read the input; raises `UsageError` or `DataFormatError` at once for input that nothing reads."""
    from ..io import (
        BagOptions,
        Recording,
        check_input,
        is_photos,
        load_photos,
        load_recording,
        refuse_plain_images,
    )

    if is_photos(args.input):
        from ..stereo import NEED_POSES

        if args.stereo in NEED_POSES or (args.stereo == "auto" and not _finds_poses()):
            refuse_plain_images(args.input)
        if args.frames:
            raise UsageError("--frames numbers the frames of a recording; pictures are given by name")
        return lambda: Recording(load_photos(args.input, args.views))
    if len(args.input) > 1:
        raise UsageError(f"{len(args.input)} inputs were given; reconstruct takes one recording at a time")
    check_input(args.input[0])
    bag = BagOptions(args.color_topic, args.depth_topic, args.camera_info_topic, args.world_frame)
    return lambda: load_recording(args.input[0], args.frames, None if args.frames else args.views, bag)


def _finds_poses() -> bool:
    """Whether `auto` would have a matcher that finds poses; the weights themselves are checked later."""
    from importlib.util import find_spec

    from ..stereo import LEARNED
    from ..stereo.choice import weights_here

    return find_spec("pycolmap") is not None or any(weights_here(name) is not None for name in LEARNED)


def _report(scene: Scene, out: Path) -> None:
    for entry in scene.objects:
        factor, small, large = (100, "cm", "m") if scene.metric else (1, "units", "units")
        size = " x ".join(f"{factor * side:.{1 if scene.metric else 3}f}" for side in entry.size_m)
        position = ", ".join(f"{value:+.3f}" for value in entry.T_world_object[:3, 3])
        print(
            f"object {entry.id:<3} {entry.label or '-':<16} {size:>20} {small}   at ({position}) {large}   "
            f"score {entry.score:.2f}   {100 * entry.observed_fraction:3.0f} % seen"
        )
    stages = "  ".join(f"{stage} {seconds:.2f}" for stage, seconds in scene.timings_s.items())
    for warning in scene.warnings:
        print(f"warning: {warning}")
    views = len(scene.view_names)
    print(f"{len(scene.objects)} objects from {views} view{'s' * (views != 1)}; seconds: {stages}")
    print(f"wrote {out / 'scene.json'}")
