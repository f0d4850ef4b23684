"""Settings of the plane sweep."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import InputError


@dataclass(frozen=True)
class PlaneSweepConfig:
    """Settings of `PlaneSweep`; the defaults suit hand-held or wrist cameras around a table."""

    min_depth_m: float | None = None
    """Nearest and farthest depth to look for; None finds them from the views."""
    max_depth_m: float | None = None
    refine_poses: bool = True
    """Correct the poses by feature matches first (the returned views carry the corrected poses)."""
    max_sources: int = 4
    """Other views that each view is compared with."""
    cost: str = "ncc"
    """Photometric cost, a key of `cost.COSTS`."""
    window_radius: int = 2
    """Half the side of the matching window less one half, in pixels of the resolution at hand."""
    horizontal_planes: bool = True
    """Also sweep planes parallel to the ground: keeps table tops sharp that are seen at a grazing angle."""
    up: tuple[float, float, float] = (0.0, 0.0, 1.0)
    """Direction against gravity in the world."""
    coarse_width: int = 160
    """Image width in pixels at which the full depth range is swept."""
    fine_width: int = 640
    """Image width up to which the depth is refined (then it is interpolated to the image's own size)."""
    max_hypotheses: int = 192
    band: int = 5
    """Hypotheses on either side of the coarser depth at the finer resolutions."""
    penalty_small: float = 0.04
    """Semi-global aggregation: penalty of a change by one hypothesis, and of any larger change on even ground."""
    penalty_large: float = 0.5
    max_reprojection_px: float = 3.0
    """Geometric consistency between views: greatest reprojection error and relative difference of depth."""
    max_depth_ratio: float = 0.03
    min_confidence: float = 0.1
    """Depth of lower confidence becomes NaN."""
    min_surface_px: int = 200
    """Connected depth of fewer pixels of the image becomes NaN."""

    def __post_init__(self) -> None:
        low, high = self.min_depth_m, self.max_depth_m
        if (low is not None and low <= 0) or (high is not None and high <= (low or 0.0)):
            raise InputError(f"depth range must satisfy 0 < min < max, got {low} and {high} metres")
        if self.max_sources < 1 or self.window_radius < 1 or self.max_hypotheses < 8 or self.band < 1:
            raise InputError("plane sweep needs max_sources, window_radius, band >= 1 and max_hypotheses >= 8")
        if not 16 <= self.coarse_width <= self.fine_width:
            raise InputError(f"need 16 <= coarse_width <= fine_width, got {self.coarse_width}, {self.fine_width}")
