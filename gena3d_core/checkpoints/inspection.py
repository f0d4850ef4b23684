"""What `gena3d checkpoint info` shows: contents of a checkpoint's files, checked against our networks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import Gena3DError
from .description import ModuleFiles
from .grown import shared_state
from .key_maps import rename_key
from .load import check_keys
from .open import build_module
from .weight_files import TensorHeader, file_sha256, read_headers


@dataclass(frozen=True)
class FileFacts:
    """A file of weights; as_stated: whether the hash is the one it should have, None where none is known."""

    path: Path
    size: int
    sha256: str
    as_stated: bool | None


@dataclass(frozen=True)
class ModuleFacts:
    """A network of a checkpoint; dtypes: name -> number of values; fault: why it could not be opened, or ""."""

    role: str
    class_name: str
    tensors: int
    parameters: int
    dtypes: dict[str, int]
    files: tuple[FileFacts, ...]
    fault: str = ""


def module_facts(files: ModuleFiles) -> ModuleFacts:
    """Read headers and hashes, no weights; a fault is part of the result, not an error."""
    found: list[FileFacts] = []
    headers: dict[str, TensorHeader] = {}
    parameters, fault = 0, ""
    stored = [part for part in (files, files.base) if part is not None]
    try:
        found = [_file_facts(*pair) for part in stored for pair in zip(part.files, part.sha256, strict=True)]
        headers = read_headers(files.files)
        parameters = _parameters(files, headers)
        if damaged := [facts.path for facts in found if facts.as_stated is False]:
            fault = f"{damaged[0]}: the SHA-256 is not the one stated: the file is damaged or another one"
    except Gena3DError as error:
        fault = str(error)
    dtypes: dict[str, int] = {}
    for header in headers.values():
        name = str(header.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + header.count
    return ModuleFacts(files.role, files.class_name, len(headers), parameters, dtypes, tuple(found), fault)


def _file_facts(file: Path, wanted: str | None) -> FileFacts:
    sha256 = file_sha256(file)
    return FileFacts(file, file.stat().st_size, sha256, None if wanted is None else sha256 == wanted.lower())


def check_module(files: ModuleFiles) -> None:
    """Raise `DataFormatError` unless the files are whole and names and shapes are our network's; reads no weights."""
    _parameters(files, read_headers(files.files))


def _parameters(files: ModuleFiles, headers: dict[str, TensorHeader]) -> int:
    """Number of parameters, buffers left out; raises `DataFormatError` unless names and shapes are our network's."""
    if files.naming == "transformers":
        # Queries, keys and values are stored apart: only reading them tells whether they fit.
        return sum(header.count for header in headers.values())
    with torch.device("meta"):
        module, key_map = build_module(files)
        given = {} if files.base is None else shared_state(build_module(files.base)[0], files.class_name, files.source)
    shapes = {key: tuple(tensor.shape) for key, tensor in given.items()}
    shapes |= {rename_key(key, key_map): header.shape for key, header in headers.items()}
    check_keys(module, shapes, files.source)
    return sum(parameter.numel() for parameter in module.parameters())
