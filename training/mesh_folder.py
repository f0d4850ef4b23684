"""Folders of mesh files, with the layouts of GSO, ABO, 3D-FUTURE and Objaverse: where files lie, which way is up."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.meshing.solid_closing import LONGEST_SIDE, close_mesh, normalise, refined

from .mesh_files import COLORED_EDGE, SUFFIXES, load_surface
from .mesh_source import TrainingMesh

UPS = ("y", "z")
Z_UP_SUFFIXES = (".ply", ".stl", ".off")
"""Files of these kinds mostly hold z-up meshes where no layout tells; the others are y-up (glTF by its standard)."""


@dataclass(frozen=True)
class Layout:
    """How a published set lies on disk.

    pattern    of a mesh file's path below the folder, as a regular expression; the group `id` names the object
    up         the axis that points up; None: by the kind of file
    unit_m     metres per unit of the files; None: not metric
    categories category of each id, read from what lies beside
    """

    name: str
    pattern: str
    up: str | None
    unit_m: float | None
    categories: Callable[[Path], Mapping[str, str]]


@dataclass(frozen=True)
class MeshFolder:
    """Mesh files below a folder; each is loaded, closed, turned z up and normalised."""

    folder: Path
    layout: Layout
    up: str | None
    unit_m: float | None
    split: str = "all"

    @property
    def name(self) -> str:
        return f"{self.folder.resolve()}:{self.layout.name}:{self.up}"

    @cached_property
    def files(self) -> Mapping[str, Path]:
        """Mesh file of each id, sorted by id."""
        return MappingProxyType(dict(sorted(_matches(self.folder, self.layout))))

    @cached_property
    def categories(self) -> Mapping[str, str]:
        """Category of each id that has one."""
        return self.layout.categories(self.folder)

    def ids(self) -> Sequence[str]:
        return list(self.files)

    def load(self, id: str) -> TrainingMesh:
        path = self.files.get(id)
        if path is None:
            raise InputError(f"{self.folder}: no mesh '{id}'")
        surface = load_surface(path)
        up = self.up or ("z" if path.suffix.lower() in Z_UP_SUFFIXES else "y")
        mesh = surface.mesh if up == "z" else mesh_ops.transformed(surface.mesh, T_ZUP_YUP)
        points = surface.points if up == "z" else surface.points @ T_ZUP_YUP[:3, :3].T
        try:
            closed = close_mesh(mesh)
            if surface.textured:
                closed = refined(closed, COLORED_EDGE)
        except InputError as error:
            raise DataFormatError(f"{path}: {error}") from error
        colored = surface.colored(closed, points)
        size = float(np.ptp(colored.vertices, axis=0).max())
        scale_m = None if self.unit_m is None else self.unit_m * size / LONGEST_SIDE
        return TrainingMesh(id, self.categories.get(id, "unknown"), normalise(colored), scale_m)


T_ZUP_YUP = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
"""Turns coordinates with y up into such with z up."""


def open_mesh_folder(folder: Path, up: str | None = None, unit_m: str | None = None) -> MeshFolder:
    """The mesh files below `folder`, by the first layout that finds some; raises `InputError` if there is none."""
    if up is not None and up not in UPS:
        raise InputError(f"{folder}: up must be one of {', '.join(UPS)}, got '{up}'")
    for layout in LAYOUTS:
        if any(True for _ in _matches(folder, layout)):
            return MeshFolder(folder, layout, up or layout.up, _positive(unit_m) if unit_m else layout.unit_m)
    raise InputError(f"{folder} holds no mesh file ({', '.join(SUFFIXES)})")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not (np.isfinite(value) and value > 0):
        raise InputError(f"unit_m must be a positive number of metres, got '{text}'")
    return value


def _matches(folder: Path, layout: Layout) -> Iterable[tuple[str, Path]]:
    pattern = re.compile(layout.pattern)
    for path in folder.rglob("*"):
        found = pattern.fullmatch(path.relative_to(folder).as_posix())
        if found and path.suffix.lower() in SUFFIXES and path.is_file():
            yield found["id"], path


def _no_categories(folder: Path) -> Mapping[str, str]:
    return {}


def _parent_categories(folder: Path) -> Mapping[str, str]:
    """Name of the folder in which each file lies, as ModelNet-like sets do it."""
    return {id: path.parent.name for id, path in _matches(folder, ANY) if path.parent != folder}


def _gso_categories(folder: Path) -> Mapping[str, str]:
    """`categories { first: "Shoe" }` in each model's metadata.pbtxt."""
    found = {}
    for path in folder.glob("*/metadata.pbtxt"):
        match = re.search(r'categories\s*{\s*first:\s*"([^"]+)"', path.read_text(encoding="utf-8", errors="replace"))
        if match:
            found[path.parent.name] = match[1]
    return found


def _future_categories(folder: Path) -> Mapping[str, str]:
    """model_info.json in the folder or above it."""
    for path in (folder / "model_info.json", folder.parent / "model_info.json"):
        if path.is_file():
            rows = _json(path)
            return {row["model_id"]: str(row.get("category") or row.get("super-category") or "unknown") for row in rows}
    return {}


def _objaverse_categories(folder: Path) -> Mapping[str, str]:
    """lvis-annotations.json.gz in the folder or above it: category -> ids."""
    for parent in (folder, folder.parent, folder.parent.parent):
        path = parent / "lvis-annotations.json.gz"
        if path.is_file():
            return {id: category for category, ids in _json(path).items() for id in ids}
    return {}


def _json(path: Path) -> Any:
    try:
        data = path.read_bytes()
        return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    except (OSError, ValueError, EOFError) as error:
        raise DataFormatError(f"{path}: not readable JSON ({error})") from error


ANY = Layout("files", r"(?P<id>.+)\.\w+", None, None, _no_categories)
LAYOUTS = (
    Layout("gso", r"(?P<id>[^/]+)/meshes/model\.obj", "z", 1.0, _gso_categories),
    Layout("3d-future", r"(?:.*/)?(?P<id>[^/]+)/raw_model\.obj", "y", 1.0, _future_categories),
    Layout("3d-future", r"(?:.*/)?(?P<id>[^/]+)/normalized_model\.obj", "y", None, _future_categories),
    Layout("objaverse", r"(?:.*/)?glbs/[^/]+/(?P<id>[0-9a-f]{32})\.glb", "y", None, _objaverse_categories),
    Layout("abo", r"(?:.*/)?original/[^/]/(?P<id>[A-Z0-9]{10})\.glb", "y", 1.0, _no_categories),
    Layout("files", ANY.pattern, None, None, _parent_categories),
)
"""Tried in this order."""
