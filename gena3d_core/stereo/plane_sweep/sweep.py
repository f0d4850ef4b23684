"""Depth of one view from coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .aggregation import semi_global, winner
from .config import PlaneSweepConfig
from .cost import cost_volume
from .edges import EDGE_STEPS, largest_around, snap_to_color
from .frames import Frame
from .hypotheses import band, descent, fronto_parallel, horizontal, resample

MIN_HYPOTHESES = 16


@dataclass(frozen=True, eq=False)
class InverseDepth:
    """One view's result at one resolution, before it is compared with other views.

    inverse_depth (h, w) in 1/m; cost (h, w) in [0, 1] of the winner before aggregation; distinctness (h, w) in
    [0, 1) of the winner against other depths; step: spacing of the hypotheses in 1/m.
    """

    inverse_depth: torch.Tensor
    cost: torch.Tensor
    distinctness: torch.Tensor
    step: float


def sweep_coarse(
    reference: Frame,
    sources: Sequence[Frame],
    near_m: float,
    far_m: float,
    disparity_px: float,
    config: PlaneSweepConfig,
) -> InverseDepth:
    """Search the whole range; `disparity_px` is its extent in pixels of the frames' resolution."""
    count = int(min(max(disparity_px, MIN_HYPOTHESES), config.max_hypotheses))
    device = reference.gray.device
    hypotheses = fronto_parallel(near_m, far_m, count, device)
    volume = cost_volume(reference, sources, hypotheses, config.cost, config.window_radius)
    if config.horizontal_planes:
        up = torch.tensor(config.up, dtype=torch.float32, device=device)
        slope = descent(reference, reference.rays, up / up.norm())
        planes = horizontal(slope, near_m, far_m, count)
        if planes is not None:
            inverse_depth, inverse_height = planes
            tilted = cost_volume(reference, sources, inverse_depth, config.cost, config.window_radius)
            volume = torch.minimum(volume, resample(tilted, inverse_height, slope, hypotheses, fill=1.0))
    aggregated = semi_global(volume, reference.gray, config.penalty_small, config.penalty_large)
    fractional, index, distinctness = winner(aggregated, volume)
    step = (1.0 / near_m - 1.0 / far_m) / (count - 1)
    return InverseDepth(1.0 / far_m + fractional * step, volume.gather(0, index[None])[0], distinctness, step)


def sweep_fine(
    reference: Frame, sources: Sequence[Frame], coarse: InverseDepth, step: float, config: PlaneSweepConfig
) -> InverseDepth:
    """Search a band of hypotheses `step` apart (1/m) around a coarser result.

    The windows follow the coarser surface, so slanted surfaces match as well as those that face the camera.
    """
    size = reference.gray.shape
    base = _enlarge(median3(coarse.inverse_depth), size)
    if size[1] <= 2 * config.coarse_width:
        base = _sharpen(reference, sources, base, step, config)
    hypotheses = band(base, step, config.band)
    volume = cost_volume(reference, sources, hypotheses, config.cost, config.window_radius)
    aggregated = semi_global(volume, reference.gray, config.penalty_small, config.penalty_large)
    fractional, index, _ = winner(aggregated, volume)
    return InverseDepth(
        snap_to_color(base + (fractional - config.band) * step, reference.color, step),
        volume.gather(0, index[None])[0],
        _enlarge(coarse.distinctness, size),
        step,
    )


def _sharpen(
    reference: Frame, sources: Sequence[Frame], base: torch.Tensor, step: float, config: PlaneSweepConfig
) -> torch.Tensor:
    """The map `base` (h, w) with its edges moved to where the images want them.

    Windows of the coarsest resolution widen near surfaces by their radius, beyond the reach of a band of hypotheses.
    So near edges the depths of both sides compete for every pixel, in the finer windows.
    """
    reach = 2 * config.window_radius + 2
    candidates = torch.stack([base, largest_around(base, reach), -largest_around(-base, reach)])
    volume = cost_volume(reference, sources, candidates, config.cost, config.window_radius)
    # Away from edges the three agree but for the slope, and the map itself knows best.
    volume[1:].masked_fill_((candidates[1:] - base).abs() < EDGE_STEPS * step, 1.0)
    aggregated = semi_global(volume, reference.gray, config.penalty_large, config.penalty_large)
    return candidates.gather(0, aggregated.argmin(dim=0, keepdim=True))[0]


def _enlarge(image: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """(h, w) image at another size, bilinear."""
    return F.interpolate(image[None, None], size=tuple(size), mode="bilinear", align_corners=False)[0, 0]


def median3(image: torch.Tensor) -> torch.Tensor:
    """(h, w) median over 3x3 windows, edges repeated."""
    padded = F.pad(image[None, None], (1, 1, 1, 1), mode="replicate")
    return F.unfold(padded, 3).median(dim=1).values.view(image.shape)
