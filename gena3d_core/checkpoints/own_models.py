"""Our networks by class name, and their constructor arguments to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from importlib import import_module
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from torch import nn

from ..errors import InputError

OWN_MODELS: dict[str, str] = {
    "SparseStructureFlow": "sparse_structure_flow",
    "SparseStructureEncoder": "sparse_structure_vae",
    "SparseStructureDecoder": "sparse_structure_vae",
    "StructuredLatentFlow": "structured_latent_flow",
    "StructuredLatentEncoder": "structured_latent_vae",
    "StructuredLatentMeshDecoder": "structured_latent_decoders",
    "StructuredLatentGaussianDecoder": "structured_latent_decoders",
    "StructuredLatentRadianceFieldDecoder": "structured_latent_decoders",
    "SceneFlow": "scene_flow",
    "SmallSceneGeometry": "scene_geometry",
    "CompletionUNet": "completion_unet",
    "DinoV2": "image_encoders.dinov2",
    "SmallEncoder": "image_encoders.small",
    "Pi3": "geometry.pi3",
    "Pi3X": "geometry.pi3x",
    "VggtAggregator": "geometry.vggt",
}
"""Class -> its module in `gena3d_core.models`. Every constructor takes a dataclass `config` and at most a few further
arguments, each kept as the attribute of its name."""


def build_own(class_name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network with fresh parameters from what `own_config` gave; raises `InputError` for what does not fit."""
    cls = own_class(class_name)
    hints = _constructor_hints(cls)
    further = {name: value for name, value in arguments.items() if name in hints and name != "config"}
    if missing := sorted(hints.keys() - further.keys() - {"config"}):
        raise InputError(f"{class_name} needs {', '.join(missing)}")
    config = {name: value for name, value in arguments.items() if name not in further}
    values = {name: _decoded(hints[name], value) for name, value in {"config": config, **further}.items()}
    return cls(**values)


def own_config(module: nn.Module) -> tuple[str, dict[str, Any]]:
    """Class name and constructor arguments, fit for JSON: the fields of its config and the further arguments.

    Raises `InputError` for a network that is none of `OWN_MODELS`.
    """
    name = type(module).__name__
    if name not in OWN_MODELS or not is_dataclass(getattr(module, "config", None)):
        raise InputError(f"a {name} cannot be saved, only {', '.join(OWN_MODELS)}")
    found: dict[str, Any] = {}
    for argument in _constructor_hints(type(module)):
        value: Any = getattr(module, argument)
        stored = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
        found |= stored if argument == "config" else {argument: stored}
    return name, found


def own_class(name: str) -> type[nn.Module]:
    """The class; raises `InputError` for an unknown name."""
    if name not in OWN_MODELS:
        raise InputError(f"the class '{name}' is unknown, one of {', '.join(OWN_MODELS)}")
    return getattr(import_module(f"gena3d_core.models.{OWN_MODELS[name]}"), name)


def _constructor_hints(cls: type) -> dict[str, Any]:
    constructor = next(vars(c)["__init__"] for c in cls.__mro__ if "__init__" in vars(c))
    return {name: hint for name, hint in get_type_hints(constructor).items() if name != "return"}


def _decoded(hint: Any, value: Any) -> Any:
    """JSON knows neither tuples nor dataclasses."""
    if get_origin(hint) in (Union, UnionType):
        return None if value is None else _decoded(next(a for a in get_args(hint) if a is not type(None)), value)
    if is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _dataclass(hint, value)
    if get_origin(hint) in (tuple, Sequence) and isinstance(value, list):
        return tuple(value)
    return value


def _dataclass(kind: type, values: Mapping[str, Any]) -> Any:
    known = {field.name: field for field in fields(kind)}
    if unknown := sorted(values.keys() - known.keys()):
        raise InputError(f"{kind.__name__} knows no {', '.join(unknown)}")
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"{kind.__name__} needs {', '.join(missing)}")
    hints = get_type_hints(kind)
    return kind(**{name: _decoded(hints[name], value) for name, value in values.items()})
