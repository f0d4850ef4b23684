"""Photographs without poses: recognised, and refused with the way to get poses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from ..errors import DataFormatError
from .image_files import COLOR_SUFFIXES


def is_plain_images(paths: Sequence[Path]) -> bool:
    """Whether all `paths` are image files, or one is a folder of image files."""
    if len(paths) == 1 and paths[0].is_dir():
        return any(is_image(path) for path in paths[0].iterdir())
    return bool(paths) and all(is_image(path) for path in paths)


def is_image(path: Path) -> bool:
    """Whether the name is that of a picture."""
    return path.suffix.lower() in COLOR_SUFFIXES


def refuse_plain_images(paths: Sequence[Path]) -> NoReturn:
    """Raise the `DataFormatError` that says how to get camera poses for these pictures."""
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    raise DataFormatError(
        f"{paths[0]}: pictures without camera poses cannot be reconstructed. Estimate poses first, for instance with "
        f"nerfstudio: 'ns-process-data images --data {folder} --output-dir posed', scale them to metres, then run "
        "'gena3d reconstruct posed --out DIR'; or record an RGB-D folder or a rosbag2 with TF; or put masks of "
        "the objects beside a picture (mask_00.png, mask_01.png, ...) and use --mode scene"
    )


def refuse_unless_one_input(paths: Sequence[Path]) -> Path | None:
    """The only path; None if there are several. Raises `DataFormatError` if these are pictures without poses."""
    if len(paths) > 1 and is_plain_images(paths):
        refuse_plain_images(paths)
    return paths[0] if len(paths) == 1 else None
