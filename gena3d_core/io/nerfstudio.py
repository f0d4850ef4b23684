"""Posed images with nerfstudio's (or instant-ngp's) transforms.json.

Its cameras look along -z with y up (OpenGL) and its pixel centres lie at half-integers; both are converted. The
world is taken as metric with z up, nerfstudio's convention; a top-level `up` vector (instant-ngp) that says otherwise
is turned to z, and an `applied_scale` is divided out.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ..errors import DataFormatError, InputError
from ..geometry.transforms import rigid
from ..geometry.undistortion import FISHEYE, RADIAL_TANGENTIAL, Distortion, undistort_color, undistort_depth
from ..types import Float64Array, Intrinsics, View
from .image_files import COLOR_SUFFIXES, read_color, read_depth
from .text_files import number, read_json_object, rigid_matrix

OPENGL_FROM_OPTICAL = np.diag([1.0, -1.0, -1.0, 1.0])
MODELS = {
    "SIMPLE_PINHOLE": RADIAL_TANGENTIAL,
    "PINHOLE": RADIAL_TANGENTIAL,
    "SIMPLE_RADIAL": RADIAL_TANGENTIAL,
    "RADIAL": RADIAL_TANGENTIAL,
    "OPENCV": RADIAL_TANGENTIAL,
    "OPENCV_FISHEYE": FISHEYE,
}
_COEFFICIENTS = {RADIAL_TANGENTIAL: ("k1", "k2", "p1", "p2", "k3"), FISHEYE: ("k1", "k2", "k3", "k4")}
DEFAULT_DEPTH_UNIT_M = 0.001


@dataclass(frozen=True, eq=False)
class PosedImages:
    """An opened transforms.json; no image has been read.

    frames          index of each frame in the file, ascending; a view's name is its index
    T_world_camera  (N, 4, 4) poses in our convention, row i that of frame i
    """

    path: Path
    content: Mapping[str, Any]
    T_world_camera: Float64Array

    @property
    def frames(self) -> range:
        return range(len(self.T_world_camera))

    @classmethod
    def open(cls, path: str | Path) -> PosedImages:
        """path: the file, or the folder that holds it. Raises `DataFormatError`."""
        path = Path(path)
        path = path / "transforms.json" if path.is_dir() else path
        content = read_json_object(path, "it should hold camera intrinsics and 'frames' as nerfstudio writes them")
        frames = content.get("frames")
        if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
            raise DataFormatError(f"{path}: needs a list 'frames' with at least one frame")
        poses = np.stack(
            [rigid_matrix(frame.get("transform_matrix"), f"{path}: frame {i}") for i, frame in enumerate(frames)]
        )
        scale = number(content, "applied_scale", path, 1.0)
        if scale <= 0:
            raise DataFormatError(f"{path}: 'applied_scale' must be positive, got {scale}")
        poses[:, :3, 3] /= scale
        return cls(path, content, _z_up(content, path) @ poses @ OPENGL_FROM_OPTICAL)

    def read(self, frame: int) -> View:
        """The undistorted view of frame `frame`. Raises `DataFormatError` with the file that is broken."""
        self.check_frames([frame])
        fields: ChainMap[str, Any] = ChainMap(self.content["frames"][frame], dict(self.content))
        color_path = self._file(fields, "file_path", frame)
        color = read_color(color_path)
        intrinsics = _intrinsics(fields, color.shape[1], color.shape[0], self.path)
        distortion = _distortion(fields, self.path)
        depth_m = None
        if fields.get("depth_file_path"):
            unit_m = number(fields, "depth_unit_scale_factor", self.path, DEFAULT_DEPTH_UNIT_M)
            size = (intrinsics.width, intrinsics.height)
            depth_m = read_depth(self._file(fields, "depth_file_path", frame), unit_m, size)
            depth_m = undistort_depth(depth_m, intrinsics, distortion)
        return View(
            color=undistort_color(color, intrinsics, distortion),
            intrinsics=intrinsics,
            T_world_camera=self.T_world_camera[frame],
            depth_m=depth_m,
            stamp_ns=round(number(fields, "timestamp", self.path, float(frame)) * 1e9),
            name=f"{frame:06d}",
        )

    def check_frames(self, frames: Sequence[int]) -> None:
        """Raise `InputError` for an index that the file does not hold."""
        for frame in frames:
            if frame not in self.frames:
                raise InputError(f"{self.path}: has no frame {frame}; its frames are 0..{len(self.frames) - 1}")

    def _file(self, fields: Mapping[str, Any], key: str, frame: int) -> Path:
        name = fields.get(key)
        if not isinstance(name, str) or not name:
            raise DataFormatError(f"{self.path}: frame {frame} has no '{key}'")
        path = self.path.parent / name
        # Blender's exporter leaves the suffix out.
        candidates = [path] if path.suffix else [path.with_suffix(suffix) for suffix in COLOR_SUFFIXES]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise DataFormatError(f"{path}: no such file, but {self.path.name} names it in frame {frame}")
        return found


def _z_up(content: Mapping[str, Any], path: Path) -> Float64Array:
    """(4, 4) smallest rotation that turns the file's `up` to +z."""
    if "up" not in content:
        return np.eye(4)
    try:
        up = np.array(content["up"], dtype=np.float64)
        length = np.linalg.norm(up)
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: 'up' must be three numbers, got {content['up']!r}") from error
    if up.shape != (3,) or not np.isfinite(length) or length < 1e-9:
        raise DataFormatError(f"{path}: 'up' must be three numbers, not all zero, got {content['up']!r}")
    up = up / length
    axis = np.cross(up, (0.0, 0.0, 1.0))
    sine, angle = np.linalg.norm(axis), math.acos(float(np.clip(up[2], -1.0, 1.0)))
    axis = axis / sine if sine > 1e-9 else np.array([1.0, 0.0, 0.0])
    return rigid(Rotation.from_rotvec(angle * axis).as_matrix())


def _intrinsics(fields: Mapping[str, Any], width: int, height: int, path: Path) -> Intrinsics:
    declared = (int(number(fields, "w", path, width)), int(number(fields, "h", path, height)))
    if declared != (width, height):
        raise DataFormatError(
            f"{path}: intrinsics are for {declared[0]}x{declared[1]} pixels, but {fields.get('file_path')} is "
            f"{width}x{height}; point file_path at the full-size images"
        )
    if fields.get("fl_x") is not None:
        fx = number(fields, "fl_x", path)
    elif fields.get("camera_angle_x") is not None:
        fx = 0.5 * width / math.tan(0.5 * number(fields, "camera_angle_x", path))
    else:
        raise DataFormatError(f"{path}: has neither 'fl_x' nor 'camera_angle_x', so the focal length is unknown")
    try:
        return Intrinsics(
            width=width,
            height=height,
            fx=fx,
            fy=number(fields, "fl_y", path, fx),
            # Their pixel centres lie at half-integers, ours at integers.
            cx=number(fields, "cx", path, width / 2) - 0.5,
            cy=number(fields, "cy", path, height / 2) - 0.5,
        )
    except InputError as error:
        raise DataFormatError(f"{path}: {error}") from error


def _distortion(fields: Mapping[str, Any], path: Path) -> Distortion:
    name = fields.get("camera_model", "OPENCV")
    if name not in MODELS:
        raise DataFormatError(f"{path}: camera_model '{name}' is not supported (known: {', '.join(sorted(MODELS))})")
    model = MODELS[name]
    try:
        return Distortion(model, tuple(number(fields, key, path, 0.0) for key in _COEFFICIENTS[model]))
    except InputError as error:
        raise DataFormatError(f"{path}: {error}") from error
