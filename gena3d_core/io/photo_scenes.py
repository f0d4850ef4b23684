"""Photographs of a scene with masks of its objects beside them, without cameras.

A folder with one picture and `mask_NN.png` files (white where the object is), or a picture with such files, or with
`NAME_mask_NN.png`, beside it. Several pictures of one scene share the masks' names; one that a picture lacks is of an
object that it does not show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataFormatError
from ..types import BoolArray, UInt8Array
from .image_files import read_color, read_mask
from .plain_images import is_image

MASK = re.compile(r"^(?P<picture>.*?)_?mask_(?P<name>[^.]+)$")


@dataclass(frozen=True, eq=False)
class PhotoScene:
    """K pictures and masks of N objects as they were found: masks may be empty or overlap.

    names   (K,) of the picture files
    ids, labels  (N,); ids from the masks' numbers
    masks   K of (N, H, W) bool
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    labels: tuple[str, ...]
    images: tuple[UInt8Array, ...]
    masks: tuple[BoolArray, ...]


def is_photo_scene(paths: Sequence[Path]) -> bool:
    """Whether each of `paths` is a picture with masks beside it, by a look at names only."""
    return bool(paths) and all(_found(path) is not None for path in paths)


def load_photo_scene(paths: Sequence[Path]) -> PhotoScene:
    """The pictures and masks; raises `DataFormatError` that names a file that is missing, broken or of another size."""
    found = []
    for path in paths:
        entry = _found(path)
        if entry is None:
            raise DataFormatError(
                f"{path}: needs a picture and masks of its objects beside it, mask_00.png, mask_01.png, ... (white "
                "where the object is)"
            )
        found.append(entry)
    names = sorted({name for _, masks in found for name in masks}, key=lambda n: (not n.isdigit(), n.zfill(9)))
    numbered = all(name.isdigit() for name in names) and len({int(name) for name in names}) == len(names)
    images, stacks = [], []
    for picture, masks in found:
        color = read_color(picture)
        size = (color.shape[1], color.shape[0])
        nothing = np.zeros(color.shape[:2], dtype=bool)
        own = [read_mask(masks[name], size, picture) if name in masks else nothing for name in names]
        images.append(color)
        stacks.append(np.stack(own))
    return PhotoScene(
        tuple(str(picture) for picture, _ in found),
        tuple(int(name) for name in names) if numbered else tuple(range(len(names))),
        tuple("" if name.isdigit() else name for name in names),
        tuple(images),
        tuple(stacks),
    )


def _found(path: Path) -> tuple[Path, dict[str, Path]] | None:
    """The picture and its masks by name; None if there is not one of the former or none of the latter."""
    folder = path if path.is_dir() else path.parent
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.is_file() and is_image(file))
    masks = {file: match for file in files if (match := MASK.match(file.stem))}
    pictures = [file for file in files if file not in masks]
    if path.is_file():
        pictures = [path] if path in pictures else []
    if len(pictures) != 1:
        return None
    named = {match["name"]: file for file, match in masks.items() if match["picture"] == pictures[0].stem}
    plain = {match["name"]: file for file, match in masks.items() if not match["picture"]}
    own = named or plain
    return (pictures[0], own) if own else None
