"""`load_views`: posed views from whatever a user points at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataFormatError, InputError
from ..types import View
from ..views import select_keyframes, select_poses
from .rgbd_folder import RgbdFolder

SHORTLIST = 3
"""A reader that must choose decodes at most so many times the views it returns, to compare their sharpness."""

Reader = Callable[[Path, "Sequence[int] | None", "int | None"], list[View]]


def load_views(path: str | Path, frames: Sequence[int] | None = None, max_views: int | None = None) -> list[View]:
    """Views of a recording, oldest first: those numbered `frames`, else the `max_views` most informative, else all.

    path: rgbd folder, nerfstudio transforms.json (or its folder), rosbag2 folder or .mcap/.db3 file.
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
    if not path.exists():
        raise DataFormatError(f"{path}: no such file or folder")
    return READERS[input_kind(path)](path, frames, max_views)


def input_kind(path: Path) -> str:
    """Key of `READERS` for what lies at `path`. Raises `DataFormatError` if nothing that can be read does."""
    if path.is_dir():
        for kind, sign in (("rosbag", "metadata.yaml"), ("nerfstudio", "transforms.json"), ("rgbd", "camera.json")):
            if (path / sign).is_file():
                return kind
        if (path / "color").is_dir():
            return "rgbd"
        for kind, pattern in (("rosbag", "*.mcap"), ("rosbag", "*.db3")):
            if any(path.glob(pattern)):
                return kind
    elif path.suffix.lower() in SUFFIXES:
        return SUFFIXES[path.suffix.lower()]
    raise DataFormatError(
        f"{path}: neither an RGB-D folder (camera.json, color/, depth/, pose/), nor a nerfstudio transforms.json, "
        "nor a rosbag2 folder or .mcap/.db3 file"
    )


def _read_rgbd(path: Path, frames: Sequence[int] | None, max_views: int | None) -> list[View]:
    folder = RgbdFolder.open(path)
    if frames is not None:
        folder.check_frames(frames)
        return [folder.read(frame) for frame in sorted(frames)]
    chosen: Sequence[int] = folder.frames
    if max_views is not None and len(chosen) > max_views:
        poses = np.stack([folder.pose(frame) for frame in chosen])
        chosen = [chosen[i] for i in select_poses(poses, SHORTLIST * max_views)]
    views = [folder.read(frame) for frame in chosen]
    return views if max_views is None else select_keyframes(views, max_views)


SUFFIXES: dict[str, str] = {}
READERS: dict[str, Reader] = {"rgbd": _read_rgbd}
