"""Equations that each kind of evidence gives for `S_world_scene`, linear in its small change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from ..geometry import similarity, transforms
from ..types import Float64Array
from .evidence import (
    CameraPoses,
    Evidence,
    FacingAssets,
    KnownSize,
    ObjectPoints,
    ObjectPose,
    ObjectRays,
    SupportContact,
    UprightAssets,
)
from .scene_assets import SceneAssets

INDEPENDENT_POINTS = 12.0
"""The errors of one object's points are alike: together they count as so many."""
SEEN_SHARE = 0.3
"""Share of an asset's surface, the part nearest to the measured points, that must have been seen."""
MIN_SEEN = 40
"""At least so many samples of an asset are compared with its points."""
TANGENTIAL = 0.3
"""Weight of the distance along the surface between a point and its nearest sample, which lies somewhere near."""
CONTACT_DEPTH = 0.01
"""Points of an asset that are lowest up to this share of its size touch the support together."""
BEHIND = 0.1
"""Assets beside or behind a camera are treated as this share of their distance in front of it."""


@dataclass(frozen=True)
class LayoutError:
    """Standard deviation of the layout itself: of its places in metres, of sizes and angles as a share and in radians.

    The metres do not follow the scale that is sought: a larger scene must not pass for a better fit.
    """

    length_m: float
    share: float


@dataclass(frozen=True, eq=False)
class Equations:
    """Residuals (M,) with Jacobian (M, 7) by the change of `S_world_scene`, and their standard deviations (M,).

    to_metres (M,) makes metres of residuals; NaN where they are no lengths. weights (M,) account for rows that repeat
    one another. `group` (M,) joins rows that are right or wrong together.
    """

    residuals: Float64Array
    jacobian: Float64Array
    sigmas: Float64Array
    to_metres: Float64Array
    weights: Float64Array
    group: np.ndarray


def _equations(
    residuals: np.ndarray,
    jacobian: np.ndarray,
    sigmas: np.ndarray | float,
    *,
    to_metres: np.ndarray | float = 1.0,
    weight: float = 1.0,
) -> Equations:
    """Rows from residuals (M, D) with Jacobian (M, D, 7): the D rows of one item form a group."""
    count, width = residuals.shape

    def rows(values: np.ndarray | float) -> np.ndarray:
        return np.broadcast_to(np.reshape(values, (-1, 1)), (count, width)).reshape(-1)

    return Equations(
        residuals=residuals.reshape(-1),
        jacobian=jacobian.reshape(-1, 7),
        sigmas=rows(sigmas),
        to_metres=rows(to_metres),
        weights=rows(weight),
        group=np.repeat(np.arange(count), width),
    )


