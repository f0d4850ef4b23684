"""JSON and matrices on disk, with errors that say which file and which field is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFormatError, InputError
from ..types import Float64Array, require_rigid


def read_json_object(path: Path, what: str) -> dict[str, Any]:
    """The JSON object in `path`; `what` says in errors what the file is for. Raises `DataFormatError`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error.strerror or error}); {what}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataFormatError(f"{path}: not valid JSON ({error}); {what}") from error
    if not isinstance(content, dict):
        raise DataFormatError(f"{path}: must hold a JSON object, not {type(content).__name__}; {what}")
    return content


def number(content: Mapping[str, Any], key: str, path: Path, default: float | None = None) -> float:
    """The finite number `content[key]`, or `default` if absent. Raises `DataFormatError`."""
    value = content.get(key, default)
    if value is None:
        raise DataFormatError(f"{path}: has no '{key}'")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataFormatError(f"{path}: '{key}' must be a number, got {value!r}")
    return float(value)


def read_pose(path: Path) -> Float64Array:
    """`T_world_camera` (4, 4) from a text file of four rows. Raises `DataFormatError`."""
    try:
        matrix = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except OSError as error:
        raise DataFormatError(f"{path}: cannot be read ({error}); it should hold T_world_camera") from error
    except ValueError as error:
        raise DataFormatError(f"{path}: not a matrix of numbers ({error})") from error
    return rigid_matrix(matrix, str(path))


def rigid_matrix(matrix: Any, where: str) -> Float64Array:
    """`matrix` as a proper (4, 4) rigid transform, rounding errors of its rotation (< 0.02) removed.

    Raises `DataFormatError`, which begins with `where`, if it is no 4x4 of numbers or not rigid.
    """
    try:
        T = np.array(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{where}: the pose is not a 4x4 matrix of numbers") from error
    if T.shape == (3, 4):
        T = np.vstack([T, (0.0, 0.0, 0.0, 1.0)])
    if T.shape != (4, 4):
        raise DataFormatError(f"{where}: the pose must be a 4x4 matrix, got shape {T.shape}")
    if not np.isfinite(T).all():
        raise DataFormatError(f"{where}: the pose holds NaN or infinity (tracking lost?); leave this frame out")
    u, _, vt = np.linalg.svd(T[:3, :3])
    R = u @ vt
    if np.abs(R - T[:3, :3]).max() < 0.02:
        T[:3, :3] = R
    try:
        require_rigid("the pose", T)
    except InputError as error:
        raise DataFormatError(f"{where}: {error}") from error
    return T
