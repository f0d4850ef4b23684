"""From command-line options to a pipeline, and its progress to a bar. Imports torch: only for use inside `run`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from tqdm import tqdm

from ..device import default_device
from ..errors import InputError
from ..generation import AUTO, CHECKPOINT_GENERATORS, GENERATORS, SCENE_GENERATORS, chosen_generator
from ..pipeline import Pipeline, PipelineConfig
from ..segmentation import SEGMENTERS
from ..stereo import STEREO_MATCHERS
from ..view_completion import NONE, VIEW_COMPLETERS
from .arguments import AMODAL_OPTIONS, GENERATOR_OPTIONS, UsageError, check_name


def make_pipeline(args: argparse.Namespace, mode: str = "objects") -> Pipeline:
    """The pipeline that the options of `add_pipeline_arguments` name; in mode `scene` those of the generator are of the
    one of scenes. Raises `UsageError` for an unknown name."""
    check_name("--stereo", args.stereo, {"auto", *STEREO_MATCHERS})
    check_name("--segmenter", args.segmenter, SEGMENTERS)
    check_name("--amodal", args.amodal, {AUTO, *VIEW_COMPLETERS})
    if mode == "scene":
        check_name("--generator", args.generator, {AUTO, *SCENE_GENERATORS})
        chosen: dict[str, Any] = {
            "scene_generator": args.generator,
            "scene_options": given_options(args, NOT_OF_SCENES),
        }
    else:
        check_name("--generator", args.generator, {AUTO, *GENERATORS})
        args.generator = chosen_generator(args.generator, checkpoint=args.checkpoint)
        chosen = {"generator": args.generator, "generator_options": generator_options(args)}
    try:
        return Pipeline(
            PipelineConfig(
                stereo=args.stereo,
                segmenter=args.segmenter,
                segmenter_options={"checkpoint": args.segmenter_checkpoint} if args.segmenter_checkpoint else {},
                mode=mode,
                **chosen,
                amodal=args.amodal,
                amodal_options=amodal_options(args),
                refine_poses=not args.no_refine,
                max_faces=args.max_faces,
                watertight=args.watertight,
                device=checked_device(args.device),
            )
        )
    except InputError as error:
        raise UsageError(str(error)) from error


OF_SCENES, NOT_OF_SCENES = ("geometry_encoder", "max_assets"), ("fusion",)
"""Options that only generators of scenes take, and that these do not take."""


def given_options(args: argparse.Namespace, unfit: Sequence[str]) -> dict[str, Any]:
    """Options of a generator that were given. Raises `UsageError` for one that is `unfit`."""
    given = {name: value for name in GENERATOR_OPTIONS if (value := getattr(args, name, None)) is not None}
    if wrong := [name for name in unfit if name in given]:
        other = "objects" if tuple(unfit) == NOT_OF_SCENES else "scene"
        raise UsageError(f"--{wrong[0].replace('_', '-')} is for --mode {other}")
    return given


def amodal_options(args: argparse.Namespace) -> dict[str, object]:
    """Options that were given for `args.amodal`. Raises `UsageError` for one that has no use for them."""
    given = {name: getattr(args, f"amodal_{name}") for name in AMODAL_OPTIONS}
    given = {name: value for name, value in given.items() if value is not None}
    if given and args.amodal == NONE:
        raise UsageError(
            f"--amodal '{NONE}' has no use for --amodal-{', --amodal-'.join(given)}: "
            f"choose one of {', '.join(name for name in VIEW_COMPLETERS if name != NONE)}"
        )
    return given


def generator_options(args: argparse.Namespace) -> dict[str, object]:
    """Options that were given for `args.generator`. Raises `UsageError` for one that has no use for them."""
    given = given_options(args, OF_SCENES)
    if given and args.generator not in CHECKPOINT_GENERATORS:
        raise UsageError(
            f"--generator '{args.generator}' has no use for --{', --'.join(given)}: "
            f"choose one of {', '.join(CHECKPOINT_GENERATORS)}"
        )
    return given


def checked_device(name: str) -> str:
    """A torch device that exists: `auto` is the machine's accelerator where it has one. Raises `UsageError`."""
    if name == "auto":
        return default_device()
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        raise UsageError(f"--device '{name}' cannot be used here: {first_line}") from error
    return name


class ProgressBar:
    """A bar on stderr that follows (stage, fraction of the whole run); silent where stderr is no terminal."""

    def __init__(self) -> None:
        self._bar = tqdm(
            total=100, disable=None, leave=False, bar_format="{desc:<14}{percentage:3.0f}% |{bar}| {elapsed}"
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, stage: str, fraction: float) -> None:
        self._bar.set_description_str(stage, refresh=False)
        self._bar.update(max(0.0, 100 * fraction - self._bar.n))
        self._bar.refresh()