def _object_points(item: ObjectPoints, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Measured points to the asset's surface, and the part of the surface that was seen to the points."""
    surface = assets.surfaces[item.asset]
    _, nearest = surface.tree.query(transforms.apply(transforms.inverse(S), item.points_m))
    every = max(1, len(surface.points) // max(MIN_SEEN, len(item.points_m)))
    own, own_normals = surface.points[::every], surface.normals[::every]
    distance, measured = cKDTree(item.points_m).query(transforms.apply(S, own))
    seen = distance <= np.quantile(distance, SEEN_SHARE)
    points = np.concatenate([surface.points[nearest], own[seen]])
    normals = np.concatenate([surface.normals[nearest], own_normals[seen]])
    target = np.concatenate([item.points_m, item.points_m[measured[seen]]])

    n = normals @ similarity.parts(S)[1].T
    project = TANGENTIAL * np.eye(3) + (1.0 - TANGENTIAL) * n[:, :, None] * n[:, None, :]
    residuals = np.einsum("pij,pj->pi", project, transforms.apply(S, points) - target)
    jacobian = project @ similarity.point_jacobian(S, points)
    sigma = float(np.hypot(item.sigma_m, error.length_m))
    return _equations(residuals, jacobian, sigma, weight=min(1.0, INDEPENDENT_POINTS / len(points)))


def _support_contact(item: SupportContact, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Heights of the lowest points above the plane."""
    chosen = np.arange(len(assets.centers)) if item.assets is None else np.array(item.assets, dtype=np.int64)
    normal = np.asarray(item.plane.normal, dtype=np.float64)
    world = transforms.apply(S, assets.extremes[chosen])
    heights = world @ normal + item.plane.offset_m
    lowest = heights.min(axis=1)
    _, _, scale = similarity.parts(S)
    # An asset with a flat bottom turns about the middle of what touches, not about one corner of it.
    touching = heights <= (lowest + CONTACT_DEPTH * scale * assets.sides[chosen])[:, None]
    contact = np.einsum("ne,nei->ni", touching / touching.sum(axis=1, keepdims=True), assets.extremes[chosen])
    jacobian = np.einsum("i,nij->nj", normal, similarity.point_jacobian(S, contact))
    sigma = float(np.hypot(item.sigma_m, error.length_m))
    return _equations(lowest[:, None], jacobian[:, None], sigma)


def _upright_assets(item: UprightAssets, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Differences of the assets' z axes from the direction up."""
    return _directions(assets.ups[list(item.assets)], item.up, S, item.sigma_rad)


def _facing_assets(item: FacingAssets, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Differences of the assets' y axes from the direction ahead."""
    return _directions(assets.aheads[list(item.assets)], item.ahead, S, item.sigma_rad)


def _directions(axes_scene: Float64Array, wanted: Float64Array, S: Float64Array, sigma_rad: float) -> Equations:
    """Differences of unit vectors (M, 3) of the scene from a direction (3,) of the world."""
    axes = axes_scene @ similarity.parts(S)[1].T
    jacobian = np.zeros((len(axes), 3, 7))
    jacobian[:, :, 3:6] = -similarity.cross_matrix(axes)
    return _equations(axes - wanted, jacobian, sigma_rad, to_metres=np.nan)


def _camera_poses(item: CameraPoses, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Differences of camera centres and orientations in the world."""
    R = similarity.parts(S)[1]
    centers = item.T_scene_camera[:, :3, 3]
    shift = transforms.apply(S, centers) - item.T_world_camera[:, :3, 3]
    turn = R @ item.T_scene_camera[:, :3, :3] @ np.swapaxes(item.T_world_camera[:, :3, :3], 1, 2)
    rotations = Rotation.from_matrix(turn).as_rotvec()
    by_turn = np.zeros((len(centers), 3, 7))
    by_turn[:, :, 3:6] = np.eye(3)
    place = _equations(shift, similarity.point_jacobian(S, centers), float(np.hypot(item.sigma_m, error.length_m)))
    turned = _equations(rotations, by_turn, float(np.hypot(item.sigma_rad, error.share)), to_metres=np.nan)
    both = [
        np.concatenate([getattr(place, name), getattr(turned, name)])
        for name in ("residuals", "jacobian", "sigmas", "to_metres", "weights", "group")
    ]
    return Equations(*both)


def _object_rays(item: ObjectRays, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Angles between the lines of sight and the assets' middles as the cameras would see them."""
    centers = assets.centers[item.assets]
    offset = transforms.apply(S, centers) - item.origins_m
    depth = np.einsum("mi,mi->m", offset, item.directions)
    depth = np.maximum(depth, BEHIND * np.linalg.norm(offset, axis=1) + 1e-9)
    across = np.eye(3) - item.directions[:, :, None] * item.directions[:, None, :]
    aside = np.einsum("mij,mj->mi", across, offset) / depth[:, None]
    toward = (across - aside[:, :, None] * item.directions[:, None, :]) / depth[:, None, None]
    sigma = np.hypot(item.sigmas_rad, error.length_m / depth)
    return _equations(aside, toward @ similarity.point_jacobian(S, centers), sigma, to_metres=depth)


def _known_size(item: KnownSize, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Logarithm of the ratio of the asset's size to the known one."""
    _, _, scale = similarity.parts(S)
    jacobian = np.zeros((1, 1, 7))
    jacobian[..., 6] = 1.0
    residual = np.log(scale * assets.sides[item.asset] / item.size_m).reshape(1, 1)
    return _equations(residual, jacobian, float(np.hypot(item.relative_sigma, error.share)), to_metres=item.size_m)


def _object_pose(item: ObjectPose, assets: SceneAssets, S: Float64Array, error: LayoutError) -> Equations:
    """Change from the measured similarity of an asset to that which the layout gives."""
    S_scene_grid = assets.S_scene_grid[item.asset]
    residuals = similarity.change_between(item.measured.S, S @ S_scene_grid)
    jacobian = np.eye(7)
    jacobian[:3] = similarity.point_jacobian(S, S_scene_grid[:3, 3])
    layout = np.array([error.length_m] * 3 + [error.share] * 4)
    sigmas = np.sqrt(np.diag(item.measured.covariance) + layout**2)
    to_metres = np.array([1.0] * 3 + [np.nan] * 4)
    return Equations(residuals, jacobian, sigmas, to_metres, np.ones(7), np.zeros(7, dtype=np.int64))


Term = Callable[[Any, SceneAssets, Float64Array, LayoutError], Equations]
TERMS: dict[type, Term] = {
    ObjectPoints: _object_points,
    SupportContact: _support_contact,
    UprightAssets: _upright_assets,
    FacingAssets: _facing_assets,
    CameraPoses: _camera_poses,
    ObjectRays: _object_rays,
    KnownSize: _known_size,
    ObjectPose: _object_pose,
}
"""The equations of each kind of evidence."""


def equations_of(item: Evidence, assets: SceneAssets, S_world_scene: Float64Array, error: LayoutError) -> Equations:
    """Equations at `S_world_scene` (4, 4)."""
    return TERMS[type(item)](item, assets, S_world_scene, error)
