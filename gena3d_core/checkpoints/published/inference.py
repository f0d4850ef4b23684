"""Constructor arguments read off the shapes of the parameters, where no config file comes with the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from ...errors import DataFormatError

DINO_HEAD_WIDTH = 64
"""Every released DINOv2 has heads of this width; the parameters do not tell it."""


def inferred_constructor(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of the published class `name`, from the shapes of its parameters under their published names.

    Only for classes that are released without a config file. Raises `DataFormatError` for others, and for shapes
    that are not those of the class.
    """
    if name.split()[0] != "DinoVisionTransformer":
        raise DataFormatError(f"no constructor arguments are given for {name}: its .json file must hold them")
    try:
        return _dinov2(shapes)
    except KeyError as error:
        raise DataFormatError(f"these are not the weights of a DINOv2: there is no {error}") from error


def looks_like_dinov2(keys: Mapping[str, Any]) -> bool:
    """Whether the names are those of the torch-hub DINOv2 models."""
    return {"cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= keys.keys()


def _dinov2(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    grid = math.isqrt(shapes["pos_embed"][1] - 1)
    registers = shapes["register_tokens"][1] if "register_tokens" in shapes else 0
    blocks = {int(match[1]) for key in shapes if (match := re.match(r"blocks\.(\d+)\.", key))}
    return {
        "img_size": grid * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": len(blocks),
        "num_heads": max(1, width // DINO_HEAD_WIDTH),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / width,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in shapes else None,
        "num_register_tokens": registers,
        "mask_token": "mask_token" in shapes,
        # The hub builds its models with registers so, the older ones without.
        "interpolate_antialias": registers > 0,
        "interpolate_offset": 0.0 if registers else 0.1,
    }
