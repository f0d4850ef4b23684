"""What is known of a scene in metres, as typed pieces of evidence for `world_alignment.align_to_world`.

`asset` is the number of an asset in the layout. Standard deviations are those of the measurement alone; the error of
the layout itself is `AlignmentConfig.layout_sigma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ..errors import InputError
from ..geometry import camera
from ..geometry.similarity import SimilarityEstimate
from ..types import Float64Array, Intrinsics, ObjectObservation, SupportPlane, View, require_rigid, require_shape

MIN_POINTS = 10
MAX_POINTS = 400
"""More points of one object tell nothing new: their errors are alike."""
RAY_SIGMA = 0.15
"""Standard deviation of a mask's centre from the projected centre of its object, as a share of the mask's width."""


@dataclass(frozen=True, eq=False)
class ObjectPoints:
    """Measured points (P, 3) of an asset's visible surface, world; standard deviation in metres."""

    asset: int
    points_m: Float64Array
    sigma_m: float = 0.005

    def __post_init__(self) -> None:
        require_shape(f"points of asset {self.asset}", self.points_m, (None, 3))
        if len(self.points_m) < MIN_POINTS or not np.isfinite(self.points_m).all():
            raise InputError(
                f"asset {self.asset}: evidence needs at least {MIN_POINTS} finite points, got {len(self.points_m)}"
            )
        _require_sigma(self, self.sigma_m)


@dataclass(frozen=True, eq=False)
class SupportContact:
    """The lowest points of assets lie on a plane of the world; None: those of all assets."""

    plane: SupportPlane
    assets: tuple[int, ...] | None = None
    sigma_m: float = 0.005

    def __post_init__(self) -> None:
        if abs(float(np.linalg.norm(self.plane.normal)) - 1.0) > 1e-3 or not np.isfinite(self.plane.offset_m):
            raise InputError("a support plane needs a unit normal and a finite offset")
        _require_sigma(self, self.sigma_m)


@dataclass(frozen=True, eq=False)
class UprightAssets:
    """The z axes of the grids of these assets point along `up` (3,), a unit vector of the world."""

    assets: tuple[int, ...]
    up: Float64Array = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    sigma_rad: float = 0.1

    def __post_init__(self) -> None:
        if np.shape(self.up) != (3,) or abs(float(np.linalg.norm(self.up)) - 1.0) > 1e-3:
            raise InputError(f"`up` must be a unit vector, got {np.asarray(self.up).tolist()}")
        _require_sigma(self, self.sigma_rad)


@dataclass(frozen=True, eq=False)
class FacingAssets:
    """The y axes of the grids of these assets point along `ahead` (3,), a unit vector of the world.

    So do grids that are turned as a camera sees them: `ahead` is where it looks, made level.
    """

    assets: tuple[int, ...]
    ahead: Float64Array = field(default_factory=lambda: np.array([0.0, 1.0, 0.0]))
    sigma_rad: float = 0.15

    def __post_init__(self) -> None:
        if np.shape(self.ahead) != (3,) or abs(float(np.linalg.norm(self.ahead)) - 1.0) > 1e-3:
            raise InputError(f"`ahead` must be a unit vector, got {np.asarray(self.ahead).tolist()}")
        _require_sigma(self, self.sigma_rad)


@dataclass(frozen=True, eq=False)
class CameraPoses:
    """K cameras posed in both frames: by TF in the world, by a geometry network in the scene, up to scale.

    T_world_camera (K, 4, 4); T_scene_camera (K, 4, 4) rigid, lengths in units of the scene.
    """

    T_world_camera: Float64Array
    T_scene_camera: Float64Array
    sigma_m: float = 0.01
    sigma_rad: float = 0.03

    def __post_init__(self) -> None:
        if len(self.T_world_camera) != len(self.T_scene_camera) or not len(self.T_world_camera):
            raise InputError(
                f"camera poses must come in pairs, got {len(self.T_world_camera)} in the world and "
                f"{len(self.T_scene_camera)} in the scene"
            )
        for name, poses in (("T_world_camera", self.T_world_camera), ("T_scene_camera", self.T_scene_camera)):
            for number, T in enumerate(poses):
                require_rigid(f"{name}[{number}]", T)
        _require_sigma(self, self.sigma_m)
        _require_sigma(self, self.sigma_rad)


@dataclass(frozen=True, eq=False)
class ObjectRays:
    """Lines of sight to the centres of assets, world: the masks of posed cameras. Two cameras tell the scale.

    assets (M,) int; origins_m (M, 3) camera centres; directions (M, 3) unit; sigmas_rad (M,)
    """

    assets: np.ndarray
    origins_m: Float64Array
    directions: Float64Array
    sigmas_rad: Float64Array

    def __post_init__(self) -> None:
        count = len(self.assets)
        require_shape("origins of rays", self.origins_m, (count, 3))
        require_shape("directions of rays", self.directions, (count, 3))
        require_shape("sigmas of rays", self.sigmas_rad, (count,))
        if not count:
            raise InputError("evidence by rays needs at least one ray")
        lengths = np.linalg.norm(self.directions, axis=1)
        if not (np.isfinite(self.origins_m).all() and (np.abs(lengths - 1.0) < 1e-3).all()):
            raise InputError("rays need finite origins and directions of length one")
        if not (np.isfinite(self.sigmas_rad).all() and (self.sigmas_rad > 0).all()):
            raise InputError("standard deviations of rays must be positive")


