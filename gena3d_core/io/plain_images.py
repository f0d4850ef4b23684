"""Photographs without poses: recognised, and read for the matchers that find poses or refused for the others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..errors import DataFormatError, InputError
from ..types import Intrinsics, View
from .image_files import COLOR_SUFFIXES

GUESSED_FOCAL = 1.2
"""Focal length relative to the longer side where a photograph does not tell it: that of a telephone's camera."""


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
        f"{paths[0]}: pictures without camera poses cannot be reconstructed like this. Take a stereo matcher that "
        "finds poses, --stereo sfm (pip install 'gena3d[sfm]') or pi3 (gena3d checkpoint info pi3); or estimate poses "
        f"first, for instance with nerfstudio: 'ns-process-data images --data {folder} --output-dir posed', scale them "
        "to metres, then run 'gena3d reconstruct posed --out DIR'; or record an RGB-D folder or a rosbag2 with TF; or "
        "put masks of the objects beside a picture (mask_00.png, mask_01.png, ...) and use --mode scene"
    )


def load_photos(paths: Sequence[Path], max_views: int | None = None) -> list[View]:
    """Views without poses from picture files, or from the pictures of one folder, in the order of their names.

    max_views: at most so many, evenly spread. The focal length is that of the EXIF data, else a guess. Raises
    `DataFormatError` for a file that is no picture, `InputError` for two of the same name.
    """
    files = sorted(paths[0].iterdir()) if len(paths) == 1 and paths[0].is_dir() else list(paths)
    files = [file for file in files if is_image(file)]
    if max_views is not None and len(files) > max_views:
        files = [files[i] for i in np.linspace(0, len(files) - 1, max_views).round().astype(int)]
    if len({file.stem for file in files}) != len(files):
        raise InputError(f"pictures must have different names, got {', '.join(file.name for file in files)}")
    return [_photo(file) for file in files]


def _photo(file: Path) -> View:
    try:
        with Image.open(file) as image:
            exif = image.getexif()
            color = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{file}: not a readable picture ({error})") from error
    height, width = color.shape[:2]
    details = exif.get_ifd(ExifTags.IFD.Exif)
    # The tag compares with film 36 mm wide.
    film_mm = float(details.get(ExifTags.Base.FocalLengthIn35mmFilm, 0) or 0)
    focal = max(height, width) * (film_mm / 36.0 if film_mm > 0 else GUESSED_FOCAL)
    intrinsics = Intrinsics(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)
    # Pictures of one camera and size share what is found out about its lens.
    camera = f"{exif.get(ExifTags.Base.Model, 'camera')} {width}x{height} {film_mm:g}"
    return View(color, intrinsics, np.eye(4), camera=camera, name=file.stem, pose_known=False, intrinsics_known=False)
