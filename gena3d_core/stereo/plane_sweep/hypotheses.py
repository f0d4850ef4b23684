"""Families of inverse-depth hypotheses."""

from __future__ import annotations

import torch

from .frames import Frame

LEAST_SLOPE = 0.08
"""Sine of the smallest angle between a ray and the ground at which horizontal planes are swept."""


def fronto_parallel(near_m: float, far_m: float, count: int, device: torch.device) -> torch.Tensor:
    """(count, 1, 1) inverse depths, uniform from 1 / far to 1 / near."""
    return torch.linspace(1.0 / far_m, 1.0 / near_m, count, device=device)[:, None, None]


def descent(reference: Frame, rays: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """(h, w) how far each ray (3, h, w) descends against `up` (3,) in the world per unit of depth."""
    return -torch.einsum("i,ihw->hw", reference.T_world_camera[:3, :3].t() @ up, rays)


def horizontal(
    slope: torch.Tensor, near_m: float, far_m: float, count: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Horizontal planes below the camera: inverse depth (count, h, w) of each at each pixel, 1/m.

    slope (h, w) is the rays' descent. Also returns the inverse heights (count,), 1/m, uniform, so that the inverse
    depth is slope * inverse height. None when too few rays descend for planes to matter.
    """
    steep = slope.max()
    if float((slope > LEAST_SLOPE).float().mean()) < 0.05:
        return None
    inverse_height = torch.linspace(1.0 / far_m, 1.0 / near_m, count, device=slope.device) / steep
    return slope.clamp(min=0.0) * inverse_height[:, None, None], inverse_height


def resample(
    volume: torch.Tensor, inverse_height: torch.Tensor, slope: torch.Tensor, inverse_depth: torch.Tensor, fill: float
) -> torch.Tensor:
    """Costs `volume` (P, h, w) of horizontal planes at the hypotheses `inverse_depth` (D, 1, 1): (D, h, w).

    Linear between planes; `fill` where no swept plane passes.
    """
    step = (inverse_height[-1] - inverse_height[0]) / (len(inverse_height) - 1)
    position = (inverse_depth / slope.clamp(min=1e-6) - inverse_height[0]) / step
    inside = (slope > LEAST_SLOPE) & (position >= 0) & (position <= len(inverse_height) - 1)
    position = position.clamp_(0.0, len(inverse_height) - 1.001)
    below = position.long()
    fraction = position - below
    value = torch.lerp(volume.gather(0, below), volume.gather(0, below + 1), fraction)
    return torch.where(inside, value, fill)


def band(inverse_depth: torch.Tensor, step: float, reach: int) -> torch.Tensor:
    """(2 reach + 1, h, w) hypotheses around a map `inverse_depth` (h, w), `step` apart, 1/m."""
    offsets = torch.arange(-reach, reach + 1, device=inverse_depth.device) * step
    return inverse_depth[None] + offsets[:, None, None]
