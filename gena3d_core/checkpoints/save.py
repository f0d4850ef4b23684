"""Writing of our own checkpoints: a folder that appears whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import DataFormatError, InputError
from ..io.atomic import write_folder
from .bundle import ModelBundle
from .description import read_json
from .grown import Base, own_state, shares
from .open import load_module
from .own_layout import CONFIG, SCHEMA, read_own
from .own_models import own_config
from .weight_files import file_sha256

READABLE = 0o644


def save_bundle(
    bundle: ModelBundle,
    directory: Path,
    max_file_mb: float = 15.0,
    *,
    image_encoder: str | None = None,
    base: Path | None = None,
) -> None:
    """Write the bundle's networks as they are (dtypes kept) and its config; `open_checkpoint` gives the same back.

    max_file_mb    files are split between tensors so that none is larger (a tensor that is has a file of its own)
    image_encoder  name of `registry.IMAGE_ENCODERS`: that of the bundle is one that everybody has and is left out
    base           folder of a checkpoint of ours that networks of the bundle were grown from: what they have from it is
                   left out, and read from there when the checkpoint is opened (from beside it, or by the folder's name)

    An earlier checkpoint in `directory` is replaced. Raises `InputError` for a network that is none of ours, for
    values that are not finite, and where nothing can be written.
    """
    roles = {role: m for role, m in bundle.modules.items() if not (image_encoder and role == "image_encoder")}
    if not roles:
        raise InputError("a checkpoint without networks cannot be saved")
    described = {role: own_config(module) for role, module in roles.items()}
    common = None if base is None else _open_base(base)
    for role, module in roles.items():
        _check_finite(role, module)

    def write(folder: Path) -> None:
        modules = {}
        for role, module in roles.items():
            state, shared = _split_state(role, module, common)
            files = _write_shards(state, role, folder, round(max_file_mb * 1e6))
            modules[role] = {"class": described[role][0], "config": described[role][1], "files": files, **shared}
        config = _config(bundle, modules, image_encoder)
        if common is not None:
            config["base"] = common.name
        (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")

    write_folder(directory, write, owned=_owned(directory), last=CONFIG)


def _split_state(role: str, module: nn.Module, base: Base | None) -> tuple[Mapping[str, Tensor], dict[str, Any]]:
    """What is to be stored of a network, and where the rest comes from as its entry of the config says it."""
    theirs = None if base is None else base.modules.get(role)
    if base is None or theirs is None or not shares(module, theirs):
        return module.state_dict(), {}
    return own_state(module, theirs), {"base": {"role": role, "sha256": list(base.sha256[role])}}


def _config(bundle: ModelBundle, modules: Mapping[str, Any], image_encoder: str | None) -> dict[str, Any]:
    normalization = None
    if bundle.slat_mean is not None and bundle.slat_std is not None:
        normalization = {"mean": bundle.slat_mean.tolist(), "std": bundle.slat_std.tolist()}
    return {
        "schema": SCHEMA,
        "family": bundle.family,
        "frame": bundle.frame,
        "fusion": bundle.fusion,
        "image_size": bundle.image_size,
        "image_encoder": image_encoder,
        "modules": modules,
        "samplers": {name: asdict(defaults) for name, defaults in bundle.samplers.items()},
        "slat_normalization": normalization,
        "metadata": dict(bundle.metadata),
    }


def _write_shards(state: Mapping[str, Tensor], role: str, folder: Path, limit: int) -> list[dict[str, str]]:
    from safetensors.torch import save_file

    if not state:
        return []
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in state.items():
        nbytes = tensor.numel() * tensor.element_size()
        if shards[-1] and size + nbytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().cpu().contiguous().clone()
        size += nbytes
    names = (
        [f"{role}.safetensors"]
        if len(shards) == 1
        else [f"{role}-{i + 1:03d}-of-{len(shards):03d}.safetensors" for i in range(len(shards))]
    )
    for name, shard in zip(names, shards, strict=True):
        save_file(shard, folder / name, metadata={"format": "pt"})
        # safetensors keeps them to their owner, but whoever may read the folder may read its weights.
        (folder / name).chmod(READABLE)
    return [{"name": name, "sha256": file_sha256(folder / name)} for name in names]


def _check_finite(role: str, module: nn.Module) -> None:
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{role}: NaN or infinity in {name}: a checkpoint of it would be useless")


def _owned(directory: Path) -> list[str]:
    """Files of the checkpoint that is there already, which the new one replaces."""
    try:
        modules = read_json(directory / CONFIG)["modules"].values()
        return [CONFIG, *(str(file["name"]) for module in modules for file in module["files"])]
    except (DataFormatError, KeyError, TypeError, AttributeError):
        return []


def _open_base(folder: Path) -> Base:
    """A checkpoint of ours as a base; raises `DataFormatError` for what cannot be read."""
    found = read_own(folder)
    modules = {role: load_module(files, "cpu", torch.float32) for role, files in found.modules.items()}
    return Base(folder.absolute().name, modules, {role: files.sha256 for role, files in found.modules.items()})
