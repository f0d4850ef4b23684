"""Depth edges moved to colour edges: matching windows widen near surfaces by a few pixels of their background."""

from __future__ import annotations

import torch
import torch.nn.functional as F

EDGE_STEPS = 3.0
"""Difference of inverse depth, in hypotheses, from which a neighbour counts as another surface."""
WIDENING_PX = 5
"""How far beyond its outline a near surface may have grown."""
WINDOW_PX = 9
"""Neighbours up to this distance, every third one each way, vote."""
COLOR_SIGMA = 12.0 / 255.0
PIXELS_PER_BATCH = 1 << 14


def largest_around(image: torch.Tensor, radius: int) -> torch.Tensor:
    """(h, w) greatest value of `image` within the square of `radius` pixels."""
    side = 2 * radius + 1
    rows = F.max_pool2d(image[None], (side, 1), stride=1, padding=(radius, 0))
    return F.max_pool2d(rows, (1, side), stride=1, padding=(0, radius))[0]


def snap_to_color(inverse_depth: torch.Tensor, color: torch.Tensor, step: float) -> torch.Tensor:
    """(h, w) inverse depth in which near pixels beside a far surface join it when their colour says so.

    inverse_depth (h, w) in 1/m, color (3, h, w) in [0, 1], step: spacing of the hypotheses in 1/m. For each such
    pixel the neighbours of like colour vote for their surface; a pixel outvoted takes the mean of the far ones.
    """
    farthest = -largest_around(-inverse_depth, WIDENING_PX)
    doubtful = (inverse_depth - farthest > EDGE_STEPS * step).flatten().nonzero()[:, 0]
    result = inverse_depth.flatten().clone()
    for part in doubtful.split(PIXELS_PER_BATCH):
        result[part] = _vote(part, inverse_depth, farthest.flatten()[part], color, step)
    return result.view(inverse_depth.shape)


def _vote(
    pixels: torch.Tensor, inverse_depth: torch.Tensor, far: torch.Tensor, color: torch.Tensor, step: float
) -> torch.Tensor:
    """(n,) inverse depth of the flat indices `pixels` (n,), whose farthest neighbour's is `far` (n,)."""
    height, width = inverse_depth.shape
    offsets = torch.arange(-WINDOW_PX, WINDOW_PX + 1, 3, device=pixels.device)
    rows = (pixels[:, None, None] // width + offsets[:, None]).clamp_(0, height - 1)
    cols = (pixels[:, None, None] % width + offsets).clamp_(0, width - 1)
    index = (rows * width + cols).flatten(1)
    values, colors = inverse_depth.flatten(), color.flatten(1)
    own, theirs = values[pixels], values[index]
    distance = ((colors[:, index] - colors[:, pixels, None]) ** 2).sum(dim=0)
    weight = torch.exp(distance * (-0.5 / COLOR_SIGMA**2))
    middle = (0.5 * (own + far))[:, None]
    near_votes = (weight * (theirs >= middle)).sum(dim=1)
    # Only the surface next to the pixel counts as its background, not whatever lies farther still.
    behind = weight * ((theirs < middle) & (theirs > far[:, None] - EDGE_STEPS * step))
    far_votes = behind.sum(dim=1)
    mean = (behind * theirs).sum(dim=1) / far_votes.clamp(min=1e-6)
    return torch.where(far_votes > near_votes, mean, own)
