"""Numbered folders of plain arrays with a JSON list of what each example was made from; whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gena3d_core.errors import DataFormatError
from gena3d_core.io.atomic import write_folder

PREFIX = "shard_"
INDEX = "examples.json"


def shard_folder(directory: Path, number: int) -> Path:
    """`shard_NNNNN` below `directory`."""
    return directory / f"{PREFIX}{number:05d}"


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray], info: Sequence[Mapping[str, Any]]) -> Path:
    """Write NAME.npy of each array and the index; an earlier folder of that name is replaced. Returns `folder`."""

    def write(target: Path) -> None:
        for name, array in arrays.items():
            np.save(target / f"{name}.npy", array, allow_pickle=False)
        (target / INDEX).write_text(json.dumps([dict(entry) for entry in info]), encoding="utf-8")

    write_folder(folder, write, owned=[*(f"{name}.npy" for name in arrays), INDEX], last=INDEX)
    return folder


def read_array(folder: Path, name: str) -> Any:
    """NAME.npy by memory map; raises `DataFormatError` if it cannot be read."""
    try:
        return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{folder}: no readable {name}.npy ({error}); render it again") from error


def read_info(folder: Path) -> list[dict[str, Any]]:
    """The index; raises `DataFormatError` if it cannot be read."""
    try:
        return json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataFormatError(f"{folder}: no readable {INDEX} ({error}); render it again") from error


def shard_folders(directory: Path, command: str) -> list[Path]:
    """Every shard below `directory`, in order; raises `DataFormatError`, naming `command`, if there is none."""
    folders = [folder for folder in sorted(directory.glob(f"{PREFIX}*")) if folder.is_dir()]
    if not folders:
        raise DataFormatError(f"{directory} holds no shard of examples: make some with {command}")
    return folders
