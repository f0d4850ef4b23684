"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from uuid import uuid4

from ..errors import InputError


def write_file(path: Path, data: bytes) -> None:
    """Write `data` to a temporary name beside `path`, then rename; raises `InputError` if that cannot be."""
    fresh = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        fresh.unlink(missing_ok=True)


def write_folder(target: Path, write: Callable[[Path], None], owned: Collection[str], last: str) -> None:
    """Make the folder `target` with what `write(folder)` puts into the empty folder that it is given.

    An existing `target` is replaced as a whole when it holds nothing but the files named in `owned` (those of the
    earlier result); otherwise, the other files stay, each new file replaces its namesake, `last` comes last, and the
    files of `owned` that are not written again go. When `write` fails, `target` is as it was. Raises `InputError`
    if `target` cannot be made.
    """
    target = Path(os.path.abspath(target))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{target.name}.new-{uuid4().hex[:8]}")
        fresh.mkdir()
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    try:
        write(fresh)
        if not target.exists():
            os.rename(fresh, target)
        elif not target.is_dir():
            raise InputError(f"{target}: is a file, not a folder; choose another output folder")
        elif {entry.name for entry in target.iterdir()} <= set(owned) and not Path.cwd().is_relative_to(target):
            _swap(fresh, target)
        else:
            _merge(fresh, target, owned, last)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, target: Path) -> None:
    aside = fresh.with_name(fresh.name.replace(".new-", ".old-"))
    os.rename(target, aside)
    try:
        os.rename(fresh, target)
    except OSError:
        os.rename(aside, target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _merge(fresh: Path, target: Path, owned: Collection[str], last: str) -> None:
    new = sorted((entry.name for entry in fresh.iterdir()), key=lambda name: (name == last, name))
    for name in new:
        os.replace(fresh / name, target / name)
    for name in set(owned) - set(new):
        (target / name).unlink(missing_ok=True)
