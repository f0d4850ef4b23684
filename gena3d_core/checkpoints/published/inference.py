"""Constructor arguments read off the shapes of the parameters, where no config file comes with the weights."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ...errors import DataFormatError
from ..key_maps import AGGREGATOR_PREFIX

DINO_HEAD_WIDTH = 64
"""Every released DINOv2 has heads of this width; the parameters do not tell it."""


def inferred_constructor(name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Arguments of the published class `name`, from the shapes of its parameters under their published names.

    Only for classes that are released without a config file. Raises `DataFormatError` for others, and for shapes
    that are not those of the class.
    """
    if name.split()[0] not in READERS:
        raise DataFormatError(f"no constructor arguments are given for {name}: its .json file must hold them")
    known, read = READERS[name.split()[0]]
    try:
        return read(shapes)
    except KeyError as error:
        raise DataFormatError(f"these are not the weights of a {known}: there is no {error}") from error


def recognised_class(keys: Mapping[str, Any]) -> str | None:
    """The published class that has parameters of these names, where they tell it without a description; else None."""
    return next((name for name, signs in SIGNS.items() if signs <= keys.keys()), None)


def _dinov2(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    width, _, patch, _ = shapes["patch_embed.proj.weight"]
    grid = math.isqrt(shapes["pos_embed"][1] - 1)
    registers = shapes["register_tokens"][1] if "register_tokens" in shapes else 0
    return {
        "img_size": grid * patch,
        "patch_size": patch,
        "embed_dim": width,
        "depth": _numbered(shapes, "blocks"),
        "num_heads": max(1, width // DINO_HEAD_WIDTH),
        "mlp_ratio": shapes["blocks.0.mlp.fc1.weight"][0] / width,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in shapes else None,
        "num_register_tokens": registers,
        "mask_token": "mask_token" in shapes,
        # The hub builds its models with registers so, the older ones without.
        "interpolate_antialias": registers > 0,
        "interpolate_offset": 0.0 if registers else 0.1,
    }


def _aggregator(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    shapes = {key.removeprefix(AGGREGATOR_PREFIX): shape for key, shape in shapes.items()}
    width = shapes["camera_token"][-1]
    plain = "patch_embed.proj.weight" in shapes
    encoder = {k.removeprefix("patch_embed."): v for k, v in shapes.items() if k.startswith("patch_embed.")}
    return {
        "patch_embed": "conv" if plain else _dinov2(encoder),
        "patch_size": shapes["patch_embed.proj.weight" if plain else "patch_embed.patch_embed.proj.weight"][-1],
        "embed_dim": width,
        "depth": _numbered(shapes, "frame_blocks"),
        "num_heads": width // shapes["frame_blocks.0.attn.q_norm.weight"][0],
        "mlp_ratio": shapes["frame_blocks.0.mlp.fc1.weight"][0] / width,
        "num_register_tokens": shapes["register_token"][2],
    }


def _numbered(shapes: Mapping[str, Any], blocks: str) -> int:
    """How many `blocks`.<number> there are."""
    return len({match[1] for key in shapes if (match := re.match(rf"{blocks}\.(\d+)\.", key))})


def _pi3(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    # Nobody has published another size, and loading compares every shape.
    return {}


READERS: Mapping[str, tuple[str, Callable[[Mapping[str, tuple[int, ...]]], dict[str, Any]]]] = {
    "DinoVisionTransformer": ("DINOv2", _dinov2),
    "Aggregator": ("VGGT aggregator", _aggregator),
    "VGGT": ("VGGT aggregator", _aggregator),
    "Pi3": ("π³", _pi3),
    "Pi3X": ("π³X", _pi3),
}
"""Class -> what it is called, and how its sizes are read."""

SIGNS: Mapping[str, frozenset[str]] = {
    "DinoVisionTransformer": frozenset(
        ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight")
    ),
    "Pi3": frozenset(("register_token", "encoder.cls_token", "point_head.proj.weight", "camera_head.fc_t.bias")),
    "Pi3X": frozenset(("metric_token", "pose_inject_blk.0.norm1.weight", "point_head.upsample_blocks.0.0.0.weight")),
    "Aggregator": frozenset(("camera_token", "register_token", "frame_blocks.0.attn.qkv.weight")),
}
"""Class -> names that no other one has together."""
