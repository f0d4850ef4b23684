"""A scene as a layout: which meshes stand where, and what they stand on; and where such layouts come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from gena3d_core.errors import InputError
from gena3d_core.types import Float64Array, Intrinsics, SupportPlane, require_rigid, require_shape

from ..meshes import PROCEDURAL, MeshSource, known_options, split_source

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True, eq=False)
class SceneObject:
    """mesh: id in a `MeshSource`; S_world_object (4, 4): similarity of its mesh (unit cube) to the world, metres."""

    mesh: str
    S_world_object: Float64Array


@dataclass(frozen=True, eq=False)
class SceneCamera:
    """A camera that came with a layout; T_world_camera (4, 4), optical frame."""

    T_world_camera: Float64Array
    intrinsics: Intrinsics


@dataclass(frozen=True, eq=False)
class SceneLayout:
    """Objects in a world with z up, metres.

    support  plane on which they rest, directly or on one another; None if unknown
    cameras  those that came with the layout, maybe none
    query    number of the object that counts as the query where nothing else says so
    """

    id: str
    objects: tuple[SceneObject, ...]
    support: SupportPlane | None = None
    cameras: tuple[SceneCamera, ...] = ()
    query: int = 0

    def __post_init__(self) -> None:
        if not self.objects:
            raise InputError(f"scene '{self.id}' has no object")
        if not 0 <= self.query < len(self.objects):
            raise InputError(f"scene '{self.id}': query {self.query} is none of its {len(self.objects)} objects")
        for number, item in enumerate(self.objects):
            _require_similarity(f"S_world_object of object {number} of scene '{self.id}'", item.S_world_object)
        for number, camera in enumerate(self.cameras):
            require_rigid(f"T_world_camera {number} of scene '{self.id}'", camera.T_world_camera)


def _require_similarity(name: str, S: np.ndarray) -> None:
    require_shape(name, S, (4, 4))
    scale = np.cbrt(np.linalg.det(S[:3, :3])) if np.isfinite(S).all() else 0.0
    if scale <= 0:
        raise InputError(f"{name} is no similarity with a positive scale")
    unscaled = S.copy()
    unscaled[:3, :3] /= scale
    require_rigid(f"{name}, without its scale,", unscaled)


class SceneSource(Protocol):
    """A set of layouts; the same id always loads the same layout."""

    @property
    def name(self) -> str:
        """What it is, for reports."""
        ...

    def ids(self) -> Sequence[str]:
        """Every id, in a fixed order."""
        ...

    def load(self, id: str) -> SceneLayout:
        """Raises `InputError` for an id that is not in `ids()`, `DataFormatError` for a layout that cannot be read."""
        ...


def open_scenes(text: str, meshes: MeshSource) -> SceneSource:
    """The source that `text` names, with objects out of `meshes`.

    procedural:COUNT[:SEED][,objects=2..6][,stacked=0.25]   sampled scenes (`training.scenes.sampler`)
    FOLDER[,split=train|val]     a folder of layouts as JSON (`training.scenes.layout_folder`)
    FOLDER[,split=train|test]    3D-FUTURE-scene as published (`training.scenes.future`); meshes must be the folder of
                                 3D-FUTURE-model

    Raises `InputError` for a text that names nothing.
    """
    from .future import ANNOTATIONS, open_future
    from .layout_folder import open_layout_folder
    from .sampler import open_sampler

    path, options = split_source("scene source", text)
    if path.startswith(PROCEDURAL):
        return open_sampler(path, meshes, known_options("scene source", text, options, ("objects", "stacked")))
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"scene source '{text}': no folder {folder}; want a folder or {PROCEDURAL}COUNT[:SEED]")
    split = known_options("scene source", text, options, ("split",)).get("split", "train")
    if (folder / ANNOTATIONS).is_dir():
        return open_future(folder, split, meshes)
    return open_layout_folder(folder, split)
