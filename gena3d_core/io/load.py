"""`load_views`: posed views from whatever a user points at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFormatError, InputError
from ..types import View
from ..views import select_keyframes, select_poses
from .bag_options import BagOptions
from .nerfstudio import PosedImages
from .plain_images import is_plain_images, refuse_plain_images
from .rgbd_folder import RgbdFolder

SHORTLIST = 3
"""A reader that must choose decodes at most so many times the views it returns, to compare their sharpness."""

SIGNS = (
    ("rosbag", "metadata.yaml"),
    ("nerfstudio", "transforms.json"),
    ("rgbd", "camera.json"),
    ("rgbd", "color"),
    ("rosbag", "*.mcap"),
    ("rosbag", "*.db3"),
)
"""What a folder holds that gives its kind away, most telling first."""
SUFFIXES = {".json": "nerfstudio", ".mcap": "rosbag", ".db3": "rosbag"}
KINDS = (
    "an RGB-D folder (camera.json, color/, depth/, pose/), a nerfstudio transforms.json, or a rosbag2 folder, .mcap or "
    ".db3 file"
)


@dataclass(frozen=True, eq=False)
class Recording:
    """Views read from a recording, oldest first, and the name of the world frame of their poses."""

    views: list[View]
    frame_id: str = "world"


Reader = Callable[[Path, "Sequence[int] | None", "int | None", BagOptions], Recording]


def load_views(path: str | Path, frames: Sequence[int] | None = None, max_views: int | None = None) -> list[View]:
    """`load_recording(...).views`."""
    return load_recording(path, frames, max_views).views


def load_recording(
    path: str | Path,
    frames: Sequence[int] | None = None,
    max_views: int | None = None,
    bag_options: BagOptions | None = None,
) -> Recording:
    """Views of a recording, oldest first: those numbered `frames`, else the `max_views` most informative, else all.

    path: rgbd folder, nerfstudio transforms.json (or its folder), rosbag2 folder, .mcap or .db3 (there all means 20).
    Raises `InputError` for frames that do not exist (the message lists the nearest) and for arguments out of
    range, `DataFormatError` for a broken or unknown input, `MissingDependencyError` for a library not installed.
    """
    path = Path(path)
    if max_views is not None and max_views < 1:
        raise InputError(f"max_views must be at least 1, got {max_views}")
    if frames is not None:
        if len(frames) == 0:
            raise InputError("frames is empty: name at least one frame, or leave it out for all")
        if len(set(frames)) != len(frames):
            raise InputError(f"frames repeat: {list(frames)}")
    return READERS[check_input(path)](path, frames, max_views, bag_options or BagOptions())


def check_input(path: Path) -> str:
    """Key of `READERS` for what lies at `path`, by a look at names only.

    Raises `DataFormatError` if nothing that can be read does.
    """
    if not path.exists():
        raise DataFormatError(f"{path}: no such file or folder")
    if path.is_dir():
        if (kind := _folder_kind(path)) is not None:
            return kind
    elif path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    if is_plain_images([path]):
        refuse_plain_images([path])
    raise DataFormatError(f"{path}: not a recording that can be read; wanted {KINDS}")


def is_photos(paths: Sequence[Path]) -> bool:
    """Whether these are picture files, or one folder of pictures that is no recording: `load_photos` reads those."""
    if len(paths) == 1 and paths[0].is_dir() and _folder_kind(paths[0]) is not None:
        return False
    return all(path.exists() for path in paths) and is_plain_images(paths)


def _folder_kind(folder: Path) -> str | None:
    return next((kind for kind, pattern in SIGNS if any(folder.glob(pattern))), None)


def _read_rgbd(path: Path, frames: Sequence[int] | None, max_views: int | None, _: BagOptions) -> Recording:
    folder = RgbdFolder.open(path)
    return _read_chosen(folder, folder.frames, frames, max_views, lambda f: folder.pose(f))


def _read_nerfstudio(path: Path, frames: Sequence[int] | None, max_views: int | None, _: BagOptions) -> Recording:
    posed = PosedImages.open(path)
    return _read_chosen(posed, posed.frames, frames, max_views, lambda f: posed.T_world_camera[f])


def _read_chosen(
    source: Any,
    available: Sequence[int],
    frames: Sequence[int] | None,
    max_views: int | None,
    pose_of: Callable[[int], np.ndarray],
) -> Recording:
    if frames is not None:
        source.check_frames(frames)
        return Recording([source.read(frame) for frame in sorted(frames)])
    chosen = list(available)
    if max_views is not None and len(chosen) > SHORTLIST * max_views:
        poses = np.stack([pose_of(frame) for frame in chosen])
        chosen = [chosen[i] for i in select_poses(poses, SHORTLIST * max_views)]
    views = [source.read(frame) for frame in chosen]
    return Recording(views if max_views is None else select_keyframes(views, max_views))


def _read_rosbag(path: Path, frames: Sequence[int] | None, max_views: int | None, options: BagOptions) -> Recording:
    # The library behind it takes longer to import than all other readers together.
    from .rosbag import load_rosbag

    return Recording(*load_rosbag(path, frames, max_views, options))


READERS: dict[str, Reader] = {
    "rgbd": _read_rgbd,
    "nerfstudio": _read_nerfstudio,
    "rosbag": _read_rosbag,
}
