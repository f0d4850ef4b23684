"""Published networks: constructor arguments as their config files state them -> our module and its key map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...errors import InputError
from ..key_maps import KeyMap
from ..load import load_state


class PublishedModel(NamedTuple):
    """A module with fresh parameters, and the table that takes published parameter names to its own."""

    module: nn.Module
    key_map: KeyMap


Builder = Callable[[Mapping[str, Any]], PublishedModel]

BUILDERS: dict[str, str] = {
    "SparseStructureFlowModel": "sparse_structure:flow",
    "SparseStructureFlowModelMaskAsCondWeighted": "sparse_structure:amodal_flow",
    "SparseStructureEncoder": "sparse_structure:encoder",
    "SparseStructureDecoder": "sparse_structure:decoder",
    "SceneFlow": "scene:flow",
    "PositionHead": "scene:position_head",
    "SLatFlowModel": "structured_latent:flow",
    "SLatFlowModelMaskAsCondWeighted": "structured_latent:amodal_flow",
    "SLatEncoder": "structured_latent:encoder",
    "SLatMeshDecoder": "structured_latent:mesh_decoder",
    "SLatGaussianDecoder": "structured_latent:gaussian_decoder",
    "SLatRadianceFieldDecoder": "structured_latent:radiance_field_decoder",
    "DinoVisionTransformer": "image_encoders:dinov2",
    "Pi3": "geometry:pi3",
    "Pi3X": "geometry:pi3x",
    "Aggregator": "geometry:aggregator",
    "VGGT": "geometry:aggregator",
}
"""Class name in the published configs -> 'module:function' of this package. `Elastic...` classes are the same."""


def build_published(name: str, constructor: Mapping[str, Any]) -> PublishedModel:
    """Our module for a published class; raises `InputError` for an unknown class or an option that it cannot have."""
    name = _class_name(name)
    if name not in BUILDERS:
        raise InputError(f"network '{name}' is not supported yet; known: {', '.join(BUILDERS)}")
    module, function = BUILDERS[name].split(":")
    return getattr(import_module(f"{__name__}.{module}"), function)(constructor)


def is_supported(name: str) -> bool:
    """Whether `build_published` knows the class."""
    return _class_name(name) in BUILDERS


def _class_name(name: str) -> str:
    # Descriptions may carry a remark behind the name.
    return name.split()[0].removeprefix("Elastic")


def load_published(name: str, constructor: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """`build_published` with the weights in place, in eval mode."""
    module, key_map = build_published(name, constructor)
    return load_state(module, weights, key_map, source)
