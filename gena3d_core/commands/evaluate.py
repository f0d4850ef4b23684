"""`gena3d evaluate recording | objects | robustness | scenes`: how good results are."""

from __future__ import annotations

import argparse
from types import ModuleType

from . import evaluate_objects, evaluate_recording, evaluate_robustness, evaluate_scenes

EVALUATIONS: dict[str, tuple[str, ModuleType]] = {
    "recording": ("reconstructions of an RGB-D recording against its reference surfaces", evaluate_recording),
    "objects": ("completions of single objects against their true shapes, beside baselines", evaluate_objects),
    "robustness": ("completions of single objects as masks, poses and depth get worse", evaluate_robustness),
    "scenes": ("scenes of several objects, imagined from pictures, against their truth", evaluate_scenes),
}
"""What is scored -> (in words, module with `add_arguments` and `run`)."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Sub-verbs and their options."""
    what = parser.add_subparsers(metavar="WHAT", dest="what", required=True)
    for name, (summary, module) in EVALUATIONS.items():
        sub = what.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        module.add_arguments(sub)


def run(args: argparse.Namespace) -> int:
    """Score; the exit code."""
    return EVALUATIONS[args.what][1].run(args)
