"""What is known of views beforehand, in the units that π³X was trained with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...errors import InputError

STILL = 0.02
"""Cameras that are nowhere farther apart, in the unit of their poses, count as one place."""


@dataclass(frozen=True)
class KnownGeometry:
    """Priors of B scenes of S views; NaN where a view has none. Each may be absent.

    T_world_camera  (B, S, 4, 4), optical frames, in metres and in any world
    rays            (B, S, H, W, 2): x/z and y/z of each pixel's ray
    depth_m         (B, S, H, W)
    """

    T_world_camera: Tensor | None = None
    rays: Tensor | None = None
    depth_m: Tensor | None = None


@dataclass(frozen=True)
class NormalisedPriors:
    """`KnownGeometry` without NaN, in units of the network.

    T_world_camera  (B, S, 4, 4), the world being the first posed camera
    rays, depth     (B, S, H, W, 2) and (B, S, H, W), 0 where unknown
    posed, calibrated, measured   (B, S) bool: which views have each
    """

    T_world_camera: Tensor
    rays: Tensor
    depth: Tensor
    posed: Tensor
    calibrated: Tensor
    measured: Tensor


def normalised_priors(known: KnownGeometry, images: Tensor) -> NormalisedPriors | None:
    """Priors for images (B, S, 3, H, W); None where nothing is known.

    Lengths are divided by the mean depth of the scene, or where none is known by the mean distance of the other cameras
    from the first. One pose alone tells nothing and is dropped. Raises `InputError` for shapes that do not fit.
    """
    if all(value is None for value in (known.T_world_camera, known.rays, known.depth_m)):
        return None
    scenes, views, _, height, width = images.shape
    dtype = torch.promote_types(images.dtype, torch.float32)
    poses = _given("T_world_camera", known.T_world_camera, (scenes, views, 4, 4), images, dtype)
    rays = _given("rays", known.rays, (scenes, views, height, width, 2), images, dtype)
    depth = _given("depth_m", known.depth_m, (scenes, views, height, width), images, dtype)
    depth = torch.where(depth > 0, depth, torch.nan)
    posed = poses.isfinite().all(dim=(-1, -2))
    posed &= posed.sum(dim=1, keepdim=True) > 1
    measured = depth.isfinite().flatten(2).any(dim=2)
    unit = torch.nanmean(depth.flatten(1), dim=1).nan_to_num(1.0)
    relative = _from_first(poses, posed)
    spread = relative[..., :3, 3].norm(dim=-1)
    others = (posed.sum(dim=1) - 1).clamp(min=1)
    moving = ~measured.any(dim=1) & (spread.amax(dim=1) >= STILL)
    unit = torch.where(moving, spread.sum(dim=1) / others, unit)
    relative[..., :3, 3] /= unit[:, None, None]
    return NormalisedPriors(
        T_world_camera=relative,
        rays=rays.nan_to_num(0.0),
        depth=(depth / unit[:, None, None, None]).nan_to_num(0.0),
        posed=posed,
        calibrated=rays.isfinite().flatten(2).all(dim=2),
        measured=measured,
    )


def _given(name: str, value: Tensor | None, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype) -> Tensor:
    if value is None:
        return torch.full((1,) * len(shape), torch.nan, device=like.device, dtype=dtype).expand(shape)
    if tuple(value.shape) != shape:
        raise InputError(f"{name} must be {shape}, got {tuple(value.shape)}")
    return value.to(like.device, dtype)


def _from_first(poses: Tensor, posed: Tensor) -> Tensor:
    """Poses (B, S, 4, 4) in the frame of each scene's first posed camera; the identity where there is none."""
    filled = torch.where(posed[..., None, None], poses, torch.eye(4, dtype=poses.dtype, device=poses.device))
    first = filled[torch.arange(len(filled), device=filled.device), posed.int().argmax(dim=1)]
    relative = torch.linalg.inv(first)[:, None] @ filled
    return torch.where(posed[..., None, None], relative, torch.eye(4, dtype=poses.dtype, device=poses.device))
