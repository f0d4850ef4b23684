"""Folders of layouts, one JSON file a scene.

{"schema": 1, "id": "train_0000", "split": "train", "support_plane": "z = 0", "query": 0,
 "objects": [{"object_id": ID, "translation_m": [x, y, z], "quat_wxyz": [w, x, y, z], "scale_m": s}, ...],
 "intrinsics": {"width", "height", "fx", "fy", "cx", "cy"}, "T_world_camera": [4 x 4, ...]}

point_world = R · (vertex · scale_m) + t for the vertices of the mesh as its source loads it. `split`, `query`,
`intrinsics` and `T_world_camera` may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..errors import DataFormatError, Gena3DError, InputError
from ..geometry import transforms
from ..simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from ..types import Float64Array, Intrinsics, SupportPlane

SCHEMA = 1
GROUND = "z = 0"
UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class LayoutFolder:
    """Layouts of one split."""

    folder: Path
    split: str
    files: Mapping[str, Path]

    @property
    def name(self) -> str:
        return f"{self.folder.resolve()}:{self.split}"

    def ids(self) -> Sequence[str]:
        return list(self.files)

    def load(self, id: str) -> SceneLayout:
        if id not in self.files:
            raise InputError(f"{self.folder}: no scene '{id}' in split '{self.split}'")
        return read_layout(self.files[id])


def open_layout_folder(folder: Path, split: str = "train") -> LayoutFolder:
    """The layouts of `split`; raises `InputError` if there is none, `DataFormatError` for a file that is no layout."""
    files: dict[str, Path] = {}
    splits = set()
    for path in sorted(folder.glob("*.json")):
        content = _read(path)
        splits.add(content.get("split", "train"))
        if content.get("split", "train") == split:
            files[str(content.get("id", path.stem))] = path
    if not files:
        found = f"its scenes are of {', '.join(sorted(splits))}" if splits else "it holds no .json file"
        raise InputError(f"{folder}: no scene of split '{split}'; {found}")
    return LayoutFolder(folder, split, MappingProxyType(files))


def read_layout(path: Path) -> SceneLayout:
    """One layout; raises `DataFormatError` that names file and fault."""
    content = _read(path)
    plane = content.get("support_plane", GROUND)
    if plane != GROUND:
        raise DataFormatError(f"{path}: support_plane must be '{GROUND}', got {plane!r}")
    try:
        objects = tuple(_object(item) for item in content["objects"])
        return SceneLayout(
            str(content.get("id", path.stem)),
            objects,
            SupportPlane(UP, 0.0),
            _cameras(content),
            int(content.get("query", 0)),
        )
    except KeyError as error:
        raise DataFormatError(f"{path}: {error} is missing") from error
    except (Gena3DError, TypeError, ValueError) as error:
        raise DataFormatError(f"{path}: {error}") from error


def layout_json(layout: SceneLayout, split: str = "train") -> dict[str, Any]:
    """The layout as such a file holds it; raises `InputError` for cameras of different intrinsics."""
    shared = {camera.intrinsics for camera in layout.cameras}
    if len(shared) > 1:
        raise InputError(f"scene '{layout.id}': a file has room for one camera's intrinsics, got {len(shared)}")
    content: dict[str, Any] = {"schema": SCHEMA, "id": layout.id, "split": split, "support_plane": GROUND}
    content["objects"] = [_object_json(item) for item in layout.objects]
    content["query"] = layout.query
    for intrinsics in shared:
        content["intrinsics"] = {
            name: getattr(intrinsics, name) for name in ("width", "height", "fx", "fy", "cx", "cy")
        }
        content["T_world_camera"] = [camera.T_world_camera.tolist() for camera in layout.cameras]
    return content


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not isinstance(content.get("objects"), list):
        raise DataFormatError(f'{path}: no layout: needs "schema": {SCHEMA} and a list "objects"')
    return content


def _object(item: Mapping[str, Any]) -> SceneObject:
    w, x, y, z = (float(value) for value in item["quat_wxyz"])
    R = transforms.matrix_from_quat_xyzw(np.array([x, y, z, w]))
    translation_m = np.array(item["translation_m"], dtype=np.float64)
    return SceneObject(str(item["object_id"]), transforms.rigid(float(item["scale_m"]) * R, translation_m))


def _object_json(item: SceneObject) -> dict[str, Any]:
    S = item.S_world_object
    scale = float(np.cbrt(np.linalg.det(S[:3, :3])))
    x, y, z, w = transforms.quat_xyzw_from_matrix(S[:3, :3] / scale).tolist()
    return {
        "object_id": item.mesh,
        "translation_m": S[:3, 3].tolist(),
        "quat_wxyz": [w, x, y, z],
        "scale_m": scale,
    }


def _cameras(content: Mapping[str, Any]) -> tuple[SceneCamera, ...]:
    poses: list[Float64Array] = [np.array(T, dtype=np.float64) for T in content.get("T_world_camera", [])]
    if not poses:
        return ()
    given = content["intrinsics"]
    intrinsics = Intrinsics(
        int(given["width"]), int(given["height"]), *(float(given[name]) for name in ("fx", "fy", "cx", "cy"))
    )
    return tuple(SceneCamera(T, intrinsics) for T in poses)
