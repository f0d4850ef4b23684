"""Strict loading of a state dict: everything is checked before anything is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from ..errors import DataFormatError
from .key_maps import KeyMap, rename

Module = TypeVar("Module", bound=nn.Module)


def load_state(module: Module, weights: Mapping[str, Tensor], key_map: KeyMap = (), source: str = "weights") -> Module:
    """Load `weights` (published names, see `key_map`) into `module` and return it in eval mode.

    Values are converted to the dtype of the module's parameters. Missing or extra keys, wrong shapes and values that
    are not finite raise `DataFormatError` that names `source` and the keys; the module is then unchanged.
    """
    renamed = rename(weights, key_map)
    check_keys(module, {key: tuple(tensor.shape) for key, tensor in renamed.items()}, source)
    broken = [key for key, tensor in renamed.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise DataFormatError(f"{source}: NaN or infinity in {_listed(broken)}: the file is damaged")
    module.load_state_dict(renamed)
    return module.eval()


def check_keys(module: nn.Module, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise `DataFormatError` unless `shapes` (our names) are exactly the state of `module`."""
    wanted = {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
    faults = []
    if missing := sorted(wanted.keys() - shapes.keys()):
        faults.append(f"missing {_listed(missing)}")
    if extra := sorted(shapes.keys() - wanted.keys()):
        faults.append(f"not expected {_listed(extra)}")
    wrong = [
        f"{k} {shapes[k]} instead of {wanted[k]}"
        for k in sorted(wanted.keys() & shapes.keys())
        if shapes[k] != wanted[k]
    ]
    if wrong:
        faults.append(f"wrong shape: {_listed(wrong)}")
    if faults:
        raise DataFormatError(f"{source} does not fit {type(module).__name__}: {'; '.join(faults)}")


def _listed(names: list[str], shown: int = 4) -> str:
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + rest
