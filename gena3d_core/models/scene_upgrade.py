"""A stage-1 model of single objects (TRELLIS, or ours) as the starting point of SceneGen."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..nn.initialisation import zero
from ..nn.precision import matrix_dtype
from .flow_blocks import ADALN
from .position_head import IDENTITY_POSE
from .scene_flow import SceneFlow, SceneFlowConfig
from .sparse_structure_flow import SparseStructureFlow

SCENE_PARTS = ("global_attn", "global_cross_attn", "adaLN_modulation_global", "position_token", "register_token",
               "position_head", "mask_boxes", "aligned_crops")  # fmt: skip
"""Parameters that SceneGen adds have one of these in their names: what it trains."""
ABSENT = ("stereo_attn", "aligned_stereo")
"""Attention to a partial cloud, which a scene has not."""


def add_scene(
    model: SparseStructureFlow,
    *,
    asset_tokens: int,
    num_register_tokens: int = 4,
    trunk_depth: int = 4,
    num_iteration: int = 4,
    joint_assets: bool = True,
    mask_boxes: bool = False,
    aligned_crops: bool = False,
    quiet: bool = True,
) -> SceneFlow:
    """A scene flow with the weights of `model`, which stays as it is; same device, dtypes and mode.

    asset_tokens: of the image encoder for one crop. quiet: the scene's attentions start with zero output projections,
    so that the result computes exactly what `model` does for one view without a partial cloud, until it is trained,
    and the position head starts near the identity; False starts them as the published code does. A modulation that the
    blocks share is copied into each of them, and what the attention to partial clouds gives without one, a constant,
    moves into a bias. Raises `InputError` for a model with attention to occluded parts, which has no place here.
    """
    old = model.config
    if old.occlusion_attention:
        raise InputError("a model with Amodal3R's attention to occluded parts cannot start SceneGen")
    config = SceneFlowConfig(
        resolution=old.resolution,
        in_channels=old.in_channels,
        model_channels=old.model_channels,
        cond_channels=old.cond_channels,
        out_channels=old.out_channels,
        num_blocks=old.num_blocks,
        num_heads=old.num_heads,
        num_head_channels=old.num_head_channels,
        mlp_ratio=old.mlp_ratio,
        patch_size=old.patch_size,
        qk_rms_norm=old.qk_rms_norm,
        qk_rms_norm_cross=old.qk_rms_norm_cross,
        fusion_norm=old.fusion_norm,
        num_register_tokens=num_register_tokens,
        trunk_depth=trunk_depth,
        num_iteration=num_iteration,
        asset_tokens=asset_tokens,
        joint_assets=joint_assets,
        mask_boxes=mask_boxes,
        aligned_crops=aligned_crops,
    )
    grown = SceneFlow(config).to(model.pos_emb.device)
    grown.initialise()
    grown.set_precision(matrix_dtype(model.blocks))
    missing, unexpected = grown.load_state_dict(object_state(model), strict=False)
    if unexpected or not all(any(part in name for part in SCENE_PARTS) for name in missing):
        raise InputError(f"not a base of SceneGen: lacks {missing}, has {unexpected} besides")
    if quiet:
        for block in grown.blocks:
            zero(*(block.operations[name].to_out for name in ("global_attn", "global_cross_attn")))
        _start_at_identity(grown)
    return grown.train(model.training)


def add_hints(model: SceneFlow, *, mask_boxes: bool = False, aligned_crops: bool = False) -> SceneFlow:
    """The same scene flow with uses for hints that it lacked, which change nothing yet; device, dtypes, mode stay."""
    old = model.config
    hints = {"mask_boxes": mask_boxes or old.mask_boxes, "aligned_crops": aligned_crops or old.aligned_crops}
    if replace(old, **hints) == old:
        return model
    grown = SceneFlow(replace(old, **hints)).to(model.pos_emb.device)
    grown.initialise()
    grown.set_precision(matrix_dtype(model.blocks))
    grown.load_state_dict(model.state_dict(), strict=False)
    return grown.train(model.training)


@torch.no_grad()
def _start_at_identity(model: SceneFlow) -> None:
    """Poses not far from the query's own: a scale that starts below zero would be cut off and never learn."""
    last = model.position_head.pose_branch[-1]
    assert isinstance(last, nn.Linear)
    last.bias.copy_(last.bias.new_tensor(IDENTITY_POSE) / model.config.num_iteration)
    last.weight.mul_(0.1)


@torch.no_grad()
def object_state(model: SparseStructureFlow) -> dict[str, Tensor]:
    """What a scene flow that grows from `model` has from it, by the names that it has there."""
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not any(part in name for part in ABSENT) and not name.startswith(f"{ADALN}.")
    }
    for number, block in enumerate(model.blocks):
        if model.adaLN_modulation is not None:
            for name, tensor in model.adaLN_modulation.state_dict().items():
                state[f"blocks.{number}.modulations.{ADALN}.{name}"] = tensor
        constants = [block.operations[name].constant_output() for name in ABSENT if name in block.operations]
        if constants:
            own = "fusion_norm" if model.config.fusion_norm else "to_out"
            key = f"blocks.{number}.operations.cross_attn.{own}.bias"
            state[key] = state[key] + torch.stack(constants).sum(dim=0).to(state[key])
    return state
