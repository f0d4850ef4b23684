"""Networks of scene geometry by name: found, checked within seconds, and opened when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import DataFormatError, Gena3DError, InputError
from .description import ModuleFiles
from .front_ends import front_end, log_licence, required_folder
from .inspection import check_module
from .locate import describe
from .open import load_module
from .published_layout import read_network_file

ROLE = "scene_geometry"
CLASSES = {"pi3": ("Pi3",), "pi3x": ("Pi3X",)}
"""Name -> classes, published and ours, that are this network."""
CALLED = {
    "Pi3": "π³",
    "Pi3X": "π³X",
    "Aggregator": "the aggregator of VGGT",
    "VggtAggregator": "the aggregator of VGGT",
}


def find_scene_geometry(name: str, checkpoint: str | Path | None = None) -> ModuleFiles:
    """The files of the network `name`, known to be whole and of that network; none of the weights is read.

    checkpoint: a path, None: the places that `gena3d checkpoint info NAME` lists. Raises `DataFormatError` for files
    that are absent, damaged or of another network, `InputError` for an unknown name.
    """
    if name not in CLASSES:
        raise InputError(f"'{name}' is no network of scene geometry; known: {', '.join(CLASSES)}")
    model = front_end(name)
    place = required_folder(model) / model.files[0].name if checkpoint is None else Path(checkpoint)
    try:
        found = read_network_file(place) if checkpoint is None else describe(place)
        module = found.modules.get(ROLE)
        if module is None or module.class_name.split()[0] not in CLASSES[name]:
            held = CALLED.get(module.class_name, module.class_name) if module else ", ".join(found.modules)
            raise DataFormatError(f"{place}: holds {held}, not {CALLED[CLASSES[name][0]]}")
        check_module(module)
    except Gena3DError as error:
        text = str(error) if str(place) in str(error) else f"{place}: {error}"
        raise DataFormatError(f"stereo '{name}': {text}. Get it with: {model.obtain}") from error
    return module


def checked_scene_geometry(
    name: str, checkpoint: str | Path | None = None, *, device: str = "cpu", dtype: torch.dtype | None = None
) -> Callable[[], Any]:
    """Check the files now (errors as in `find_scene_geometry`); what is returned opens the network on `device`.

    'vggt' is run by a package of its authors (see `vggt_package`). dtype: of the matrix products; None: bfloat16 on an
    accelerator, float32 on a CPU. Opening says the licence if it does not allow every use, and raises `DataFormatError`
    for values that are not finite or a wrong hash.
    """
    if name == "vggt":
        from .vggt_package import checked_vggt

        return checked_vggt(checkpoint, device=device, dtype=dtype)
    module = find_scene_geometry(name, checkpoint)

    def open_network() -> nn.Module:
        log_licence(front_end(name))
        wanted_dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
        return load_module(module, device, wanted_dtype)

    return open_network
