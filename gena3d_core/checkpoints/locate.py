"""From the name of a checkpoint to its description: a path, a family, or a repository of the hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from ..errors import DataFormatError, Gena3DError, InputError
from . import hub
from .description import CheckpointDescription, read_json
from .own_layout import CONFIG, is_own, read_own
from .published_layout import PIPELINE, read_network_file, read_networks, read_pipeline, read_transformers
from .registry import FAMILIES, IMAGE_ENCODERS, places
from .weight_files import PICKLES


def describe(name_or_path: str | Path, *, allow_download: bool = False) -> CheckpointDescription:
    """Find a checkpoint and read what it states about itself, none of its weights.

    name_or_path: a directory, a file of weights, a family of `registry.FAMILIES`, or owner/repository[@revision] of
    the hub. Nothing is fetched unless `allow_download`. Raises `InputError` for a name that nothing is known by,
    `DataFormatError` for what is not there or broken.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return describe_directory(path, allow_download=allow_download)
    if path.is_file():
        return _describe_file(path)
    name = str(name_or_path)
    if name in FAMILIES:
        return describe_directory(_family_folder(name, allow_download), allow_download=allow_download)
    if hub.is_repository_name(name):
        return describe_directory(hub.snapshot(name, allow_download=allow_download), allow_download=allow_download)
    raise InputError(
        f"'{name}' is neither a directory or file nor a known checkpoint: give a path, one of {', '.join(FAMILIES)}, "
        "or owner/repository of the Hugging Face hub"
    )


def describe_directory(folder: Path, *, allow_download: bool = False) -> CheckpointDescription:
    """The checkpoint in `folder`, whatever its layout; raises `DataFormatError`."""
    if (folder / CONFIG).is_file() and is_own(read_json(folder / CONFIG)):
        return read_own(folder)
    if (folder / PIPELINE).is_file():
        return read_pipeline(folder, partial(hub.find_elsewhere, allow_download=allow_download))
    found = read_transformers(folder) if (folder / CONFIG).is_file() else None
    found = found or read_networks(folder)
    if found is None:
        raise DataFormatError(
            f"{folder}: holds no checkpoint: neither {CONFIG} of ours, nor {PIPELINE}, nor networks as name.json and "
            "name.safetensors"
        )
    return found


def local_folder(name: str) -> Path | None:
    """Where the family is on this machine, or None; the hub's cache included."""
    family = FAMILIES[name]
    for place in places(name):
        if any((place / file).is_file() for file in (CONFIG, PIPELINE)):
            return place
    if family.repository is None:
        return None
    try:
        folder = hub.snapshot(family.repository, allow_download=False)
    except Gena3DError:
        return None
    return folder if (folder / PIPELINE).is_file() or (folder / CONFIG).is_file() else None


def describe_image_encoder(
    name_or_path: str | Path, beside: Path, *, allow_download: bool = False
) -> CheckpointDescription:
    """An image encoder that comes apart: a path, or a name of `registry.IMAGE_ENCODERS`.

    A name is looked for in the folder `beside` of the checkpoint, in the places of the families, in the torch hub's
    and in the Hugging Face hub's cache.
    """
    name = str(name_or_path)
    if name not in IMAGE_ENCODERS or Path(name_or_path).exists():
        found = describe(name_or_path, allow_download=allow_download)
        if "image_encoder" not in found.modules:
            raise DataFormatError(f"{found.source}: holds no image encoder, only {', '.join(found.modules)}")
        return found
    known = IMAGE_ENCODERS[name]
    folders = (beside, *places(name), Path(torch.hub.get_dir()) / "checkpoints")
    for file in (folder / known.torch_hub_file for folder in folders):
        if file.is_file():
            return read_network_file(file)
    for place in places(name):
        if (place / CONFIG).is_file():
            return describe_directory(place)
    try:
        return describe(known.repository, allow_download=allow_download)
    except Gena3DError as error:
        raise DataFormatError(
            f"the image encoder {name} is not on this machine: put {known.torch_hub_file} into {folders[-1]}, or give "
            f"--image-encoder with its file or the folder of {known.repository} ({error})"
        ) from error


def _describe_file(file: Path) -> CheckpointDescription:
    if file.suffix in (".safetensors", *PICKLES):
        return read_network_file(file)
    if file.name in (CONFIG, PIPELINE):
        return describe_directory(file.parent)
    raise DataFormatError(f"{file}: no checkpoint: expected a folder, a .safetensors or a .pt/.pth file")


def _family_folder(name: str, allow_download: bool) -> Path:
    family = FAMILIES[name]
    if (local := local_folder(name)) is not None:
        return local
    if family.repository is None:
        looked = ", ".join(str(place) for place in places(name))
        raise DataFormatError(f"the checkpoint '{name}' is not in {looked}; {family.obtain}")
    return hub.snapshot(family.repository, allow_download=allow_download)
