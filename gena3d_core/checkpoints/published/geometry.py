"""Networks of scene geometry: π³, π³X and the aggregator of VGGT."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor

from ...errors import InputError
from ...models.geometry.pi3 import Pi3, Pi3Config
from ...models.geometry.pi3x import Pi3X, Pi3XConfig
from ...models.geometry.vggt import VggtAggregator, VggtAggregatorConfig
from ...models.image_encoders.dinov2 import DinoV2Config
from ..key_maps import AGGREGATOR_PREFIX, PI3, PI3X, VGGT_AGGREGATOR
from . import PublishedModel, load_published
from .arguments import Config, config_from
from .inference import inferred_constructor

PI3_NAMES: Mapping[str, str] = {
    "dec_depth": "depth",
    "dec_heads": "heads",
    "head_dim": "head_width",
    "head_heads": "head_heads",
    "head_depth": "head_depth",
    "cam_dim": "camera_width",
}
AGGREGATOR_NAMES: Mapping[str, str] = {
    "patch_size": "patch_size",
    "embed_dim": "width",
    "depth": "depth",
    "num_heads": "heads",
    "mlp_ratio": "mlp_ratio",
    "num_register_tokens": "registers",
    "rope_freq": "rotation_base",
}
"""Published arguments -> fields of our configs."""

AGGREGATOR_FIXED: Mapping[str, Any] = {
    "qk_norm": True,
    "qkv_bias": True,
    "proj_bias": True,
    "ffn_bias": True,
    "aa_order": ["frame", "global"],
    "aa_block_size": 1,
}

DINOV2_SIZES: Mapping[str, Mapping[str, Any]] = {
    "dinov2_vits14_reg": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "dinov2_vitb14_reg": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "dinov2_vitl14_reg": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}
"""Image encoders by the names that the aggregator's `patch_embed` can have."""
IMAGE_SIZE = 518


def pi3(constructor: Mapping[str, Any]) -> PublishedModel:
    """`Pi3`; besides the published arguments, sizes by the names of `PI3_NAMES` and the encoder's as a table."""
    return PublishedModel(Pi3(_pi3_config(Pi3Config, constructor)), PI3)


def pi3x(constructor: Mapping[str, Any]) -> PublishedModel:
    """`Pi3X`; arguments as for `pi3`."""
    return PublishedModel(Pi3X(_pi3_config(Pi3XConfig, constructor)), PI3X)


def _pi3_config(kind: type[Config], constructor: Mapping[str, Any]) -> Config:
    arguments = dict(constructor)
    encoder, pos_type = arguments.pop("encoder", {}), arguments.pop("pos_type", "rope100")
    named = {PI3_NAMES.get(name, name): value for name, value in arguments.items()}
    return config_from(
        kind,
        {name: tuple(value) if isinstance(value, list) else value for name, value in named.items()},
        fixed={"decoder_size": "large", "use_multimodal": True, "ckpt": None},
        encoder=config_from(DinoV2Config, encoder, mask_token=False),
        rotation_base=_rotation_base(pos_type),
    )


def aggregator(constructor: Mapping[str, Any]) -> PublishedModel:
    """VGGT's `Aggregator`; `patch_embed` may also be a table of arguments of the image encoder."""
    arguments = dict(constructor)
    patch_embed = arguments.pop("patch_embed", "dinov2_vitl14_reg")
    encoder = _aggregator_encoder(patch_embed, arguments)
    config = config_from(
        VggtAggregatorConfig,
        {AGGREGATOR_NAMES.get(name, name): value for name, value in arguments.items()},
        fixed=AGGREGATOR_FIXED,
        ignored=("img_size", "init_values", "block_fn"),
        encoder=encoder,
    )
    return PublishedModel(VggtAggregator(config), VGGT_AGGREGATOR)


def _aggregator_encoder(patch_embed: Any, constructor: Mapping[str, Any]) -> DinoV2Config | None:
    if isinstance(patch_embed, Mapping):
        return config_from(DinoV2Config, patch_embed)
    if patch_embed == "conv":
        return None
    if patch_embed not in DINOV2_SIZES:
        raise InputError(f"patch_embed must be 'conv' or one of {', '.join(DINOV2_SIZES)}, got {patch_embed!r}")
    return config_from(
        DinoV2Config,
        DINOV2_SIZES[patch_embed],
        img_size=constructor.get("img_size", IMAGE_SIZE),
        patch_size=constructor.get("patch_size", DinoV2Config.patch_size),
        num_register_tokens=constructor.get("num_register_tokens", DinoV2Config.num_register_tokens),
    )


def _rotation_base(pos_type: str) -> float:
    if not (match := re.fullmatch(r"rope(\d+(\.\d+)?)", pos_type)):
        raise InputError(f"pos_type must be 'rope' and a number, got {pos_type!r}")
    return float(match[1])


def load_aggregator(weights: Mapping[str, Tensor], source: str) -> VggtAggregator:
    """The aggregator from its weights or from those of a whole VGGT, whose heads are left out; in eval mode.

    Its sizes are read off the weights. Raises `DataFormatError` for weights that do not fit.
    """
    part = {key: tensor for key, tensor in weights.items() if key.startswith(AGGREGATOR_PREFIX)} or weights
    constructor = inferred_constructor("Aggregator", {key: tuple(tensor.shape) for key, tensor in part.items()})
    return cast(VggtAggregator, load_published("Aggregator", constructor, part, source))
