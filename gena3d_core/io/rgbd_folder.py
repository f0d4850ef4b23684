"""Recorded RGB-D folders: color/NNNNNN.jpg|png, depth/NNNNNN.png, pose/NNNNNN.txt, camera.json, frames.csv.

Depth is registered to the colour camera (uint16, millimetres unless camera.json says `depth_unit_m`; 0 = invalid)
and may be absent altogether. Poses are `T_world_camera` of the colour optical frame, world z up, metres. `frames.csv`
is optional: its columns `frame` and `stamp_s` give the stamps, which otherwise are those of a 30 Hz camera.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataFormatError, InputError
from ..types import Float64Array, Intrinsics, View
from .image_files import read_color, read_depth
from .text_files import number, read_json_object, read_pose

DEFAULT_RATE_HZ = 30
LAYOUT = "an RGB-D folder holds color/, pose/, camera.json and, if the camera measures it, depth/"


@dataclass(frozen=True, eq=False)
class RgbdFolder:
    """An opened folder; nothing but `camera.json` and the list of files has been read.

    frames     numbers of the frames that have colour and a pose, ascending
    stamps_ns  time of each frame
    """

    directory: Path
    intrinsics: Intrinsics
    depth_unit_m: float
    depth_invalid: float
    frames: tuple[int, ...]
    stamps_ns: Mapping[int, int]
    has_depth: bool
    _color: Mapping[int, Path]

    @classmethod
    def open(cls, directory: str | Path) -> RgbdFolder:
        """Raises `DataFormatError` if the folder lacks its parts or `camera.json` is broken."""
        directory = Path(directory)
        for part in ("color", "pose"):
            if not (directory / part).is_dir():
                raise DataFormatError(f"{directory}: has no folder {part}/; {LAYOUT}")
        intrinsics, camera = _read_camera(directory / "camera.json")
        color = {int(p.stem): p for p in (directory / "color").iterdir() if p.stem.isdigit()}
        posed = {int(p.stem) for p in (directory / "pose").glob("*.txt") if p.stem.isdigit()}
        frames = tuple(sorted(color.keys() & posed))
        if not frames:
            raise DataFormatError(
                f"{directory}: no frame has both a picture and a pose ({len(color)} pictures like color/000123.jpg, "
                f"{len(posed)} poses like pose/000123.txt)"
            )
        return cls(
            directory=directory,
            intrinsics=intrinsics,
            depth_unit_m=number(camera, "depth_unit_m", directory / "camera.json", 0.001),
            depth_invalid=number(camera, "depth_invalid", directory / "camera.json", 0.0),
            frames=frames,
            stamps_ns=_read_stamps(directory / "frames.csv", frames),
            has_depth=(directory / "depth").is_dir(),
            _color=color,
        )

    def color_path(self, frame: int) -> Path:
        """File of a frame's colour picture."""
        self.check_frames([frame])
        return self._color[frame]

    def pose(self, frame: int) -> Float64Array:
        """`T_world_camera` (4, 4) of a frame. Raises `DataFormatError`."""
        self.check_frames([frame])
        return read_pose(self.directory / "pose" / f"{self._color[frame].stem}.txt")

    def read(self, frame: int) -> View:
        """The view named by the six-digit frame number. Raises `DataFormatError` with the file that is broken."""
        pose = self.pose(frame)
        size = (self.intrinsics.width, self.intrinsics.height)
        depth_m = None
        if self.has_depth:
            path = self.directory / "depth" / f"{self._color[frame].stem}.png"
            depth_m = read_depth(path, self.depth_unit_m, size, self.depth_invalid)
        return View(
            color=read_color(self._color[frame], size),
            intrinsics=self.intrinsics,
            T_world_camera=pose,
            depth_m=depth_m,
            stamp_ns=self.stamps_ns[frame],
            name=f"{frame:06d}",
        )

    def check_frames(self, frames: Sequence[int]) -> None:
        """Raise `InputError`, which lists the nearest frames, for one that the folder lacks."""
        for frame in frames:
            if frame not in self.stamps_ns:
                near = sorted(sorted(self.frames, key=lambda f: abs(f - frame))[:4])
                raise InputError(
                    f"{self.directory}: has no frame {frame}; the nearest of its {len(self.frames)} frames are "
                    + ", ".join(map(str, near))
                )


def _read_camera(path: Path) -> tuple[Intrinsics, dict]:
    camera = read_json_object(path, "it should hold width, height, fx, fy, cx, cy of the colour camera in pixels")
    model = str(camera.get("distortion_model", "none")).lower()
    if model not in ("none", ""):
        raise DataFormatError(
            f"{path}: distortion_model is '{model}', but the pictures of an RGB-D folder must be undistorted; "
            "undistort them and write 'none', or use a nerfstudio transforms.json, which may carry distortion"
        )
    try:
        intrinsics = Intrinsics(
            int(number(camera, "width", path)),
            int(number(camera, "height", path)),
            *(number(camera, key, path) for key in ("fx", "fy", "cx", "cy")),
        )
    except InputError as error:
        raise DataFormatError(f"{path}: {error}") from error
    return intrinsics, camera


def _read_stamps(path: Path, frames: Sequence[int]) -> dict[int, int]:
    stamps = {frame: frame * 1_000_000_000 // DEFAULT_RATE_HZ for frame in frames}
    if not path.is_file():
        return stamps
    try:
        with path.open(newline="", encoding="utf-8") as file:
            listed = {int(row["frame"]): round(float(row["stamp_s"]) * 1e9) for row in csv.DictReader(file)}
    except (KeyError, TypeError, ValueError, OverflowError, UnicodeDecodeError, csv.Error) as error:
        raise DataFormatError(f"{path}: needs the columns frame and stamp_s, both numbers ({error!r})") from error
    return {frame: listed.get(frame, stamp) for frame, stamp in stamps.items()}
