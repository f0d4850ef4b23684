"""`gena3d info`: what is installed and what it can do."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import metadata

PACKAGES = ("numpy", "scipy", "torch", "opencv-python-headless", "trimesh", "rosbags", "open3d-cpu", "open3d", "rclpy")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb has no options."""


def run(args: argparse.Namespace) -> int:
    """Print one `name: value` line each."""
    from .. import __version__
    from ..device import device_names
    from ..generation import AUTO, GENERATORS, SCENE_GENERATORS, chosen_generator
    from ..segmentation import SEGMENTERS
    from ..stereo import STEREO_MATCHERS

    lines = {
        "gena3d": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        **{name: _version(name) for name in PACKAGES},
        "devices": ", ".join(device_names()),
        "stereo": ", ".join(sorted(STEREO_MATCHERS)),
        "segmenters": ", ".join(sorted(SEGMENTERS)),
        "generators": ", ".join(sorted(GENERATORS)) + f"; {AUTO} is {chosen_generator(AUTO)}",
        "generators of scenes": ", ".join(f"{name}{_present(name)}" for name in SCENE_GENERATORS),
    }
    for name, value in lines.items():
        print(f"{name}: {value}")
    return 0


def _present(family: str) -> str:
    from ..checkpoints.locate import local_folder

    return "" if local_folder(family) is not None else " (weights not here)"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
