"""Where layouts of scenes come from: an opened source lists ids and loads each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from gena3d_core.errors import InputError
from gena3d_core.io.scene_layouts import open_layout_folder
from gena3d_core.simulation.scene_layout import SceneLayout

from ..mesh_source import PROCEDURAL, MeshSource, known_options, split_source


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
    FOLDER[,split=train|val]     a folder of layouts as JSON (`gena3d_core.io.scene_layouts`)
    FOLDER[,split=train|test]    3D-FUTURE-scene as published (`training.scenes.future`); meshes must be the folder of
                                 3D-FUTURE-model

    Raises `InputError` for a text that names nothing.
    """
    from .future import ANNOTATIONS, open_future
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
