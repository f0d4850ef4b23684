"""Names of the published parameters -> ours: short tables of patterns, tried in order, all that match are applied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from ..errors import DataFormatError

KeyMap = Sequence[tuple[str, str]]
"""(regular expression, replacement) pairs."""

FLOW_BLOCK: KeyMap = (
    (r"(blocks\.\d+)\.norm2\.", r"\1.norms.cross_attn."),
    (r"(blocks\.\d+)\.(adaLN_modulation)\.", r"\1.modulations.\2."),
    (r"(blocks\.\d+)\.(self_attn|cross_attn|cross_attn_mask|mlp)\.", r"\1.operations.\2."),
    (r"\.([qk])_rms_norm\.", r".\1_norm."),
)
"""Transformer blocks of the flow models; Amodal3R's second cross-attention has a norm without parameters."""


def rename(weights: Mapping[str, Tensor], key_map: KeyMap) -> dict[str, Tensor]:
    """The weights under our names; raises `DataFormatError` if two published names meet in one of ours."""
    renamed: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        ours = rename_key(key, key_map)
        if ours in renamed:
            raise DataFormatError(f"two parameters become '{ours}', one of them '{key}': wrong checkpoint family?")
        renamed[ours] = tensor
    return renamed


def rename_key(key: str, key_map: KeyMap) -> str:
    """One published name -> ours."""
    for pattern, replacement in key_map:
        key = re.sub(pattern, replacement, key)
    return key