@dataclass(frozen=True, eq=False)
class KnownSize:
    """The longest side of an asset's box, along the axes of its grid, is `size_m` (`relative_sigma`: a share of it)."""

    asset: int
    size_m: float
    relative_sigma: float = 0.05

    def __post_init__(self) -> None:
        if not (np.isfinite(self.size_m) and self.size_m > 0):
            raise InputError(f"asset {self.asset}: a known size must be positive, got {self.size_m} m")
        _require_sigma(self, self.relative_sigma)


@dataclass(frozen=True, eq=False)
class ObjectPose:
    """A measured `S_world_grid` of an asset with its covariance, from registration of the same mesh."""

    asset: int
    measured: SimilarityEstimate


Evidence: TypeAlias = (
    ObjectPoints | SupportContact | UprightAssets | FacingAssets | CameraPoses | ObjectRays | KnownSize | ObjectPose
)


def named_assets(item: Evidence) -> tuple[int, ...]:
    """Numbers of the assets that a piece of evidence names; empty if it concerns all or none."""
    if isinstance(item, ObjectPoints | KnownSize | ObjectPose):
        return (item.asset,)
    if isinstance(item, CameraPoses):
        return ()
    return () if item.assets is None else tuple(int(a) for a in item.assets)


def points_of_observations(
    observations: Sequence[ObjectObservation | None], sigma_m: float = 0.005
) -> list[ObjectPoints]:
    """Evidence from observed objects, one an asset in the layout's order; None and those with few points give none."""
    found = []
    for asset, observation in enumerate(observations):
        if observation is not None:
            points = observation.points_m[np.isfinite(observation.points_m).all(axis=1)]
            if len(points) >= MIN_POINTS:
                found.append(ObjectPoints(asset, thinned(points), sigma_m))
    return found


def points_under_masks(view: View, masks: Sequence[np.ndarray], sigma_m: float = 0.01) -> list[ObjectPoints]:
    """Evidence from a view's depth under the masks (H, W) bool of assets, in the layout's order.

    The outermost pixels are left out, where depth mixes an object with what is behind. Raises `InputError` for a view
    without depth or masks of another size.
    """
    world = camera.world_points(view)
    found = []
    for asset, mask in enumerate(masks):
        require_shape(f"mask of asset {asset}", mask, world.shape[:2])
        points = world[_inner(mask) & np.isfinite(world).all(axis=-1)]
        if len(points) >= MIN_POINTS:
            found.append(ObjectPoints(asset, thinned(points), sigma_m))
    return found


def rays_of_masks(
    masks: Sequence[Sequence[np.ndarray]], intrinsics: Sequence[Intrinsics], T_world_camera: Sequence[np.ndarray]
) -> ObjectRays | None:
    """Lines of sight through the middles of the boxes of masks[view][asset] (H, W) bool; None if all are empty.

    Masks cut by the picture's border say nothing about an object's middle and are left out.
    """
    assets, origins, directions, sigmas = [], [], [], []
    for row, K, T in zip(masks, intrinsics, T_world_camera, strict=True):
        for asset, mask in enumerate(row):
            require_shape(f"mask of asset {asset}", mask, (K.height, K.width))
            if not mask.any() or mask[[0, -1]].any() or mask[:, [0, -1]].any():
                continue
            rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            middle = np.array([(cols[0] + cols[-1]) / 2.0 - K.cx, (rows[0] + rows[-1]) / 2.0 - K.cy])
            ray = np.append(middle / [K.fx, K.fy], 1.0)
            assets.append(asset)
            origins.append(T[:3, 3])
            directions.append(T[:3, :3] @ (ray / np.linalg.norm(ray)))
            sigmas.append(RAY_SIGMA * max(len(rows) / K.fy, len(cols) / K.fx))
    if not assets:
        return None
    return ObjectRays(np.array(assets), np.array(origins), np.array(directions), np.array(sigmas))


def thinned(points: np.ndarray, count: int = MAX_POINTS) -> Float64Array:
    """At most `count` of the points (P, 3), evenly picked, float64."""
    picked = np.linspace(0, len(points) - 1, min(count, len(points))).astype(np.int64)
    return np.asarray(points[picked], dtype=np.float64)


def _inner(mask: np.ndarray) -> np.ndarray:
    """The mask without the pixels at its border, unless hardly anything would be left."""
    padded = np.pad(mask, 1)
    inner = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner if inner.sum() >= MIN_POINTS else mask


def _require_sigma(item: object, sigma: float) -> None:
    if not (np.isfinite(sigma) and sigma > 0):
        raise InputError(f"{type(item).__name__}: standard deviations must be positive, got {sigma}")
