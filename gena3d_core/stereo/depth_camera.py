"""Depth that the cameras measured themselves: cleaned, with a confidence."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..geometry import camera
from ..types import BoolArray, Float32Array, Intrinsics, View


@dataclass(frozen=True)
class DepthCameraConfig:
    """What a depth camera can measure and how its error grows."""

    min_depth_m: float = 0.1
    max_depth_m: float = 8.0
    noise_at_1m: float = 0.0015
    """Standard deviation in metres at one metre; it grows with the square of the range (triangulation)."""
    noise_of_half_confidence_m: float = 0.01
    """Standard deviation at which the confidence has fallen to one half."""
    grazing_from_deg: float = 60.0
    """Incidence angle (ray against surface normal) from which the confidence falls, to `grazing_confidence` at 85."""
    grazing_confidence: float = 0.1
    edge_ratio: float = 0.025
    """Relative depth step between neighbouring pixels that counts as an edge."""
    min_neighbours: int = 6
    """Pixels of the 5x5 neighbourhood (24) on the same surface below which a pixel counts as isolated."""
    allow_missing: bool = False
    """Pass views without depth with all-NaN depth instead of raising `InputError`."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_depth_m < self.max_depth_m:
            raise InputError(f"depth range must satisfy 0 <= min < max, got {self.min_depth_m}, {self.max_depth_m}")


class DepthCamera:
    """`StereoMatcher` that keeps the depth of the camera; what is not a surface becomes NaN."""

    def __init__(self, config: DepthCameraConfig | None = None) -> None:
        self.config = config or DepthCameraConfig()

    def __call__(self, views: Sequence[View]) -> list[View]:
        """The views with cleaned depth and confidence.

        Raises `InputError` when there is no view, a view has no depth (unless `allow_missing`) or no view has a
        single valid depth; warns about each view without valid depth.
        """
        missing = [view.name for view in views if view.depth_m is None]
        if not views or (missing and not self.config.allow_missing) or len(missing) == len(views):
            raise InputError(
                f"{len(missing)} of {len(views)} views have no depth ({', '.join(missing[:5])}): use the matcher "
                "'plane_sweep', which computes it from colour, or allow_missing=True to leave those views out"
            )
        cleaned = [self._clean(view) for view in views]
        empty = [
            view.name
            for view in cleaned
            if view.name not in missing and view.depth_m is not None and not np.isfinite(view.depth_m).any()
        ]
        if len(empty) + len(missing) == len(views):
            raise InputError(
                f"no view has a depth between {self.config.min_depth_m} and {self.config.max_depth_m} m: "
                "is the depth in metres, and registered to colour?"
            )
        if empty:
            warnings.warn(f"depth camera: no valid depth in views {', '.join(empty)}")
        return cleaned

    def _clean(self, view: View) -> View:
        if view.depth_m is None:
            nothing = np.full(view.color.shape[:2], np.nan, dtype=np.float32)
            return replace(view, depth_m=nothing, depth_confidence=np.zeros_like(nothing))
        depth_m = clean_depth(view.depth_m, self.config)
        confidence = depth_confidence(depth_m, view.intrinsics, self.config)
        if view.depth_confidence is not None:
            confidence = confidence * np.nan_to_num(view.depth_confidence).clip(0.0, 1.0)
        return replace(view, depth_m=depth_m, depth_confidence=confidence)


def clean_depth(depth_m: np.ndarray, config: DepthCameraConfig) -> Float32Array:
    """(H, W) depth with NaN where out of range, flying between two surfaces, or isolated."""
    with np.errstate(invalid="ignore"):
        valid = (depth_m >= config.min_depth_m) & (depth_m <= config.max_depth_m) & (depth_m > 0)
    cleaned = np.where(valid, depth_m, np.nan).astype(np.float32)
    cleaned[_flying(cleaned, config.edge_ratio)] = np.nan
    cleaned[_isolated(cleaned, config.edge_ratio, config.min_neighbours)] = np.nan
    return cleaned


