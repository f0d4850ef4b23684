"""Cases of the sparse machinery: convolutions, norms, attention, resampling and residual blocks on one tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataFormatError
from ...nn.embeddings import absolute_position_embedding
from ...nn.layers import SelfAttention
from ...nn.norms import HeadRMSNorm
from ...nn.sparse import (
    SparseGroupNorm32,
    SparseResBlock3d,
    SparseTensor,
    SubmanifoldConv3d,
    WindowAttention,
    downsample,
    from_padded,
    shifted_windows,
    subdivide,
    to_padded,
    upsample,
)
from ..golden import CaseResults, GoldenCase
from ..load import load_state

KEY_MAP = ((r"\.([qk])_rms_norm\.", r".\1_norm."),)


def run(case: GoldenCase) -> CaseResults:
    """Every operation on in.feats at in.coords; the residual blocks also read in.emb."""
    config = case.description.get("config", {})
    heads, window, shift = (_setting(config, case.name, name) for name in ("heads", "window", "shift"))
    x = SparseTensor.create(case.inputs["coords"], case.inputs["feats"])
    embedding = case.inputs["emb"]
    layers = _layers(case.weights, heads, _groups(case), case.name)
    load_state(layers, case.weights, KEY_MAP, case.name)
    windows = shifted_windows(x.geometry, window, shift)
    with torch.no_grad():
        padded, bias = to_padded(x)
        down = downsample(x)
        divided = subdivide(x)
        res_down = layers["res_down"](x, embedding)
        found: dict[str, Tensor] = {
            "conv3": layers["conv3"](x).feats,
            "conv1": layers["conv1"](x).feats,
            "group_norm": layers["group_norm"](x).feats,
            "attn_win": layers["attn_win"](x.feats[None], windows)[0],
            "attn_full": from_padded(layers["attn_full"](padded, bias), x).feats,
            "res_same": layers["res_same"](x, embedding).feats,
            "res_down.feats": res_down.feats,
            "res_down.coords": res_down.coords,
            "res_up_after_down": layers["res_up"](res_down, embedding, x).feats,
            "down.feats": down.feats,
            "down.coords": down.coords,
            "up": upsample(down, x).feats,
            "subdivide.feats": divided.feats,
            "subdivide.coords": divided.coords,
            "window_id": windows.index,
        }
    for name in case.expected:
        if name.startswith("out.abs_pos_emb_dim"):
            width = int(name.removeprefix("out.abs_pos_emb_dim"))
            found[name.removeprefix("out.")] = absolute_position_embedding(x.coords[:, 1:], width)
    return CaseResults({f"out.{name}": tensor for name, tensor in found.items()})


def _setting(config: Mapping[str, Any], case: str, name: str) -> int:
    if name not in config:
        raise DataFormatError(f"{case}: case.json states no config.{name}")
    return int(config[name])


def _groups(case: GoldenCase) -> int:
    """Groups of the group norm, which the case states in a sentence."""
    stated = re.search(r"\((\d+) groups", str(case.description.get("constructor", "")))
    if stated is None:
        raise DataFormatError(f"{case.name}: case.json does not state '(n groups' of the group norm")
    return int(stated.group(1))


def _layers(weights: Mapping[str, Tensor], heads: int, groups: int, case: str) -> nn.ModuleDict:
    """The layers, sized by the weights: the case states its constructor arguments in words only."""

    def shape(name: str) -> torch.Size:
        if name not in weights:
            raise DataFormatError(f"{case}: weights.safetensors has no '{name}'")
        return weights[name].shape

    def channels(name: str) -> tuple[int, int]:
        sizes = shape(f"{name}.conv.weight")
        return sizes[-1], sizes[0]

    def residual(name: str) -> tuple[int, int, int]:
        inside, outside = channels(f"{name}.conv1")
        return inside, shape(f"{name}.emb_layers.1.weight")[1], outside

    (width,) = shape("group_norm.weight")
    return nn.ModuleDict(
        {
            "conv3": SubmanifoldConv3d(*channels("conv3")),
            "conv1": SubmanifoldConv3d(*channels("conv1"), kernel=1),
            "group_norm": SparseGroupNorm32(groups, width),
            "attn_win": WindowAttention(
                width, heads, qk_norm=HeadRMSNorm if "attn_win.q_rms_norm.gamma" in weights else None
            ),
            "attn_full": SelfAttention(
                width, heads, qk_norm=HeadRMSNorm if "attn_full.q_rms_norm.gamma" in weights else None
            ),
            "res_same": SparseResBlock3d(*residual("res_same")),
            "res_down": SparseResBlock3d(*residual("res_down"), resample="down"),
            "res_up": SparseResBlock3d(*residual("res_up"), resample="up"),
        }
    )
