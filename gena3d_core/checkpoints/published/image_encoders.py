"""DINOv2 from the torch hub and from the package `transformers`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...errors import DataFormatError
from ...models.image_encoders.dinov2 import DinoV2, DinoV2Config
from ..key_maps import DINOV2, DINOV2_TRANSFORMERS
from ..load import load_state
from . import PublishedModel
from .arguments import config_from

CLASS_DEFAULTS: Mapping[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "num_register_tokens": 0,
    "init_values": None,
    "interpolate_antialias": False,
    "interpolate_offset": 0.1,
}
"""What the published class assumes for arguments that a constructor leaves out."""

FIXED: Mapping[str, Any] = {
    "in_chans": 3,
    "qkv_bias": True,
    "ffn_bias": True,
    "proj_bias": True,
}
TRAINING_ONLY = ("drop_path_rate", "drop_path_uniform", "block_chunks")

TRANSFORMERS_NAMES: Mapping[str, str] = {
    "image_size": "img_size",
    "patch_size": "patch_size",
    "hidden_size": "embed_dim",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "mlp_ratio": "mlp_ratio",
    "num_register_tokens": "num_register_tokens",
    "layerscale_value": "init_values",
}
"""Names in the config of `Dinov2WithRegistersModel` -> ours."""

QKV_NAMES: Mapping[str, tuple[str, str, str]] = {
    name: trio for trio in (("query", "key", "value"), ("q_proj", "k_proj", "v_proj")) for name in trio
}
"""Layer name -> the trio it belongs to; the second one is that of `transformers` from version 5 on."""

TRANSFORMERS_DEFAULTS: Mapping[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
}
"""What that class assumes for sizes that a config leaves out."""

TRANSFORMERS_FIXED: Mapping[str, Any] = {
    "use_swiglu_ffn": False,
    "qkv_bias": True,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}


def dinov2(constructor: Mapping[str, Any] | None) -> PublishedModel:
    """`DinoVisionTransformer`; an empty constructor stands for the hub's `dinov2_vitl14_reg`.

    Besides the published arguments `mask_token` (default True) says whether the checkpoint has that parameter.
    """
    arguments = {**CLASS_DEFAULTS, **constructor} if constructor else {}
    config = config_from(DinoV2Config, arguments, fixed=FIXED, ignored=TRAINING_ONLY)
    return PublishedModel(DinoV2(config), DINOV2)


def load_transformers_dinov2(config: Mapping[str, Any], weights: Mapping[str, Tensor], source: str) -> DinoV2:
    """DINOv2 with registers from config.json and weights of the package `transformers`, in eval mode.

    Raises `InputError` for an architecture that it does not cover, `DataFormatError` for weights that do not fit.
    """
    known = {ours: config[theirs] for theirs, ours in TRANSFORMERS_NAMES.items() if theirs in config}
    fixed = {name: config.get(name, value) for name, value in TRANSFORMERS_FIXED.items()}
    arguments = {
        **TRANSFORMERS_DEFAULTS,
        **known,
        **fixed,
        "mask_token": any(key.endswith("mask_token") for key in weights),
    }
    model = DinoV2(config_from(DinoV2Config, arguments, fixed=TRANSFORMERS_FIXED))
    # A model with a classifier on top shares its file with it.
    backbone = {key: tensor for key, tensor in weights.items() if not key.startswith("classifier.")}
    return load_state(model, merge_qkv(backbone), DINOV2_TRANSFORMERS, source)


def merge_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every trio of parameters that `QKV_NAMES` names as one, `….qkv.weight` or `….qkv.bias`, stacked in that order.

    Raises `DataFormatError` if one of a trio is missing.
    """
    merged: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        *path, layer, kind = key.split(".")
        trio = QKV_NAMES.get(layer)
        if trio is None:
            merged[key] = tensor
            continue
        names = [".".join([*path, part, kind]) for part in trio]
        if missing := [name for name in names if name not in weights]:
            raise DataFormatError(f"{missing[0]} is missing, though {key} is there: the file is not whole")
        merged[".".join([*path, "qkv", kind])] = torch.cat([weights[name] for name in names])
    return merged
