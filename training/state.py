"""State of a run on disk: `states/NNNNNNNN/`, each whole or not at all; the newest two are kept."""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gena3d_core.errors import DataFormatError
from gena3d_core.io.atomic import write_folder

STATE, DIGEST = "state.pt", "sha256.txt"
KEPT = 2


def save_state(out: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state of `step` below out/states and drop all but the newest two; returns its folder.

    state holds tensors, numbers, strings, lists and dicts only.
    """
    folder = out / "states" / f"{step:08d}"

    def write(target: Path) -> None:
        torch.save(state, target / STATE)
        (target / DIGEST).write_text(_sha256(target / STATE), encoding="utf-8")

    write_folder(folder, write, owned=[STATE, DIGEST], last=DIGEST)
    for old in _folders(out)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def load_newest_state(out: Path, map_location: str | torch.device = "cpu") -> dict[str, Any] | None:
    """The newest state below `out`, None if there is none.

    Raises `DataFormatError` for a damaged one, and says how to go on from the one before.
    """
    folders = _folders(out)
    if not folders:
        return None
    newest = folders[-1]
    before = f"to go on from {folders[-2].name}" if len(folders) > 1 else "to start anew"
    try:
        intact = (newest / DIGEST).read_text(encoding="utf-8").strip() == _sha256(newest / STATE)
        if intact:
            return torch.load(newest / STATE, map_location=map_location, weights_only=True)
    except Exception as error:  # unpickling of a damaged file raises anything
        raise DataFormatError(f"{newest}: no readable state ({error}); delete that folder {before}") from error
    raise DataFormatError(f"{newest}: {STATE} does not match {DIGEST}, it is damaged; delete that folder {before}")


def random_states(device: torch.device) -> dict[str, Any]:
    """States of every global generator of random numbers, as plain data."""
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    version, internal, gauss = random.getstate()
    found: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
        "python": [version, list(internal), gauss],
    }
    if device.type != "cpu":
        found["device"] = _device_rng(device, "get_rng_state")()
    return found


def restore_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Inverse of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if device.type != "cpu" and "device" in states:
        _device_rng(device, "set_rng_state")(states["device"].cpu())


def _device_rng(device: torch.device, name: str) -> Callable[..., Any]:
    return getattr(torch.get_device_module(device), name)


def _folders(out: Path) -> list[Path]:
    return sorted(folder for folder in (out / "states").glob("[0-9]*") if folder.is_dir())


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
