"""Scenes on disk: scene.json with one .glb an object, written whole or not at all."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .. import __version__
from ..errors import DataFormatError, Gena3DError, InputError
from ..types import (
    ReconstructedObject,
    Reconstruction,
    Scene,
    SupportPlane,
    UInt8Array,
    View,
)
from .atomic import write_folder
from .mesh_files import mesh_from_glb, mesh_to_glb
from .text_files import read_json_object, rigid_matrix

SCHEMA = 1
SCENE_FILE = "scene.json"
CONVENTIONS = {
    "units": "metres, seconds, pixels; colours 0..255 sRGB",
    "mesh_frame": "object frame, z up, coordinates as in the file (no y-up turn): p_world = T_world_object * p_file",
    "world_frame": "named by frame_id, z up",
    "camera_frame": "optical: x right, y down, z forward",
    "vertex_attributes": "_CONFIDENCE 0..1; _OBSERVED 1 where a camera saw the surface, else 0",
}
UNSCALED = "lengths in units of the size of one of the objects, unknown in metres; seconds, pixels; colours 0..255 sRGB"


def save_scene(
    result: Scene | Reconstruction, directory: str | Path, pictures: Mapping[str, UInt8Array] | None = None
) -> Path:
    """Write scene.json, object_NNN.glb per object and `pictures` (name -> (H, W, 3) RGB) as .png; the folder written.

    A `Reconstruction` also tells the views' poses and intrinsics as they were used. An earlier scene in `directory` is
    replaced, files of others there stay; when anything fails, the folder is as it was. Raises `InputError` if
    it cannot be written.
    """
    directory = Path(directory)
    scene = result.scene if isinstance(result, Reconstruction) else result
    views = result.views if isinstance(result, Reconstruction) else ()
    names = [f"object_{entry.id:03d}.glb" for entry in scene.objects]
    if len(set(names)) != len(names):
        raise InputError(f"objects need distinct ids to be saved, got {[entry.id for entry in scene.objects]}")
    content = _scene_to_json(scene, views, names, {name: f"{name}.png" for name in pictures or {}})
    text = _one_line_rows(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False))

    def write(folder: Path) -> None:
        for entry, name in zip(scene.objects, names, strict=True):
            (folder / name).write_bytes(mesh_to_glb(entry.mesh))
        for name, picture in (pictures or {}).items():
            (folder / f"{name}.png").write_bytes(cv2.imencode(".png", picture[..., ::-1])[1].tobytes())
        (folder / SCENE_FILE).write_text(text + "\n", encoding="utf-8")

    write_folder(directory, write, owned=_owned(directory), last=SCENE_FILE)
    return directory


def load_scene(directory: str | Path) -> Scene:
    """The scene that `save_scene` wrote to `directory`. Raises `DataFormatError` with the file and field at fault."""
    directory = Path(directory)
    path = directory / SCENE_FILE
    content = read_json_object(path, "a scene folder is one that `gena3d reconstruct` wrote")
    if content.get("schema") != SCHEMA:
        raise DataFormatError(f"{path}: schema is {content.get('schema')!r}, this version reads {SCHEMA}")
    try:
        return Scene(
            objects=tuple(_object_from_json(entry, directory) for entry in content["objects"]),
            frame_id=str(content["frame_id"]),
            stamp_ns=int(content["stamp_ns"]),
            support=_support_from_json(content["support_plane"]),
            view_names=tuple(view["name"] for view in content["views"]),
            timings_s=_numbers(content["timings_s"]),
            residuals=_numbers(content["residuals"]),
            warnings=tuple(content["warnings"]),
            metric=bool(content.get("metric", True)),
        )
    except Gena3DError:
        raise
    except KeyError as error:
        raise DataFormatError(f"{path}: lacks the field {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise DataFormatError(f"{path}: a field is of the wrong kind ({error})") from error


def _scene_to_json(scene: Scene, views: tuple[View, ...], names: list[str], pictures: dict[str, str]) -> dict[str, Any]:
    support = scene.support
    return {
        "schema": SCHEMA,
        "software": f"gena3d {__version__}",
        "frame_id": scene.frame_id,
        "stamp_ns": int(scene.stamp_ns),
        "metric": scene.metric,
        "conventions": CONVENTIONS if scene.metric else {**CONVENTIONS, "units": UNSCALED},
        "objects": [_object_to_json(entry, name) for entry, name in zip(scene.objects, names, strict=True)],
        "support_plane": support and {"normal": _list(support.normal), "offset_m": float(support.offset_m)},
        "views": [_view_to_json(view) for view in views] or [{"name": name} for name in scene.view_names],
        "timings_s": _finite(scene.timings_s),
        "residuals": _finite(scene.residuals),
        "warnings": list(scene.warnings),
        "files": pictures,
    }


def _object_to_json(entry: ReconstructedObject, name: str) -> dict[str, Any]:
    return {
        "id": int(entry.id),
        "label": entry.label,
        "score": float(entry.score),
        "T_world_object": _list(entry.T_world_object),
        "size_m": _list(entry.size_m),
        "observed_fraction": float(entry.observed_fraction),
        "vertices": len(entry.mesh.vertices),
        "faces": len(entry.mesh.faces),
        "residuals": _finite(entry.residuals),
        "files": {"mesh": name},
    }


def _view_to_json(view: View) -> dict[str, Any]:
    k = view.intrinsics
    return {
        "name": view.name,
        "camera": view.camera,
        "stamp_ns": int(view.stamp_ns),
        "T_world_camera": _list(view.T_world_camera),
        "intrinsics": {"width": k.width, "height": k.height, "fx": k.fx, "fy": k.fy, "cx": k.cx, "cy": k.cy},
    }


def _object_from_json(entry: dict[str, Any], directory: Path) -> ReconstructedObject:
    where = f"{directory / SCENE_FILE}: object {entry['id']}"
    return ReconstructedObject(
        id=int(entry["id"]),
        label=str(entry["label"]),
        score=float(entry["score"]),
        mesh=mesh_from_glb(_inside(directory, entry["files"]["mesh"])),
        T_world_object=rigid_matrix(entry["T_world_object"], where),
        size_m=np.array(entry["size_m"], dtype=np.float64),
        observed_fraction=float(entry["observed_fraction"]),
        residuals=_numbers(entry["residuals"]),
    )


def _support_from_json(entry: dict[str, Any] | None) -> SupportPlane | None:
    return (
        None if entry is None else SupportPlane(np.array(entry["normal"], dtype=np.float64), float(entry["offset_m"]))
    )


def _inside(directory: Path, name: str) -> Path:
    """A file named by scene.json; a downloaded scene must not point out of its folder."""
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise DataFormatError(f"{directory / SCENE_FILE}: names the file '{name}', which lies outside its folder")
    return path


def _owned(directory: Path) -> set[str]:
    """Names of the files of the scene that lies in `directory` now; empty if there is none."""
    try:
        content = json.loads((directory / SCENE_FILE).read_text(encoding="utf-8"))
        listed = [entry["files"]["mesh"] for entry in content["objects"]] + list(content.get("files", {}).values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return set()
    return {SCENE_FILE, *(name for name in listed if isinstance(name, str) and Path(name).name == name)}


def _one_line_rows(text: str) -> str:
    """Lists of numbers on one line each, as people read matrices."""
    return re.sub(r"\[\n\s*([-+.\deE,\s]+?)\s+\]", lambda m: f"[{' '.join(m[1].split())}]", text)


def _list(array: np.ndarray) -> list:
    return np.asarray(array, dtype=np.float64).tolist()


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: null stands for it."""
    return {key: float(value) if math.isfinite(value) else None for key, value in values.items()}


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {str(key): math.nan if value is None else float(value) for key, value in values.items()}
