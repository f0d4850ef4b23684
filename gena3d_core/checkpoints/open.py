"""Opening of checkpoints: a name or a path gives the networks, ready to use, or one clear error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import DataFormatError, Gena3DError, InputError
from .bundle import ModelBundle
from .description import CheckpointDescription, ModuleFiles
from .grown import shared_state
from .key_maps import KeyMap
from .load import load_state
from .locate import describe, describe_image_encoder
from .own_models import build_own
from .published import build_published
from .weight_files import check_sha256, read_weights

HALF = (torch.float16, torch.bfloat16)


def open_checkpoint(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    roles: Collection[str] | None = None,
    image_encoder: str | Path | None = None,
    allow_download: bool = False,
) -> ModelBundle:
    """The networks of a checkpoint in eval mode on `device`.

    name_or_path   a directory (ours, or a published pipeline), a file of weights, a family, or owner/repository of
                   the Hugging Face hub (see `locate.describe`)
    dtype          dtype of the matrix products; None: as the files have it
    roles          only these networks (see `ModelBundle`); None: all there are, and the image encoder that it needs
    image_encoder  path or name of the image encoder of a checkpoint that comes without; None: the one that it names
    allow_download fetch what is not on this machine

    Raises `DataFormatError`, or `InputError` for an unknown name or role; nothing is ever half loaded.
    """
    found = describe(name_or_path, allow_download=allow_download)
    modules = dict(found.modules)
    apart = image_encoder or (found.image_encoder if "image_encoder" not in modules else None)
    if apart is not None and (roles is None or "image_encoder" in roles):
        beside = Path(found.source)
        encoder = describe_image_encoder(apart, beside, allow_download=allow_download)
        modules["image_encoder"] = encoder.modules["image_encoder"]
    if roles is not None:
        if unknown := sorted(set(roles) - modules.keys()):
            raise InputError(f"{found.source} has no {', '.join(unknown)}; it has {', '.join(sorted(modules))}")
        modules = {role: files for role, files in modules.items() if role in roles}
    return _bundle(found, {role: load_module(files, device, dtype) for role, files in modules.items()})


def load_module(files: ModuleFiles, device: str | torch.device = "cpu", dtype: torch.dtype | None = None) -> nn.Module:
    """One network with its weights; errors as in `open_checkpoint`."""
    weights = _checked_weights(files)
    wanted_dtype = dtype or stored_half(weights or ({} if files.base is None else read_weights(files.base.files)))
    if files.base is not None:
        # In float32, as when the network was grown: what its layers are made of must come out the same.
        base = load_module(files.base, "cpu", torch.float32)
        weights = {**shared_state(base, files.class_name, files.source), **weights}
    if files.naming == "transformers":
        from .published.image_encoders import load_transformers_dinov2

        model: nn.Module = load_transformers_dinov2(files.constructor, weights, files.source).to(device)
        return _in_precision(model, wanted_dtype)
    with torch.device(device), WithoutInitialisation():
        module, key_map = build_module(files)
    return load_state(_in_precision(module, wanted_dtype), weights, key_map, files.source).to(device)


def _checked_weights(files: ModuleFiles) -> dict[str, Tensor]:
    for file, wanted in zip(files.files, files.sha256, strict=True):
        check_sha256(file, wanted)
    return read_weights(files.files)


def build_module(files: ModuleFiles) -> tuple[nn.Module, KeyMap]:
    """The network without its weights, and the table of its parameter names."""
    try:
        if files.naming == "own":
            return build_own(files.class_name, files.constructor), ()
        return build_published(files.class_name, files.constructor)
    except (Gena3DError, KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        # Whatever a constructor makes of its arguments, they come from the file's description.
        raise DataFormatError(f"{files.source}: no {files.class_name} can be made as described ({error})") from error


def stored_half(weights: Mapping[str, Tensor]) -> torch.dtype | None:
    """The half-precision dtype of a file, where it has one: such files stay half unless asked otherwise."""
    sizes = {half: sum(t.numel() for t in weights.values() if t.dtype == half) for half in HALF}
    largest = max(HALF, key=sizes.__getitem__)
    return largest if sizes[largest] else None


def _in_precision(module: nn.Module, dtype: torch.dtype | None) -> nn.Module:
    if dtype is not None:
        set_precision: Any = getattr(module, "set_precision", None)
        if set_precision is None:
            raise InputError(f"a {type(module).__name__} cannot compute in another precision")
        set_precision(dtype)
    return module


def _bundle(found: CheckpointDescription, modules: Mapping[str, nn.Module]) -> ModelBundle:
    return ModelBundle(
        family=found.family,
        source=found.source,
        modules=modules,
        frame=found.frame,
        fusion=found.fusion,
        image_size=found.image_size,
        samplers=found.samplers,
        slat_mean=None if found.slat_mean is None else torch.tensor(found.slat_mean),
        slat_std=None if found.slat_std is None else torch.tensor(found.slat_std),
        metadata=found.metadata,
    )


class WithoutInitialisation(TorchFunctionMode):
    """Inside, `torch.nn.init` does nothing: drawing numbers that the weights replace takes longer than reading them."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
