"""SceneGen: the scene-level flow of stage 1 and its position head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ...errors import InputError
from ...models.position_head import PositionHead, PositionHeadConfig
from ...models.scene_flow import SceneFlow, SceneFlowConfig
from ..key_maps import POSITION_HEAD, SCENE_FLOW
from . import PublishedModel
from .arguments import config_from


def flow(constructor: Mapping[str, Any]) -> PublishedModel:
    """`SparseStructureFlowModel` with `use_global`."""
    if constructor.get("use_batch_encoder"):
        raise InputError("use_batch_encoder must be false: no published SceneGen checkpoint has that encoder")
    config = config_from(
        SceneFlowConfig,
        constructor,
        fixed={"pe_mode": "ape", "use_global": True, "share_mod": False},
        ignored=("use_fp16", "use_batch_encoder"),
    )
    if config.cond_channels != config.model_channels:
        raise InputError(
            f"published SceneGen has one width for tokens and contexts: model_channels {config.model_channels} and "
            f"cond_channels {config.cond_channels} differ"
        )
    model = SceneFlow(config)
    if constructor.get("use_fp16"):
        model.set_precision(torch.float16)
    return PublishedModel(model, SCENE_FLOW)


def position_head(constructor: Mapping[str, Any]) -> PublishedModel:
    """`PositionHead` on its own."""
    config = config_from(PositionHeadConfig, constructor, fixed={"pose_encoding_type": "absT_quatR_S"})
    return PublishedModel(PositionHead(config), POSITION_HEAD)
