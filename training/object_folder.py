"""Folders of packed objects: objects.csv beside objects_{train,val}_NN.npz."""

from __future__ import annotations

import csv
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.meshing.solid_closing import close_mesh, normalise
from gena3d_core.types import Mesh

from .mesh_source import TrainingMesh

INDEX = "objects.csv"
COLUMNS = ("id", "category", "scale_m", "split", "shard", "index")
ARRAYS = ("vertices", "faces", "vertex_colors", "vertex_offsets", "face_offsets")


@dataclass(frozen=True)
class PackedObject:
    """One row of objects.csv: where the object lies and what is known of it."""

    id: str
    category: str
    scale_m: float | None
    shard: str
    index: int


@dataclass(frozen=True)
class ObjectFolder:
    """Objects of one split; meshes that are not closed are closed when loaded."""

    folder: Path
    split: str
    rows: tuple[PackedObject, ...]

    @property
    def name(self) -> str:
        return f"{self.folder.resolve()}:{self.split}"

    def ids(self) -> Sequence[str]:
        return [row.id for row in self.rows]

    def load(self, id: str) -> TrainingMesh:
        row = next((row for row in self.rows if row.id == id), None)
        if row is None:
            raise InputError(f"{self.folder}: no object '{id}' in split '{self.split}'")
        mesh = normalise(close_mesh(read_packed(self.folder / row.shard, row.index)))
        return TrainingMesh(row.id, row.category, mesh, row.scale_m)


def open_object_folder(folder: Path, split: str = "train") -> ObjectFolder:
    """Raises `DataFormatError` for an objects.csv without the needed columns, `InputError` for an empty split."""
    path = folder / INDEX
    with path.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    missing = [column for column in COLUMNS if not table or column not in table[0]]
    if missing:
        raise DataFormatError(f"{path}: no rows or no column {', '.join(missing)}")
    splits = sorted({row["split"] for row in table})
    if split not in splits:
        raise InputError(f"{path}: no split '{split}'; it has {', '.join(splits)}")
    rows = tuple(
        PackedObject(
            id=row["id"],
            category=row["category"],
            scale_m=float(row["scale_m"]) if row["scale_m"] else None,
            shard=row["shard"],
            index=int(row["index"]),
        )
        for row in table
        if row["split"] == split
    )
    return ObjectFolder(folder, split, rows)


def read_packed(path: Path, index: int) -> Mesh:
    """Object number `index` of an objects_*.npz as it is stored; raises `DataFormatError` for a damaged file."""
    arrays = _arrays(path)
    if not 0 <= index < len(arrays["vertex_offsets"]) - 1:
        raise DataFormatError(f"{path}: no object number {index}")
    vertices = slice(*arrays["vertex_offsets"][index : index + 2])
    faces = slice(*arrays["face_offsets"][index : index + 2])
    return Mesh(
        vertices=arrays["vertices"][vertices],
        faces=arrays["faces"][faces].astype(np.int32),
        vertex_colors=arrays["vertex_colors"][vertices],
    )


@functools.lru_cache(maxsize=4)
def _arrays(path: Path) -> MappingProxyType[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as data:
            return MappingProxyType({name: data[name] for name in ARRAYS})
    except (OSError, ValueError, KeyError) as error:
        raise DataFormatError(f"{path}: not a readable file of packed objects ({error})") from error
