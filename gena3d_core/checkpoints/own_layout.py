"""Our own checkpoints: a folder with config.json and safetensors files, each with its SHA-256.

A checkpoint that was grown from another one may hold only what it adds: its config names that one under `base`, and its
networks, under `base` too, the role there whose weights they share, with the hashes of the files that held them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from ..errors import DataFormatError
from .bundle import GridFrame, ViewFusion
from .description import CheckpointDescription, ModuleFiles, entry, floats, read_json, sampler_defaults
from .own_models import OWN_MODELS
from .registry import places

CONFIG = "config.json"
SCHEMA = 1


def is_own(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is of this layout."""
    return "schema" in config and "modules" in config


def read_own(folder: Path) -> CheckpointDescription:
    """The folder's description; raises `DataFormatError` that names the file and what is wrong in it."""
    file = folder / CONFIG
    config = read_json(file)
    if config.get("schema") != SCHEMA:
        raise DataFormatError(f"{file}: schema {config.get('schema')!r} is unknown, this gena3d reads {SCHEMA}")
    described = entry(config, "modules", dict, file)
    base = _base(config, folder, file)
    modules = {role: _module(role, content, folder, file, base) for role, content in described.items()}
    if not modules:
        raise DataFormatError(f"{file}: names no network")
    normalization = config.get("slat_normalization") or {}
    samplers = config.get("samplers") or {}
    return CheckpointDescription(
        family=entry(config, "family", str, file),
        source=str(folder),
        modules=modules,
        frame=_choice(config, "frame", get_args(GridFrame), file),
        fusion=_choice(config, "fusion", get_args(ViewFusion), file),
        image_size=entry(config, "image_size", int, file),
        image_encoder=config.get("image_encoder"),
        samplers={name: sampler_defaults(params, file) for name, params in samplers.items()},
        slat_mean=floats(normalization.get("mean"), "mean", file) if normalization else None,
        slat_std=floats(normalization.get("std"), "std", file) if normalization else None,
        metadata=config.get("metadata") or {},
    )


def _base(config: Mapping[str, Any], folder: Path, file: Path) -> CheckpointDescription | None:
    """The checkpoint that this one was grown from: beside it, or where a family of that name is looked for."""
    if config.get("base") is None:
        return None
    name = entry(config, "base", str, file)
    if Path(name).name != name or name in ("", ".", ".."):
        raise DataFormatError(f"{file}: 'base' must be the name of a checkpoint, got {name!r}")
    looked = [place for place in (folder.absolute().parent / name, *places(name)) if place != folder.absolute()]
    found = next((place for place in looked if (place / CONFIG).is_file()), None)
    if found is None:
        raise DataFormatError(
            f"{file}: the checkpoint '{name}', whose weights it shares, is not in {', '.join(map(str, looked))}"
        )
    if read_json(found / CONFIG).get("base") is not None:
        raise DataFormatError(f"{file}: its base {found} needs a base itself, which is not supported")
    return read_own(found)


def _shared(role: str, content: Any, base: CheckpointDescription | None, file: Path) -> ModuleFiles:
    """The network of the base that the network `role` says it shares weights with."""
    if base is None or not isinstance(content, dict):
        raise DataFormatError(f"{file}: '{role}' shares weights, but the config names no base with them")
    theirs, hashes = entry(content, "role", str, file), tuple(entry(content, "sha256", list, file))
    if theirs not in base.modules:
        raise DataFormatError(f"{file}: its base {base.source} has no {theirs}, only {', '.join(base.modules)}")
    if base.modules[theirs].sha256 != hashes:
        raise DataFormatError(
            f"{file}: was made from other weights of {theirs} than {base.source} has: the two checkpoints do not "
            "belong together; fetch both again"
        )
    return base.modules[theirs]


def _module(
    role: str, content: Any, folder: Path, file: Path, base: CheckpointDescription | None = None
) -> ModuleFiles:
    if not isinstance(content, dict):
        raise DataFormatError(f"{file}: '{role}' must be an object with class, config and files, got {content!r}")
    class_name = entry(content, "class", str, file)
    if class_name not in OWN_MODELS:
        raise DataFormatError(
            f"{file}: the class '{class_name}' of '{role}' is unknown, one of {', '.join(OWN_MODELS)}"
        )
    stored = entry(content, "files", list, file)
    shared = _shared(role, content["base"], base, file) if content.get("base") is not None else None
    if not stored and shared is None:
        raise DataFormatError(f"{file}: '{role}' has no files")
    paths, hashes = [], []
    for item in stored:
        if not isinstance(item, dict):
            raise DataFormatError(f"{file}: a file of '{role}' must be an object with name and sha256, got {item!r}")
        name, sha256 = entry(item, "name", str, file), entry(item, "sha256", str, file)
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise DataFormatError(f"{file}: '{name}' is no name of a .safetensors file in the same folder")
        paths.append(folder / name)
        hashes.append(sha256)
    constructor = entry(content, "config", dict, file)
    return ModuleFiles(role, class_name, constructor, tuple(paths), tuple(hashes), "own", shared)


def _choice(config: Mapping[str, Any], name: str, known: tuple[Any, ...], file: Path) -> Any:
    if config.get(name) not in known:
        raise DataFormatError(f"{file}: '{name}' must be one of {', '.join(known)}, got {config.get(name)!r}")
    return config[name]
