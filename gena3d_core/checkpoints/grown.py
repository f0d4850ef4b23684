"""Networks that were grown from those of another checkpoint: which weights they share with it, and which are theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataFormatError, InputError
from ..models.scene_flow import SceneFlow
from ..models.scene_upgrade import object_state
from ..models.sparse_structure_flow import SparseStructureFlow


@dataclass(frozen=True)
class Base:
    """A checkpoint that others share weights with.

    name     of its folder: it is looked for beside theirs, and where families are
    modules  its networks in float32 by role; sha256: hashes of the files of each
    """

    name: str
    modules: dict[str, nn.Module]
    sha256: dict[str, tuple[str | None, ...]]


def shared_state(base: nn.Module, class_name: str, source: str = "weights") -> dict[str, Tensor]:
    """State that a network of `class_name` has from `base`: all of it for its own kind, that of objects for scenes.

    Raises `DataFormatError` for kinds between which nothing is shared.
    """
    if class_name == type(base).__name__:
        return dict(base.state_dict())
    if class_name == SceneFlow.__name__ and isinstance(base, SparseStructureFlow):
        return object_state(base)
    raise DataFormatError(f"{source}: a {class_name} shares no weights with a {type(base).__name__}")


def own_state(module: nn.Module, base: nn.Module) -> dict[str, Tensor]:
    """The tensors of `module` that it does not have from `base`, bit for bit; `base` is in float32."""
    given = shared_state(base, type(module).__name__)
    found = {}
    for name, tensor in module.state_dict().items():
        theirs = given.get(name)
        same = theirs is not None and theirs.shape == tensor.shape and torch.equal(theirs.to(tensor), tensor)
        if not same:
            found[name] = tensor
    return found


def shares(module: Any, base: Any) -> bool:
    """Whether a network can hold weights of `base`, and does."""
    try:
        return len(own_state(module, base)) < len(module.state_dict())
    except (DataFormatError, InputError):
        return False
