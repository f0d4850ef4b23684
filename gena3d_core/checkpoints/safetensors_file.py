"""Reading of safetensors files with errors that name the file."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..errors import DataFormatError


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of the file, on the CPU; raises `DataFormatError` for a missing, truncated or foreign file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise DataFormatError(f"{path}: no such file") from error
    except (SafetensorError, OSError, ValueError) as error:
        raise DataFormatError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
