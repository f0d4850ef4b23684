"""Opens sources of training meshes by their names."""

from __future__ import annotations

from pathlib import Path

from gena3d_core.errors import InputError

from .mesh_folder import open_mesh_folder
from .mesh_source import PROCEDURAL, CachedSource, MeshSource, known_options, split_source
from .object_folder import INDEX, open_object_folder
from .shapes.source import open_procedural


def open_source(text: str, cache: Path | None = None) -> MeshSource:
    """The source that `text` names.

    procedural:COUNT[:SEED]     shapes of `training.shapes`; 0 is the seed unless given
    FOLDER[,split=train|val]    a folder with objects.csv and objects_*.npz; `train` unless given
    FOLDER[,up=y|z][,unit_m=X]  any folder of mesh files; layouts of GSO, ABO, 3D-FUTURE and Objaverse are recognised;
                                `up` and `unit_m` (metres per unit of the files) overrule what the layout says

    Meshes of files are closed when loaded, which takes a second or so each; with `cache`, a folder, only the first
    time. Raises `InputError` for a text that names nothing.
    """
    if text.startswith(PROCEDURAL):
        return open_procedural(text)
    path, options = split_source("mesh source", text)
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"mesh source '{text}': no folder {folder}; want a folder or {PROCEDURAL}COUNT[:SEED]")
    source: MeshSource
    if (folder / INDEX).is_file():
        source = open_object_folder(folder, **known_options("mesh source", text, options, ("split",)))
    else:
        source = open_mesh_folder(folder, **known_options("mesh source", text, options, ("up", "unit_m")))
    return source if cache is None else CachedSource(source, cache)
