"""Do the depths of several views agree?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from .frames import Frame


def agreement(
    reference: Frame,
    depth_m: torch.Tensor,
    others: Sequence[Frame],
    other_depths_m: Sequence[torch.Tensor],
    max_px: float,
    max_ratio: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """How strongly other views confirm each depth of the reference, and their mean opinion of it.

    A view confirms a pixel when the point projects to a pixel whose own depth leads back within `max_px` pixels
    with a relative difference of depth of at most `max_ratio`; it counts as 1 when both agree exactly, less the more
    they differ.
    depth_m, other_depths_m: (h, w) metres, NaN where unknown -> strength (h, w), at most one a view; depth (h, w)
    metres: the mean of the own and the confirming depths, weighted by strength.
    """
    rays = reference.rays
    height, width = depth_m.shape
    v, u = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=depth_m.device),
        torch.arange(width, dtype=torch.float32, device=depth_m.device),
        indexing="ij",
    )
    count = torch.zeros_like(depth_m)
    total = depth_m.clone()
    for other, other_depth_m in zip(others, other_depths_m, strict=True):
        T = other.T_camera_world @ reference.T_world_camera
        x, y, z = _project(other, T, rays * depth_m)
        h, w = other_depth_m.shape
        seen = (z > 1e-6) & (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
        grid = torch.stack([x * (2.0 / (w - 1)) - 1.0, y * (2.0 / (h - 1)) - 1.0], dim=-1)
        # Nearest, because a mean of two surfaces at an edge lies on neither.
        sampled = F.grid_sample(
            other_depth_m[None, None], grid.nan_to_num(nan=2.0)[None], mode="nearest", align_corners=True
        )[0, 0]
        theirs = torch.stack([(x - other.K[0, 2]) / other.K[0, 0], (y - other.K[1, 2]) / other.K[1, 1]])
        points = torch.cat([theirs, torch.ones_like(theirs[:1])]) * sampled
        back_x, back_y, back_z = _project(reference, torch.linalg.inv(T), points)
        error_px = torch.hypot(back_x - u, back_y - v)
        ratio = (back_z - depth_m).abs() / depth_m
        strength = (1.0 - (error_px / max_px) ** 2).clamp(min=0.0) * (1.0 - (ratio / max_ratio) ** 2).clamp(min=0.0)
        strength = torch.where(seen & (strength > 0), strength, 0.0)
        count += strength
        total += torch.where(strength > 0, strength * back_z, 0.0)
    return count, total / (count + 1.0)


def _project(frame: Frame, T: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels and depth in `frame` of `points` (3, h, w) that `T` maps to its camera."""
    moved = torch.einsum("ij,jhw->ihw", T[:3, :3], points) + T[:3, 3, None, None]
    safe = torch.where(moved[2] > 1e-6, moved[2], float("nan"))
    x = moved[0] / safe * frame.K[0, 0] + frame.K[0, 2]
    y = moved[1] / safe * frame.K[1, 1] + frame.K[1, 2]
    return x, y, moved[2]
