"""Photometric costs of inverse-depth hypotheses: warp the sources onto the reference and compare windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F

from .frames import Frame

NEUTRAL = 0.5
"""Cost where nothing is known: what unrelated windows get on average."""
NOISE = 2.0 / 255.0
"""Standard deviation of image noise: windows with less contrast tell nothing, and must score as neutral."""
CHUNK_BYTES = 1 << 21
"""Hypotheses are processed in chunks that stay in a CPU's cache."""

Matcher = Callable[[torch.Tensor], torch.Tensor]


def warp(reference: Frame, source: Frame, rays: torch.Tensor, inverse_depth: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Source grey values seen through every hypothesis.

    rays (3, h, w) of the reference, inverse_depth (D, h, w) or (D, 1, 1) in 1/m -> grey (D, h, w), valid (D, h, w)
    bool: False where the point lies behind the source or outside its image.
    """
    T = source.T_camera_world @ reference.T_world_camera
    a = torch.einsum("ij,jhw->ihw", source.K @ T[:3, :3], rays)
    b = source.K @ T[:3, 3]
    # grid_sample wants pixels as -1..1: scaling the projection instead spares passes over all hypotheses.
    height, width = source.gray.shape
    sx, sy = 2.0 / (width - 1), 2.0 / (height - 1)
    z = a[2] + inverse_depth * b[2]
    scale = z.reciprocal()
    grid = torch.empty((*z.shape, 2), device=z.device)
    torch.mul((a[0] * sx - a[2]) + inverse_depth * (b[0] * sx - b[2]), scale, out=grid[..., 0])
    torch.mul((a[1] * sy - a[2]) + inverse_depth * (b[1] * sy - b[2]), scale, out=grid[..., 1])
    valid = (grid.abs().amax(dim=-1) <= 1.0) & (z > 1e-6)
    gray = F.grid_sample(
        source.gray[None, None], grid.view(1, -1, z.shape[-1], 2), padding_mode="border", align_corners=True
    )
    return gray.view(z.shape), valid


def box_mean(images: torch.Tensor, radius: int) -> torch.Tensor:
    """Mean over (2 radius + 1)^2 windows of (D, h, w) images, edges repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images[None], (radius, radius, radius, radius), mode="replicate")[0]
    rows = padded[:, :height].clone()
    for k in range(1, 2 * radius + 1):
        rows += padded[:, k : k + height]
    total = rows[..., :width].clone()
    for k in range(1, 2 * radius + 1):
        total += rows[..., k : k + width]
    return total.mul_(1.0 / (2 * radius + 1) ** 2)


def ncc_matcher(gray: torch.Tensor, radius: int) -> Matcher:
    """Cost (1 - NCC) / 2 of windows of warped images (D, h, w) against `gray` (h, w); in [0, 1]."""
    mean = box_mean(gray[None], radius)
    variance = (box_mean(gray[None] ** 2, radius) - mean**2).clamp_(min=0.0) + NOISE**2

    def match(warped: torch.Tensor) -> torch.Tensor:
        warped_mean = box_mean(warped, radius)
        covariance = box_mean(warped * gray, radius).addcmul_(warped_mean, mean, value=-1.0)
        warped_variance = box_mean(warped * warped, radius).addcmul_(warped_mean, warped_mean, value=-1.0)
        warped_variance.clamp_(min=0.0).add_(NOISE**2).mul_(variance).rsqrt_()
        return covariance.mul_(warped_variance).clamp_(-1.0, 1.0).mul_(-0.5).add_(0.5)

    return match


def census_matcher(gray: torch.Tensor, radius: int) -> Matcher:
    """Share of the window's pixels whose order against the centre differs; ties count half. In [0, 1]."""
    offsets = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1) if (dy, dx) != (radius, radius)]

    def signs(images: torch.Tensor) -> list[torch.Tensor]:
        height, width = images.shape[-2:]
        padded = F.pad(images[None], (radius, radius, radius, radius), mode="replicate")[0]
        return [
            ((padded[:, dy : dy + height, dx : dx + width] - images) / NOISE).clamp_(-1.0, 1.0) for dy, dx in offsets
        ]

    reference = signs(gray[None])

    def match(warped: torch.Tensor) -> torch.Tensor:
        agreement = torch.zeros_like(warped)
        for mine, theirs in zip(reference, signs(warped), strict=True):
            agreement.addcmul_(mine, theirs)
        return agreement.mul_(-0.5 / len(offsets)).add_(0.5)

    return match


COSTS: Mapping[str, Callable[[torch.Tensor, int], Matcher]] = {"ncc": ncc_matcher, "census": census_matcher}
"""Name -> maker of the comparison of warped images with a reference."""


def fuse_sources(costs: Sequence[torch.Tensor], valid: Sequence[torch.Tensor]) -> torch.Tensor:
    """(D, h, w) mean of the better half of the sources that see each hypothesis; neutral where none does.

    A surface hidden from some sources still matches in the others, so the worse half is ignored.
    """
    if len(costs) == 1:
        return costs[0].masked_fill_(~valid[0], NEUTRAL)
    stacked = torch.stack([cost.masked_fill_(~seen, 2.0) for cost, seen in zip(costs, valid, strict=True)])
    ordered = _sorted(stacked)
    seen_count = torch.stack(list(valid)).sum(dim=0)
    keep = (seen_count + 1) // 2
    total = torch.zeros_like(ordered[0])
    for rank in range((len(costs) + 1) // 2):
        total += torch.where(rank < keep, ordered[rank], 0.0)
    return torch.where(keep > 0, total / keep.clamp(min=1), NEUTRAL)


def _sorted(stacked: torch.Tensor) -> list[torch.Tensor]:
    """The slices of (S, ...) in ascending order, by a sorting network: many times faster than sort for small S."""
    slices = list(stacked)
    for end in range(len(slices) - 1, 0, -1):
        for i in range(end):
            low = torch.minimum(slices[i], slices[i + 1])
            slices[i + 1] = torch.maximum(slices[i], slices[i + 1])
            slices[i] = low
    return slices


def cost_volume(
    reference: Frame, sources: Sequence[Frame], inverse_depth: torch.Tensor, cost: str, radius: int
) -> torch.Tensor:
    """(D, h, w) cost in [0, 1] of the hypotheses `inverse_depth` (D, h, w) or (D, 1, 1), 1/m, fused over sources.

    Hypotheses that are not positive, or that no source sees, get the neutral cost.
    """
    rays = reference.rays
    match = COSTS[cost](reference.gray, radius)
    height, width = reference.gray.shape
    volume = torch.empty((len(inverse_depth), height, width), device=rays.device)
    chunk = max(1, CHUNK_BYTES // (4 * height * width)) if rays.device.type == "cpu" else len(inverse_depth)
    for start in range(0, len(inverse_depth), chunk):
        part = inverse_depth[start : start + chunk]
        costs, valid = [], []
        for source in sources:
            warped, seen = warp(reference, source, rays, part)
            costs.append(match(warped))
            valid.append(seen & (part > 0))
        volume[start : start + chunk] = fuse_sources(costs, valid)
    return volume
