"""The plane sweep as a `StereoMatcher`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np
import torch

from ...errors import InputError
from ...types import View
from .config import PlaneSweepConfig
from .consistency import agreement
from .cost import COSTS
from .filtering import confidence, to_size, without_specks
from .frames import Frame, make_frame
from .preparation import prepare
from .sources import SweepPlan, disparity_range_px, plan_sweep
from .sweep import InverseDepth, sweep_coarse, sweep_fine
from .workers import map_views


class PlaneSweep:
    """Depth of at least two posed colour views; depth that the views already have is ignored."""

    def __init__(self, config: PlaneSweepConfig | None = None, device: str = "cpu") -> None:
        """Raises `InputError` for an unknown cost or a device that this machine lacks."""
        self.config = config or PlaneSweepConfig()
        if self.config.cost not in COSTS:
            raise InputError(f"unknown stereo cost '{self.config.cost}': choose one of {', '.join(sorted(COSTS))}")
        self.device = _device(device)

    @torch.inference_mode()
    def __call__(self, views: Sequence[View]) -> list[View]:
        """The views with depth and confidence.

        A view that overlaps no other gets all-NaN depth and a warning. Raises `InputError` for fewer than two views
        and when no two views overlap.
        """
        if len(views) < 2:
            raise InputError(
                f"plane_sweep needs at least 2 views from different places, got {len(views)}: "
                "add views, or use the stereo matcher 'depth_camera' with a depth camera"
            )
        views, points_m = prepare(views, self.config)
        plans = [plan_sweep(views, i, self.config, points_m) for i in range(len(views))]
        unmatched = [view.name for view, plan in zip(views, plans, strict=True) if plan is None]
        if len(unmatched) == len(views):
            raise InputError(
                f"plane_sweep: none of the {len(views)} views overlaps another one from a different place; "
                "views need a baseline and a common part of the scene, and poses in one frame"
            )
        if unmatched:
            warnings.warn(f"plane_sweep: no depth for views that overlap no other: {', '.join(unmatched)}")
        found = _Sweep(views, plans, self.config, self.device).run()
        if not any(view.depth_m is not None and np.isfinite(view.depth_m).any() for view in found):
            warnings.warn("plane_sweep: no trusted depth in any view: surfaces without texture, or wrong poses")
        return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"torch device '{name}' cannot be used here: {error}") from error
    return device


@dataclass(frozen=True, eq=False)
class _Sweep:
    """One call: all views through all resolutions."""

    views: Sequence[View]
    plans: Sequence[SweepPlan | None]
    config: PlaneSweepConfig
    device: torch.device

    def run(self) -> list[View]:
        widths = [self.config.coarse_width]
        finest = min(self.config.fine_width, max(view.intrinsics.width for view in self.views))
        while widths[-1] * 2 <= finest:
            widths.append(widths[-1] * 2)
        results: list[InverseDepth | None] = [None] * len(self.views)
        frames: list[Frame] = []
        for width in widths:
            frames = [make_frame(view, width, self.device) for view in self.views]
            sweep = partial(self._sweep_view, frames=frames, coarser=results)
            results = map_views(sweep, range(len(self.views)), self.device)
        return self._finish(frames, results)

    def _sweep_view(self, index: int, frames: list[Frame], coarser: list[InverseDepth | None]) -> InverseDepth | None:
        plan = self.plans[index]
        if plan is None:
            return None
        view, sources = self.views[index], [frames[i] for i in plan.sources]
        scale = frames[index].gray.shape[1] / view.intrinsics.width
        disparity_px = scale * disparity_range_px(view, [self.views[i] for i in plan.sources], plan.near_m, plan.far_m)
        before = coarser[index]
        if before is None:
            return sweep_coarse(frames[index], sources, plan.near_m, plan.far_m, disparity_px, self.config)
        step = (1.0 / plan.near_m - 1.0 / plan.far_m) / disparity_px
        return sweep_fine(frames[index], sources, before, step, self.config)

    def _finish(self, frames: list[Frame], results: list[InverseDepth | None]) -> list[View]:
        depths = []
        for frame, plan, result in zip(frames, self.plans, results, strict=True):
            if result is None or plan is None:
                depths.append(torch.full_like(frame.gray, float("nan")))
                continue
            depth_m = 1.0 / result.inverse_depth.clamp(min=1e-6)
            inside = (depth_m >= 0.8 * plan.near_m) & (depth_m <= 1.25 * plan.far_m)
            depths.append(torch.where(inside, depth_m, float("nan")))
        finish = partial(self._finish_view, frames=frames, depths=depths, results=results)
        return map_views(finish, range(len(self.views)), self.device)

    def _finish_view(
        self, index: int, frames: list[Frame], depths: list[torch.Tensor], results: list[InverseDepth | None]
    ) -> View:
        view, plan, result = self.views[index], self.plans[index], results[index]
        shape = (view.intrinsics.height, view.intrinsics.width)
        if result is None or plan is None:
            return replace(
                view,
                depth_m=np.full(shape, np.nan, dtype=np.float32),
                depth_confidence=np.zeros(shape, dtype=np.float32),
            )
        others = plan.sources
        count, depth_m = agreement(
            frames[index],
            depths[index],
            [frames[i] for i in others],
            [depths[i] for i in others],
            self.config.max_reprojection_px,
            self.config.max_depth_ratio,
        )
        trust = torch.where(depth_m.isnan(), 0.0, confidence(result, count))
        depth_m = torch.where(trust >= self.config.min_confidence, depth_m, float("nan"))
        width = depth_m.shape[1]
        specks_px = round(self.config.min_surface_px * (width / view.intrinsics.width) ** 2)
        depth = to_size(without_specks(depth_m.cpu().numpy(), result.step, specks_px), shape)
        trusted = cv2.resize(trust.cpu().numpy(), (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST)
        return replace(view, depth_m=depth, depth_confidence=np.where(np.isfinite(depth), trusted, np.float32(0.0)))
