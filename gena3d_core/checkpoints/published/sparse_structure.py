"""Stage 1 of TRELLIS and Amodal3R: flow models and the sparse-structure VAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig
from ...models.sparse_structure_vae import (
    SparseStructureDecoder,
    SparseStructureDecoderConfig,
    SparseStructureEncoder,
    SparseStructureEncoderConfig,
)
from ..key_maps import FLOW_BLOCK
from . import PublishedModel, build_published
from .arguments import config_from


def flow(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SparseStructureFlowModel`; with `use_global` it is SceneGen's network of the same class name."""
    if constructor.get("use_global"):
        return build_published("SceneFlow", constructor)
    return PublishedModel(_flow(constructor), FLOW_BLOCK)


def amodal_flow(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SparseStructureFlowModelMaskAsCondWeighted` of Amodal3R."""
    return PublishedModel(_flow(constructor, occlusion_attention=True), FLOW_BLOCK)


def _flow(constructor: Mapping[str, Any], **ours: Any) -> SparseStructureFlow:
    config = config_from(
        SparseStructureFlowConfig,
        constructor,
        fixed={"pe_mode": "ape", "use_global": False},
        ignored=("use_fp16", "mask_cond_type"),
        **ours,
    )
    model = SparseStructureFlow(config)
    if constructor.get("use_fp16"):
        model.set_precision(torch.float16)
    return model


def encoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SparseStructureEncoder`; its parameters have our names."""
    config = config_from(SparseStructureEncoderConfig, constructor, ignored=("use_fp16",))
    return _vae(SparseStructureEncoder(config), constructor)


def decoder(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SparseStructureDecoder`; its parameters have our names."""
    config = config_from(SparseStructureDecoderConfig, constructor, ignored=("use_fp16",))
    return _vae(SparseStructureDecoder(config), constructor)


def _vae(model: SparseStructureEncoder | SparseStructureDecoder, constructor: Mapping[str, Any]) -> PublishedModel:
    if constructor.get("use_fp16"):
        model.set_precision(torch.float16)
    return PublishedModel(model, ())
