"""SceneGen's context of every asset (3.2): [F_V; F_mask; F_global_V; F_geo], what assets share kept apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .image_encoders import ImageEncoder
from .scene_flow import SceneCondition
from .scene_hints import scene_hints


@dataclass(frozen=True)
class SceneParts:
    """Which features besides the asset's own image are given: the rows of the paper's ablation."""

    mask: bool = True
    scene: bool = True
    geometry: bool = True


@dataclass(frozen=True)
class SceneViewTensors:
    """One view of each of S scenes with A assets, as `views.scene_images` prepares them; colours in [0, 1].

    crops  (S·A, 5, s, s), the assets of a scene in neighbouring rows
    masks  (S·A, s, s) bool: in the whole image
    scene  (S, 3, s, s): the whole image
    """

    crops: Tensor
    masks: Tensor
    scene: Tensor


def scene_condition(
    encoder: ImageEncoder, view: SceneViewTensors, geometry: Tensor | None, parts: SceneParts | None = None
) -> SceneCondition:
    """Condition of the scene flow for one view; geometry (S, M, C) as `SceneGeometryEncoder.encode` gives it for it.

    Image features go through one encoder: an asset's crop, its mask as a white shape on black, and the whole image.
    Raises `InputError` for shapes that do not fit, or without geometry where `parts` wants it.
    """
    parts = parts or SceneParts()
    scenes, rows = len(view.scene), len(view.crops)
    if view.masks.shape != (rows, *view.crops.shape[2:]) or not scenes or rows % scenes:
        raise InputError(
            f"masks {tuple(view.masks.shape)} and scenes {tuple(view.scene.shape)} do not fit {rows} crops of "
            f"{tuple(view.crops.shape[2:])} pixels"
        )
    if parts.geometry and (geometry is None or len(geometry) != scenes):
        raise InputError(f"{scenes} scenes need geometry tokens, got {0 if geometry is None else len(geometry)}")
    images = [view.crops]
    if parts.mask:
        images.append(mask_images(view.masks, view.crops.dtype))
    if parts.scene:
        images.append(whole_images(view.scene))
    tokens = encoder.encode(torch.cat(images))
    own = [tokens[:rows], *([tokens[rows : 2 * rows]] if parts.mask else [])]
    shared = [tokens[-scenes:]] if parts.scene else []
    if parts.geometry and geometry is not None:
        shared.append(geometry.to(tokens.dtype))
    hints = scene_hints(view.masks, view.crops) if parts.mask else None
    return SceneCondition(torch.cat(own, dim=1), torch.cat(shared, dim=1) if shared else None, hints)


def mask_images(masks: Tensor, dtype: torch.dtype) -> Tensor:
    """Masks (P, s, s) bool as crops (P, 5, s, s): white where they are, which is what is visible; nothing occluded."""
    shape = masks.to(dtype)[:, None]
    return torch.cat([shape.expand(-1, 4, -1, -1), torch.zeros_like(shape)], dim=1)


def whole_images(scenes: Tensor) -> Tensor:
    """Images (S, 3, s, s) as crops (S, 5, s, s) of which everything is visible."""
    ones = torch.ones_like(scenes[:, :1])
    return torch.cat([scenes, ones, torch.zeros_like(ones)], dim=1)


def without_condition(condition: SceneCondition, dropped: Tensor) -> SceneCondition:
    """The condition with zeros for the scenes `dropped` (S,) bool: the unconditional branch in training."""
    rows = dropped.repeat_interleave(len(condition.tokens) // len(dropped))
    return SceneCondition(
        condition.tokens.masked_fill(rows[:, None, None], 0.0),
        None if condition.shared is None else condition.shared.masked_fill(dropped[:, None, None], 0.0),
        None if condition.hints is None else condition.hints.without(rows),
    )
