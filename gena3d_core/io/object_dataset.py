"""Folders of single objects: `objects.csv` and shards of meshes, normalised to the unit cube.

`objects.csv` has a row an object with at least `id`, `shard` and `index` (its place there), and where known `category`,
`split`, `scale_m` (metres a unit) and `licence`. A shard is an `.npz` of all its meshes one after the other: `vertices`
(V, 3) float32, `faces` (F, 3) local to each object, `vertex_colors` (V, 3) uint8, and the prefix sums `vertex_offsets`,
`face_offsets`. Meshes lie in [-0.5, 0.5]^3 with z up.
"""

from __future__ import annotations

import csv
import math
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import DataFormatError, InputError
from ..geometry.mesh import make_mesh
from ..types import Mesh

TABLE = "objects.csv"
PROCEDURAL = "procedural"
ARRAYS = ("vertices", "faces", "vertex_offsets", "face_offsets")


@dataclass(frozen=True)
class ObjectEntry:
    """One row of the table; scale_m is None where the source was not metric, split empty where none is named."""

    id: str
    category: str
    split: str
    scale_m: float | None
    shard: str
    index: int
    licence: str = ""

    @property
    def procedural(self) -> bool:
        """Whether the object was made by a generator of random shapes, not modelled after a thing."""
        return self.category == PROCEDURAL


@dataclass(frozen=True, eq=False)
class ObjectDataset:
    """The table of a folder; meshes are read when asked for, a shard at a time."""

    directory: Path
    entries: tuple[ObjectEntry, ...]
    _shards: dict[str, dict[str, np.ndarray]] = field(default_factory=dict, repr=False)

    @staticmethod
    def open(directory: str | Path) -> ObjectDataset:
        """Read the table. Raises `DataFormatError` for a folder that is no such data set."""
        directory = Path(directory)
        return ObjectDataset(directory, tuple(_read_table(directory / TABLE)))

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits, in the order of the table."""
        return tuple(dict.fromkeys(entry.split for entry in self.entries if entry.split))

    def select(self, split: str | None = None, ids: Collection[str] | None = None) -> tuple[ObjectEntry, ...]:
        """Entries of one split (None: of all) whose ids are named (None: all). Raises `InputError` for unknown ones."""
        if split is not None and split not in self.splits:
            raise InputError(f"{self.directory}: has no split '{split}', only {', '.join(self.splits) or 'no names'}")
        unknown = sorted(set(ids or ()) - {entry.id for entry in self.entries})
        if unknown:
            raise InputError(f"{self.directory}: has no object {', '.join(unknown)}")
        return tuple(e for e in self.entries if (split is None or e.split == split) and (ids is None or e.id in ids))

    def load(self, entry: ObjectEntry) -> Mesh:
        """Mesh of an entry in [-0.5, 0.5]^3, z up, with colours where the shard has them. Raises `DataFormatError`."""
        arrays = self._shard(entry.shard)
        count = len(arrays["vertex_offsets"]) - 1
        if not 0 <= entry.index < count:
            raise DataFormatError(f"{self.directory / entry.shard}: holds {count} objects, not number {entry.index}")
        first, last = arrays["vertex_offsets"][entry.index : entry.index + 2]
        faces = arrays["faces"][slice(*arrays["face_offsets"][entry.index : entry.index + 2])]
        colors = arrays.get("vertex_colors")
        try:
            return make_mesh(
                arrays["vertices"][first:last], faces, vertex_colors=None if colors is None else colors[first:last]
            )
        except InputError as error:
            raise DataFormatError(f"{self.directory / entry.shard}: object '{entry.id}': {error}") from error

    def _shard(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._shards:
            # One shard at a time: neighbours in the table mostly share it, and all of them together may not fit.
            self._shards.clear()
            self._shards[name] = _read_shard(self.directory / name)
        return self._shards[name]


def _read_table(path: Path) -> list[ObjectEntry]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataFormatError(f"{path}: cannot be read ({error}); it should list a folder of objects") from error
    if not rows:
        raise DataFormatError(f"{path}: lists no object")
    missing = {"id", "shard", "index"} - set(rows[0])
    if missing:
        raise DataFormatError(f"{path}: lacks the columns {', '.join(sorted(missing))}")
    entries = [_entry(row, path, number + 2) for number, row in enumerate(rows)]
    if len({entry.id for entry in entries}) < len(entries):
        raise DataFormatError(f"{path}: some ids are there twice")
    return entries


def _entry(row: dict[str, str], path: Path, line: int) -> ObjectEntry:
    try:
        scale = float(row["scale_m"]) if row.get("scale_m") else None
        if scale is not None and not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale_m is {scale}")
        if not row["id"] or not row["shard"]:
            raise ValueError("id or shard is empty")
        return ObjectEntry(
            id=row["id"],
            category=row.get("category") or "",
            split=row.get("split") or "",
            scale_m=scale,
            shard=row["shard"],
            index=int(row["index"]),
            licence=row.get("licence") or "",
        )
    except (TypeError, ValueError) as error:
        raise DataFormatError(f"{path}, line {line}: {error}") from error


def _read_shard(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*ARRAYS, "vertex_colors") if name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataFormatError(f"{path}: cannot be read as a shard of meshes ({error})") from error
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise DataFormatError(f"{path}: lacks {', '.join(missing)}")
    lengths = arrays["vertex_offsets"][-1], arrays["face_offsets"][-1]
    if lengths != (len(arrays["vertices"]), len(arrays["faces"])):
        raise DataFormatError(f"{path}: its offsets end at {lengths}, not at the ends of its vertices and faces")
    return arrays
