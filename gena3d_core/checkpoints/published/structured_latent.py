"""Stage 2 of TRELLIS and Amodal3R."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import InputError
from ...models.gaussians import GaussianActivation
from ...models.structured_latent_decoders import (
    GaussianDecoderConfig,
    StructuredLatentGaussianDecoder,
    StructuredLatentMeshDecoder,
    StructuredLatentRadianceFieldDecoder,
)
from ...models.structured_latent_flow import StructuredLatentFlow, StructuredLatentFlowConfig
from ...models.structured_latent_vae import StructuredLatentEncoder, StructuredLatentVAEConfig
from ..key_maps import FLOW_BLOCK, MESH_DECODER, VOXEL_TRANSFORMER
from . import PublishedModel
from .arguments import config_from

ACTIVATION_ARGUMENTS = {
    "scaling_activation": "scaling_activation",
    "scaling_bias": "scaling_bias",
    "opacity_bias": "opacity_bias",
    "3d_filter_kernel_size": "kernel_3d",
    "2d_filter_kernel_size": "kernel_2d",
}
"""Published names of the fields of `GaussianActivation`."""

GAUSSIAN_ARGUMENTS = ("num_gaussians", "voxel_size", "perturb_offset")


def flow(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatFlowModel`."""
    return PublishedModel(_flow(constructor), FLOW_BLOCK)


def amodal_flow(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatFlowModelMaskAsCondWeighted` of Amodal3R; here no sample of a batch sees another's image, unlike there."""
    return PublishedModel(_flow(constructor, occlusion_attention=True), FLOW_BLOCK)


def encoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatEncoder`."""
    return _in_precision(StructuredLatentEncoder(_vae(constructor)), constructor, VOXEL_TRANSFORMER)


def mesh_decoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatMeshDecoder`, up to the features; the surface is extracted by its caller."""
    arguments = _representation(constructor, ("use_color",))
    model = StructuredLatentMeshDecoder(_vae(constructor), use_color=bool(arguments.get("use_color", False)))
    return _in_precision(model, constructor, MESH_DECODER)


def gaussian_decoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatGaussianDecoder`."""
    arguments = _representation(constructor, (*GAUSSIAN_ARGUMENTS, "lr", *ACTIVATION_ARGUMENTS))
    activation = {ours: arguments[theirs] for theirs, ours in ACTIVATION_ARGUMENTS.items() if theirs in arguments}
    gaussians = GaussianDecoderConfig(
        lr={name.removeprefix("_"): float(factor) for name, factor in arguments.get("lr", {}).items()},
        activation=GaussianActivation(**activation),
        **{name: arguments[name] for name in GAUSSIAN_ARGUMENTS if name in arguments},
    )
    model = StructuredLatentGaussianDecoder(_vae(constructor), gaussians)
    return _in_precision(model, constructor, VOXEL_TRANSFORMER)


def radiance_field_decoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SLatRadianceFieldDecoder`."""
    arguments = _representation(constructor, ("rank", "dim"))
    if missing := [name for name in ("rank", "dim") if name not in arguments]:
        raise InputError(f"representation_config of the radiance-field decoder needs {', '.join(missing)}")
    model = StructuredLatentRadianceFieldDecoder(_vae(constructor), **arguments)
    return _in_precision(model, constructor, VOXEL_TRANSFORMER)


def _flow(constructor: Mapping[str, Any], **ours: Any) -> StructuredLatentFlow:
    levels = tuple(constructor.get("io_block_channels") or ())
    config = config_from(
        StructuredLatentFlowConfig,
        constructor,
        fixed={"pe_mode": "ape"},
        ignored=("use_fp16", "mask_cond_type"),
        io_block_channels=levels,
        # Without levels the published network leaves the grid as it is, whatever its patch_size says.
        patch_size=constructor.get("patch_size", 2) if levels else 1,
        **ours,
    )
    model = StructuredLatentFlow(config)
    if constructor.get("use_fp16"):
        model.set_precision(torch.float16)
    return model


def _vae(constructor: Mapping[str, Any]) -> StructuredLatentVAEConfig:
    return config_from(
        StructuredLatentVAEConfig,
        constructor,
        fixed={"pe_mode": "ape"},
        ignored=("use_fp16", "representation_config"),
    )


def _representation(constructor: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
    arguments = dict(constructor.get("representation_config") or {})
    if unknown := sorted(arguments.keys() - set(known)):
        raise InputError(f"representation_config: unknown {', '.join(unknown)}; known: {', '.join(known)}")
    return arguments


def _in_precision(
    model: StructuredLatentEncoder
    | StructuredLatentMeshDecoder
    | StructuredLatentGaussianDecoder
    | StructuredLatentRadianceFieldDecoder,
    constructor: Mapping[str, Any],
    key_map: Any,
) -> PublishedModel:
    if constructor.get("use_fp16"):
        model.set_precision(torch.float16)
    return PublishedModel(model, key_map)
