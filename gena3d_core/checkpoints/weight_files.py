"""Files of weights: safetensors, whole or in shards, and pickles without code; headers and hashes."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import DataFormatError
from .safetensors_file import read_safetensors

PICKLES = (".pt", ".pth", ".ckpt", ".bin")
WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Entries in which training scripts keep the state dict of a pickle."""
HASH_LIST = "SHA256SUMS"
"""File beside the weights with lines `hash  name`, as the command sha256sum writes it."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Names in the header of a safetensors file."""


@dataclass(frozen=True)
class TensorHeader:
    """Shape and dtype of a stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def read_weights(files: Sequence[Path]) -> dict[str, Tensor]:
    """Tensors of all files together, on the CPU and memory-mapped where the format allows.

    Raises `DataFormatError` for a missing, truncated or foreign file, a pickle with code, a tensor in two files.
    """
    found: dict[str, Tensor] = {}
    for file in files:
        tensors = _read_pickle(file) if file.suffix in PICKLES else read_safetensors(file)
        if twice := sorted(found.keys() & tensors.keys()):
            raise DataFormatError(f"{file}: '{twice[0]}' is also in another file of the same network")
        found |= tensors
    return found


def read_headers(files: Sequence[Path]) -> dict[str, TensorHeader]:
    """Shapes and dtypes without the values; errors as in `read_weights`."""
    found: dict[str, TensorHeader] = {}
    for file in files:
        headers = _pickle_headers(file) if file.suffix in PICKLES else _safetensors_headers(file)
        if twice := sorted(found.keys() & headers.keys()):
            raise DataFormatError(f"{file}: '{twice[0]}' is also in another file of the same network")
        found |= headers
    return found


def _safetensors_headers(file: Path) -> dict[str, TensorHeader]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass  # That the file is whole is checked on opening; older versions of the package tell no dtypes.
        with file.open("rb") as stream:
            header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        tensors = {key: entry for key, entry in header.items() if key != "__metadata__"}
        return {k: TensorHeader(tuple(e["shape"]), DTYPES[e["dtype"]]) for k, e in tensors.items()}
    except FileNotFoundError as error:
        raise DataFormatError(f"{file}: no such file") from error
    except KeyError as error:
        raise DataFormatError(f"{file}: values of type {error} are not supported") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataFormatError(f"{file}: not a whole safetensors file ({error}); fetch it again") from error


def _pickle_headers(file: Path) -> dict[str, TensorHeader]:
    return {key: TensorHeader(tuple(tensor.shape), tensor.dtype) for key, tensor in _read_pickle(file).items()}


def _read_pickle(file: Path) -> dict[str, Tensor]:
    try:
        content = _load_pickle(file)
    except FileNotFoundError as error:
        raise DataFormatError(f"{file}: no such file") from error
    except pickle.UnpicklingError as error:
        # torch's own message proposes to load it all the same, which would run whatever code the file holds.
        raise DataFormatError(
            f"{file}: holds more than tensors, so reading it could run code; ask for the same weights as .safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise DataFormatError(f"{file}: not a whole file of weights ({error}); fetch it again") from error
    if isinstance(content, Mapping) and (wrapped := [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]):
        content = content[wrapped[0]]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise DataFormatError(f"{file}: expected a state dict (names of parameters -> tensors)")
    return {str(key): tensor.detach() for key, tensor in content.items()}


def _load_pickle(file: Path) -> object:
    # Only torch's zip format can be mapped; older files are read whole.
    with file.open("rb") as stream:
        mappable = stream.read(4) == b"PK\x03\x04"
    return torch.load(file, map_location="cpu", weights_only=True, mmap=mappable)


def file_sha256(file: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises `DataFormatError` if there is none."""
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    except OSError as error:
        raise DataFormatError(f"{file}: cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()


def known_sha256(file: Path) -> str | None:
    """The hash that the file should have: from `SHA256SUMS` beside it, or the name that the hub's cache gave it."""
    listed = file.parent / HASH_LIST
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            match = re.fullmatch(r"([0-9a-fA-F]{64})\s+\*?(.+)", line.strip())
            if match and match[2].removeprefix("./") == file.name:
                return match[1].lower()
    blob = file.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    return None


def check_sha256(file: Path, wanted: str | None) -> None:
    """Raise `DataFormatError` unless the file has the hash `wanted` (None: any)."""
    if wanted is not None and (found := file_sha256(file)) != wanted.lower():
        raise DataFormatError(
            f"{file}: SHA-256 is {found[:12]}… instead of {wanted[:12]}…: the file is damaged or another one; "
            "fetch it again"
        )