def depth_confidence(depth_m: np.ndarray, intrinsics: Intrinsics, config: DepthCameraConfig) -> Float32Array:
    """(H, W) confidence in [0, 1] of (H, W) depth by range and incidence angle; 0 where NaN."""
    sigma_m = config.noise_at_1m * depth_m**2
    by_range = 1.0 / (1.0 + (sigma_m / config.noise_of_half_confidence_m) ** 2)
    limits = [config.grazing_from_deg, 85.0]
    angle_deg = incidence_angle_deg(depth_m, intrinsics)
    # Where no normal can be had the pixel sits at a border: as doubtful as the start of grazing, not as its end.
    by_angle = np.interp(np.nan_to_num(angle_deg, nan=70.0), limits, [1.0, config.grazing_confidence])
    return np.nan_to_num(by_range * by_angle).clip(0.0, 1.0).astype(np.float32)


def incidence_angle_deg(depth_m: np.ndarray, intrinsics: Intrinsics) -> Float32Array:
    """(H, W) angle in degrees between ray and surface normal, 0 = seen head-on; NaN where a neighbour is missing."""
    points = camera.backproject(depth_m, intrinsics)
    angle = np.full(depth_m.shape, np.nan, dtype=np.float32)
    # Steps of two pixels halve the effect of the quantised depth on the normal.
    across, down = points[2:-2, 4:] - points[2:-2, :-4], points[4:, 2:-2] - points[:-4, 2:-2]
    normal = np.cross(across, down)
    ray = points[2:-2, 2:-2]
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = np.abs((normal * ray).sum(-1)) / (np.linalg.norm(normal, axis=-1) * np.linalg.norm(ray, axis=-1))
        angle[2:-2, 2:-2] = np.degrees(np.arccos(np.clip(cosine, 0.0, 1.0)))
    return angle


def _shifted(padded: np.ndarray, radius: int, row: int, col: int) -> np.ndarray:
    """The image displaced by (row, col), from its copy padded by `radius`."""
    height, width = padded.shape[0] - 2 * radius, padded.shape[1] - 2 * radius
    return padded[radius + row : radius + row + height, radius + col : radius + col + width]


def _flying(depth_m: np.ndarray, edge_ratio: float) -> BoolArray:
    """Pixels that lie between a nearer surface on one side and a farther one on the opposite side."""
    padded = np.pad(depth_m, 2, constant_values=np.nan)
    flying = np.zeros(depth_m.shape, dtype=bool)
    with np.errstate(invalid="ignore"):
        for row, col in ((0, 1), (1, 0), (1, 1), (1, -1)):
            for distance in (1, 2):
                one = _shifted(padded, 2, row * distance, col * distance) - depth_m
                other = _shifted(padded, 2, -row * distance, -col * distance) - depth_m
                step_m = edge_ratio * distance * depth_m
                flying |= (one * other < 0) & (np.abs(one) > step_m) & (np.abs(other) > step_m)
    return flying


def _neighbourhood(radius: int) -> Iterator[tuple[int, int]]:
    offsets = range(-radius, radius + 1)
    return ((row, col) for row in offsets for col in offsets if row or col)


def _isolated(depth_m: np.ndarray, edge_ratio: float, min_neighbours: int) -> BoolArray:
    """Pixels with fewer than `min_neighbours` pixels of the 5x5 neighbourhood on the same surface."""
    padded = np.pad(depth_m, 2, constant_values=np.nan)
    count = np.zeros(depth_m.shape, dtype=np.int8)
    with np.errstate(invalid="ignore"):
        for row, col in _neighbourhood(2):
            step_m = edge_ratio * max(abs(row), abs(col)) * depth_m
            count += np.abs(_shifted(padded, 2, row, col) - depth_m) < step_m
    return np.isfinite(depth_m) & (count < min_neighbours)
