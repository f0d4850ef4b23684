"""Models of others that the front ends can use: whether they are here, whole, and under which licence."""

from __future__ import annotations

import logging
from pathlib import Path

from ..errors import DataFormatError, Gena3DError, InputError
from . import hub
from .front_end_table import FRONT_ENDS, FrontEndModel
from .registry import places
from .weight_files import check_sha256, known_sha256, read_headers

log = logging.getLogger("gena3d")


def front_end(name: str) -> FrontEndModel:
    """The model; raises `InputError` for an unknown name."""
    if name not in FRONT_ENDS:
        raise InputError(f"'{name}' is no model of a front end; known: {', '.join(FRONT_ENDS)}")
    return FRONT_ENDS[name]


def present_folder(model: FrontEndModel) -> Path | None:
    """The folder of this machine that holds all its files, the hub's cache included; None: not here."""
    for folder in places(model.name):
        if all((folder / file.name).is_file() for file in model.files):
            return folder
    # Asking the hub's package imports its network library, which takes seconds.
    if model.repository is None or not hub.may_be_cached(model.repository):
        return None
    try:
        folder = hub.snapshot(model.repository, allow_download=False, patterns=[file.name for file in model.files])
    except Gena3DError:
        return None
    return folder if all((folder / file.name).is_file() for file in model.files) else None


def required_folder(model: FrontEndModel) -> Path:
    """`present_folder`; raises the `DataFormatError` that says where the files are expected and how to get them."""
    if (folder := present_folder(model)) is not None:
        return folder
    looked = ", ".join(str(place) for place in places(model.name))
    hub_too = f" or the hub cache of {model.repository}" if model.repository else ""
    gate = f" (accept its terms first: https://huggingface.co/{model.repository})" if model.gated else ""
    raise DataFormatError(
        f"the weights of {model.name} are not on this machine ({model.files[0].name} is not in {looked}{hub_too}); get "
        f"the {model.about_gb:g} GB{gate} with: {model.obtain}; licence: {licence_text(model)}"
    )


def licence_text(model: FrontEndModel) -> str:
    """The licence, and what it forbids."""
    remark = {True: " (non-commercial use only)", False: "", None: " (licence unclear)"}[model.non_commercial]
    return model.licence + remark


def log_licence(model: FrontEndModel) -> None:
    """Say a licence that does not allow every use, when the weights are loaded."""
    if model.non_commercial is not False:
        log.warning("%s: licence of the weights: %s", model.name, licence_text(model))


def check_files(model: FrontEndModel, folder: Path, *, hashes: bool = True) -> None:
    """Raise `DataFormatError` for a file of the wrong size or hash, or one that is not whole; reads no weights.

    hashes: also hash files whose SHA-256 is known, which takes seconds a gigabyte.
    """
    for file in model.files:
        path = folder / file.name
        if file.size is not None and path.stat().st_size != file.size:
            raise DataFormatError(
                f"{path}: {path.stat().st_size} bytes instead of {file.size}: damaged or another file; fetch it again: "
                f"{model.obtain}"
            )
        if hashes:
            check_sha256(path, file.sha256 or known_sha256(path))
        if path.suffix == ".safetensors":
            read_headers([path])
