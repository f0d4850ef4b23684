"""The last good scene of a node: object ids that stay, answers to queries, files below one folder."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from gena3d_core.errors import InputError
from gena3d_core.io import save_scene
from gena3d_core.layout.tracking import assign_ids, merged, remember, with_forced_ids, with_ids_of
from gena3d_core.types import ReconstructedObject, Reconstruction, Scene
from gena3d_ros.msg import ReconstructedScene

from .conversions import scene_to_msg

MAX_NAME_LENGTH = 128


class SceneMemory:
    """Thread-safe keeper of the last reconstruction."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: Reconstruction | None = None
        self._known: Scene | None = None
        self._next_id = 1

    @property
    def scene(self) -> Scene | None:
        """The last good scene."""
        with self._lock:
            return self._last.scene if self._last is not None else None

    def keep(
        self, reconstruction: Reconstruction, again: Sequence[int] = (), keep_others: bool = False
    ) -> Reconstruction:
        """Keep a new reconstruction; the same with the ids of objects that were seen before.

        again: ids of the objects that were asked for once more; those found for them have the ids 1, 2, ... in
        `reconstruction`. keep_others: objects of the last scene that it lacks stay.
        """
        with self._lock:
            scene = assign_ids(self._known, reconstruction.scene, first_new_id=self._next_id)
            asked = dict(enumerate(again, start=1))
            found = {i: asked[o.id] for i, o in enumerate(reconstruction.scene.objects) if o.id in asked}
            if found:
                scene = with_forced_ids(scene, found, self._next_id)
            result = with_ids_of(reconstruction, scene)
            if keep_others and self._last is not None:
                result = replace(result, scene=merged(self._last.scene, scene))
            self._known = remember(self._known, result.scene)
            self._next_id = max([self._next_id, *(item.id + 1 for item in result.scene.objects)])
            self._last = result
            return result

    def objects(self, ids: Sequence[int]) -> tuple[ReconstructedObject, ...]:
        """These objects of the last scene; raises `InputError` for an id that it does not hold."""
        if not ids:
            return ()
        known = {item.id: item for item in self._require().scene.objects}
        if missing := [number for number in ids if number not in known]:
            raise InputError(f"objects {missing} are not in the last scene, which holds {sorted(known)}")
        return tuple(known[number] for number in dict.fromkeys(ids))

    def message(self, ids: Collection[int], include_meshes: bool) -> ReconstructedScene:
        """Message with the objects in `ids` (empty: all); raises `InputError` without a scene or for an unknown id."""
        return scene_to_msg(self._require().scene, ids=ids, include_meshes=include_meshes)

    def save(self, root: Path, name: str) -> Path:
        """Write scene.json and a mesh an object into folder `name` of `root` (empty: named by the scene's time).

        Raises `InputError` for a name that would lead outside `root`, or when there is no scene yet.
        """
        reconstruction = self._require()
        folder = child_folder(root, name or default_name(reconstruction.scene.stamp_ns))
        save_scene(reconstruction, folder)
        return folder

    def _require(self) -> Reconstruction:
        with self._lock:
            if self._last is None:
                raise InputError("no scene yet: nothing has been reconstructed since the node was configured")
            return self._last


def default_name(stamp_ns: int) -> str:
    """Folder name of a time, such as `scene_20260102T030405_006`."""
    seconds, rest_ns = divmod(stamp_ns, 1_000_000_000)
    time = datetime.fromtimestamp(seconds, tz=timezone.utc)
    return f"scene_{time:%Y%m%dT%H%M%S}_{rest_ns // 1_000_000:03d}"


def child_folder(root: Path, name: str) -> Path:
    """Path of folder `name` directly inside `root`, which is made if missing.

    Raises `InputError` for anything that is not a plain name (a path, `..`, a hidden name) and for a link, which could
    lead elsewhere.
    """
    if not name.isprintable() or name != name.strip() or "/" in name or "\\" in name or name.startswith("."):
        raise InputError(f"{name!r} is refused: give a plain folder name, without slashes or a leading dot")
    if not name or len(name.encode()) > MAX_NAME_LENGTH:
        raise InputError(f"a folder name has 1 to {MAX_NAME_LENGTH} bytes, got {len(name.encode())}")
    try:
        root = root.expanduser()
        root.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"output_directory '{root}' cannot be made: {error}") from error
    path = root.resolve() / name
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise InputError(f"{name!r} is refused: '{path}' is a link or a file, not a folder")
    return path
