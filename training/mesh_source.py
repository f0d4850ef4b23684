"""What a source of training meshes is: it lists ids and loads each closed and normalised; caches around it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from gena3d_core.errors import InputError
from gena3d_core.io.atomic import write_file
from gena3d_core.types import Mesh

PROCEDURAL = "procedural:"
"""How the names of sources of made-up shapes begin."""
CACHE_VERSION = 2
"""Raised whenever the same file would load as another mesh, so that older caches are not used."""


@dataclass(frozen=True, eq=False)
class TrainingMesh:
    """One object to train on.

    mesh     closed, within the unit cube [-0.5, 0.5]^3 with the longest side 0.98, z up; with vertex colours
    scale_m  metres per unit of the mesh; None where the source does not know
    """

    id: str
    category: str
    mesh: Mesh
    scale_m: float | None = None


class MeshSource(Protocol):
    """A set of objects; the same id always loads the same mesh."""

    @property
    def name(self) -> str:
        """What it is, for reports and the names of cached files."""
        ...

    @property
    def split(self) -> str:
        """Which part of the set it is: `train`, `val`, or `all`."""
        ...

    def ids(self) -> Sequence[str]:
        """Every id, in a fixed order."""
        ...

    def load(self, id: str) -> TrainingMesh:
        """Raises `InputError` for an id that is not in `ids()`, `DataFormatError` for a file that holds no mesh."""
        ...


def split_source(kind: str, text: str) -> tuple[str, dict[str, str]]:
    """'PATH,key=value,...' -> path, options; `kind` is for the message of the `InputError`."""
    path, *options = text.split(",")
    pairs = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not separator or not value:
            raise InputError(f"{kind} '{text}': option '{option}' must read KEY=VALUE")
        pairs[key] = value
    return path, pairs


def known_options(kind: str, text: str, options: dict[str, str], known: Sequence[str]) -> dict[str, str]:
    """The options, all of which are among `known`; raises `InputError` otherwise."""
    for key in options:
        if key not in known:
            raise InputError(f"{kind} '{text}': unknown option '{key}'; this kind knows: {', '.join(known)}")
    return options


@dataclass(frozen=True)
class CachedSource:
    """A source whose loaded meshes are kept as files of `folder`."""

    source: MeshSource
    folder: Path

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def split(self) -> str:
        return self.source.split

    def ids(self) -> Sequence[str]:
        return self.source.ids()

    def load(self, id: str) -> TrainingMesh:
        path = self.folder / f"{hashlib.sha256(f'{CACHE_VERSION}|{self.name}|{id}'.encode()).hexdigest()[:32]}.npz"
        found = _read_cached(path, id)
        if found is None:
            found = self.source.load(id)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_file(path, _as_bytes(found))
        return found


@dataclass(frozen=True)
class RecentSource:
    """A source that remembers the `count` meshes asked for last."""

    source: MeshSource
    count: int = 256

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def split(self) -> str:
        return self.source.split

    def ids(self) -> Sequence[str]:
        return self._ids

    def load(self, id: str) -> TrainingMesh:
        return self._load(id)

    @cached_property
    def _ids(self) -> Sequence[str]:
        return list(self.source.ids())

    @cached_property
    def _load(self) -> Callable[[str], TrainingMesh]:
        return lru_cache(self.count)(self.source.load)


def innermost(source: MeshSource) -> MeshSource:
    """The source without caches around it."""
    while isinstance(source, CachedSource | RecentSource):
        source = source.source
    return source


def _as_bytes(item: TrainingMesh) -> bytes:
    colors = item.mesh.vertex_colors
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        id=item.id,
        category=item.category,
        vertices=item.mesh.vertices,
        faces=item.mesh.faces,
        vertex_colors=np.zeros((0, 3), np.uint8) if colors is None else colors,
        scale_m=np.nan if item.scale_m is None else item.scale_m,
    )
    return buffer.getvalue()


def _read_cached(path: Path, id: str) -> TrainingMesh | None:
    """What the file holds; None if it is missing, damaged or of another id, so that it is made again."""
    try:
        with np.load(path, allow_pickle=False) as data:
            if str(data["id"]) != id:
                return None
            colors, scale_m = data["vertex_colors"], float(data["scale_m"])
            mesh = Mesh(data["vertices"], data["faces"], vertex_colors=colors if len(colors) else None)
            return TrainingMesh(id, str(data["category"]), mesh, scale_m if np.isfinite(scale_m) else None)
    except (OSError, ValueError, KeyError, EOFError):
        return None
