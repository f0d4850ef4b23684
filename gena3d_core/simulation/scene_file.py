"""Scene files: YAML or JSON to `SceneSpec`, with errors that name file, key and fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from ..errors import DataFormatError, Gena3DError, InputError
from ..geometry import transforms
from ..types import Intrinsics
from .noise import NoiseSpec
from .scene import LightSpec, ObjectSpec, OrbitPath, PosePath, RoomSpec, SceneSpec, TableSpec, object_mesh
from .textures import Texture

SCHEMA = 1


def load_scene_spec(path: str | Path) -> SceneSpec:
    """Read a scene file (.yaml, .yml, .json).

    Raises `DataFormatError` with file, key and fault for a missing, unreadable or wrong file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFormatError(f"cannot read scene file {path}: {error}") from error
    try:
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise DataFormatError(
            f"scene file {path} is not valid {path.suffix[1:] or 'YAML'}: {_one_line(error)}"
        ) from error
    return _Reader(path).scene(data)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Reader:
    """Turns the mappings of one file into specs; remembers the file for its messages."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def fail(self, key: str, fault: str) -> NoReturn:
        raise DataFormatError(f"scene file {self.path}: {key}: {fault}")

    def mapping(self, value: Any, key: str, allowed: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.fail(key, f"expected a mapping, got {type(value).__name__}")
        allowed = list(allowed)
        for name in value:
            if name not in allowed:
                self.fail(f"{key}.{name}", f"unknown key; known: {', '.join(allowed)}")
        for name in required:
            if name not in value:
                self.fail(f"{key}.{name}", "missing")
        return value

    def number(self, value: Any, key: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            self.fail(key, f"expected a finite number, got {value!r}")
        return float(value)

    def numbers(self, value: Any, key: str, count: int | None = None) -> tuple[float, ...]:
        if not isinstance(value, list) or (count is not None and len(value) != count):
            self.fail(
                key,
                f"expected a list of {count if count is not None else ''} numbers, got {value!r}".replace("  ", " "),
            )
        return tuple(self.number(v, f"{key}[{i}]") for i, v in enumerate(value))

    def build(self, cls: type, value: Any, key: str, **readers: Callable[[Any, str], Any]) -> Any:
        """A dataclass from a mapping; `readers` convert fields, all others are plain numbers."""
        names = [f.name for f in dataclasses.fields(cls)]
        data = self.mapping(value, key, names)
        fields = {n: readers.get(n, self.number)(v, f"{key}.{n}") for n, v in data.items()}
        try:
            return cls(**fields)
        except (Gena3DError, TypeError) as error:
            self.fail(key, _one_line(error))

    def vector(self, count: int | None) -> Callable[[Any, str], tuple[float, ...]]:
        return lambda value, key: self.numbers(value, key, count)

    def text(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value:
            self.fail(key, f"expected a text, got {value!r}")
        return value

    def integer(self, value: Any, key: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"expected a whole number, got {value!r}")
        return value

    def texture(self, value: Any, key: str) -> Texture:
        def colors(items: Any, where: str) -> tuple[tuple[float, ...], ...]:
            if not isinstance(items, list):
                self.fail(where, f"expected a list of RGB triples, got {items!r}")
            return tuple(self.numbers(c, f"{where}[{i}]", 3) for i, c in enumerate(items))

        return self.build(
            Texture, value, key, kind=self.text, colors=colors, limits_m=self.vector(None), seed=self.integer
        )

    def room(self, value: Any, key: str) -> RoomSpec | None:
        if value is None:
            return None
        return self.build(RoomSpec, value, key, size_m=self.vector(3), floor=self.texture, walls=self.texture)

    def table(self, value: Any, key: str) -> TableSpec:
        return self.build(TableSpec, value, key, size_m=self.vector(2), texture=self.texture)

    def lights(self, value: Any, key: str) -> tuple[LightSpec, ...]:
        if not isinstance(value, list):
            self.fail(key, "expected a list of lamps")
        vector = self.vector(3)
        return tuple(
            self.build(LightSpec, v, f"{key}[{i}]", position_m=vector, color=vector) for i, v in enumerate(value)
        )

    def intrinsics(self, value: Any, key: str) -> Intrinsics:
        return self.build(Intrinsics, value, key, width=self.integer, height=self.integer)

    def noise(self, value: Any, key: str) -> NoiseSpec | None:
        return None if value is None else self.build(NoiseSpec, value, key)

    def camera_path(self, value: Any, key: str) -> OrbitPath | PosePath:
        if isinstance(value, dict) and "T_world_camera" in value:
            self.mapping(value, key, ("T_world_camera",))
            return PosePath(self.matrices(value["T_world_camera"], f"{key}.T_world_camera"))
        return self.build(OrbitPath, value, key, target_m=self.vector(3), frames=self.integer)

    def matrices(self, value: Any, key: str) -> np.ndarray:
        try:
            array = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            self.fail(key, "expected a list of 4x4 matrices")
        if array.ndim != 3 or array.shape[1:] != (4, 4) or not np.isfinite(array).all():
            self.fail(key, f"expected a list of finite 4x4 matrices, got shape {array.shape}")
        return array

    def object_spec(self, value: Any, key: str) -> ObjectSpec:
        allowed = ("name", "kind", "params", "mesh", "position_m", "rpy_deg", "T_world_object", "texture")
        data = self.mapping(value, key, allowed, required=("name",))
        name = self.text(data["name"], f"{key}.name")
        if ("kind" in data) == ("mesh" in data):
            self.fail(key, "give either kind (a primitive) or mesh (a file)")
        mesh_path = (self.path.parent / self.text(data["mesh"], f"{key}.mesh")) if "mesh" in data else None
        spec: dict[str, Any] = {
            "name": name,
            "kind": "mesh" if mesh_path else self.text(data["kind"], f"{key}.kind"),
            "mesh_path": mesh_path,
            "params": self.params(data.get("params", {}), f"{key}.params"),
        }
        if "texture" in data:
            spec["texture"] = self.texture(data["texture"], f"{key}.texture")
        try:
            unplaced = ObjectSpec(**spec)
            if "T_world_object" in data:
                T = self.matrices([data["T_world_object"]], f"{key}.T_world_object")[0]
            else:
                T = self.placed(unplaced, data, key)
            return dataclasses.replace(unplaced, T_world_object=T)
        except DataFormatError:
            raise
        except Gena3DError as error:
            self.fail(key, _one_line(error))

    def params(self, value: Any, key: str) -> Mapping[str, object]:
        if not isinstance(value, dict):
            self.fail(key, f"expected a mapping, got {type(value).__name__}")
        return value

    def placed(self, spec: ObjectSpec, data: Mapping[str, Any], key: str) -> np.ndarray:
        """Pose from `position_m` [x, y] (resting on the table) or [x, y, z], and `rpy_deg` about the fixed axes."""
        position = self.numbers(data.get("position_m", [0.0, 0.0]), f"{key}.position_m")
        if len(position) not in (2, 3):
            self.fail(f"{key}.position_m", "expected [x, y] to rest on the table, or [x, y, z]")
        rpy = self.numbers(data.get("rpy_deg", [0.0, 0.0, 0.0]), f"{key}.rpy_deg", 3)
        R = Rotation.from_euler("xyz", rpy, degrees=True).as_matrix()
        mesh = object_mesh(spec)  # also finds bad parameters and mesh files while the key is known
        z = position[2] if len(position) == 3 else -float((mesh.vertices @ R.T)[:, 2].min())
        return transforms.rigid(R, np.array([position[0], position[1], z]))

    def scene(self, value: Any) -> SceneSpec:
        allowed = (
            "schema",
            "name",
            "objects",
            "table",
            "room",
            "lights",
            "ambient",
            "intrinsics",
            "camera_path",
            "noise",
        )
        data = self.mapping(value, "scene", allowed, required=("schema", "objects"))
        if data["schema"] != SCHEMA:
            self.fail("schema", f"expected {SCHEMA}, got {data['schema']!r}")
        if not isinstance(data["objects"], list):
            self.fail("objects", "expected a list")
        fields: dict[str, Any] = {
            "objects": tuple(self.object_spec(v, f"objects[{i}]") for i, v in enumerate(data["objects"])),
            "name": self.text(data.get("name", self.path.stem), "name"),
        }
        readers = {
            "table": self.table, "room": self.room, "lights": self.lights, "ambient": self.number,
            "intrinsics": self.intrinsics, "camera_path": self.camera_path, "noise": self.noise,
        }  # fmt: skip
        fields |= {name: read(data[name], name) for name, read in readers.items() if name in data}
        try:
            return SceneSpec(**fields)
        except InputError as error:
            self.fail("objects", str(error))
