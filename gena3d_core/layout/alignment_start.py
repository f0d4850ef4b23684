"""Where the search for `S_world_scene` starts: similarities that bring what is known roughly together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.spatial.transform import Rotation

from ..geometry import similarity, transforms
from ..geometry.similarity_fit import fit_similarity
from ..types import Float64Array
from .evidence import (
    CameraPoses,
    Evidence,
    KnownSize,
    ObjectPoints,
    ObjectPose,
    ObjectRays,
    SupportContact,
    UprightAssets,
)
from .scene_assets import SceneAssets

YAWS = 16
MAX_TRIPLES = 60
MIN_AREA = 0.02
"""Triples of places that lie nearly on a line (area of the triangle over its squared side) tell no rotation."""
HINT_STEPS = (0.75, 1.0, 1.3)
MAX_SCALES = 3


def start_candidates(evidence: Sequence[Evidence], assets: SceneAssets) -> Float64Array:
    """(C, 4, 4) candidates of `S_world_scene`, C >= 1."""
    scene, world = _places(evidence, assets)
    poses = [item for item in evidence if isinstance(item, ObjectPose)]
    found = [_from_triples(scene, world)]
    found += [(item.measured.S @ transforms.inverse(assets.S_scene_grid[item.asset]))[None] for item in poses]
    if len(found[0]) < 3 and not poses:
        found.append(_from_directions(evidence, assets, scene, world))
    return np.concatenate(found)


def upright_start(assets: SceneAssets) -> Float64Array:
    """(4, 4): the query upright above the world's origin, everything on or above z = 0, lengths as in the scene."""
    R = assets.R_scene_upright.T
    lowest = float((assets.extremes @ R[2]).min())
    return similarity.compose(np.array([0.0, 0.0, -lowest]), R, 1.0)


def _places(evidence: Sequence[Evidence], assets: SceneAssets) -> tuple[Float64Array, Float64Array]:
    """Places (M, 3) in the scene and roughly the same places (M, 3) in the world."""
    scene, world = [np.zeros((0, 3))], [np.zeros((0, 3))]
    for item in evidence:
        if isinstance(item, ObjectPoints):
            scene.append(assets.centers[item.asset][None])
            world.append((item.points_m.min(axis=0) + item.points_m.max(axis=0))[None] / 2.0)
        elif isinstance(item, CameraPoses):
            scene.append(item.T_scene_camera[:, :3, 3])
            world.append(item.T_world_camera[:, :3, 3])
        elif isinstance(item, ObjectRays):
            chosen = np.unique(item.assets)
            scene.append(assets.centers[chosen])
            world.append(np.stack([_on_rays(item, int(asset), evidence) for asset in chosen]))
    return np.concatenate(scene), np.concatenate(world)


def _on_rays(rays: ObjectRays, asset: int, evidence: Sequence[Evidence]) -> Float64Array:
    """Point (3,) nearest to the asset's rays; with one ray where it meets a support plane, else a metre away."""
    mine = rays.assets == asset
    origins, directions = rays.origins_m[mine], rays.directions[mine]
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    A = across.sum(axis=0)
    if np.linalg.eigvalsh(A)[0] > 1e-4 * len(origins):
        return np.asarray(np.linalg.solve(A, np.einsum("mij,mj->i", across, origins)))
    origin, direction = origins.mean(axis=0), directions[0]
    for item in evidence:
        if isinstance(item, SupportContact):
            fall = float(direction @ item.plane.normal)
            height = float(origin @ item.plane.normal) + item.plane.offset_m
            if fall < -0.05 and height > 0:
                return origin - direction * (height / fall)
    return origin + direction


def _from_triples(scene: Float64Array, world: Float64Array) -> Float64Array:
    """(C, 4, 4) similarities of triples of places, and of all places together; none for fewer than three."""
    if len(scene) < 3:
        return np.zeros((0, 4, 4))
    triples = np.array(list(combinations(range(len(scene)), 3)))
    triples = triples[np.unique(np.linspace(0, len(triples) - 1, min(MAX_TRIPLES, len(triples))).astype(np.int64))]
    spread = []
    for places in (scene, world):
        a, b = (places[triples[:, k]] - places[triples[:, 0]] for k in (1, 2))
        longest = np.maximum((a**2).sum(axis=1), (b**2).sum(axis=1))
        area = np.linalg.norm(np.cross(a, b), axis=1)
        spread.append(np.divide(area, longest, out=np.zeros_like(area), where=longest > 0))
    triples = triples[np.minimum(*spread) > MIN_AREA]
    if not len(triples):
        return np.zeros((0, 4, 4))
    S = fit_similarity(scene[triples], world[triples], np.ones(triples.shape), upright=False)
    together = fit_similarity(scene[None], world[None], np.ones((1, len(scene))), upright=False)
    return np.concatenate([S, together])


def _from_directions(
    evidence: Sequence[Evidence], assets: SceneAssets, scene: Float64Array, world: Float64Array
) -> Float64Array:
    """(C, 4, 4): every likely rotation with every likely scale, the places on one another in the median."""
    rotations = _rotations(evidence, assets)
    scales = _scales(evidence, assets, scene, world)
    R = np.repeat(rotations, len(scales), axis=0)
    scale = np.tile(scales, len(rotations))
    if len(scene):
        moved = np.einsum("cij,mj->cmi", scale[:, None, None] * R, scene)
        t = np.median(world[None] - moved, axis=1)
    else:
        t = np.zeros((len(R), 3))
    return similarity.compose(t, R, scale)


def _rotations(evidence: Sequence[Evidence], assets: SceneAssets) -> Float64Array:
    """(C, 3, 3) `R_world_scene`: as cameras say; else every yaw about the vertical."""
    cameras = [item for item in evidence if isinstance(item, CameraPoses)]
    if cameras:
        turns = [item.T_world_camera[:, :3, :3] @ np.swapaxes(item.T_scene_camera[:, :3, :3], 1, 2) for item in cameras]
        return np.concatenate(turns)
    ups_world = [np.asarray(item.up, np.float64) for item in evidence if isinstance(item, UprightAssets)]
    ups_world += [np.asarray(item.plane.normal, np.float64) for item in evidence if isinstance(item, SupportContact)]
    upright = [assets.ups[list(item.assets)].mean(axis=0) for item in evidence if isinstance(item, UprightAssets)]
    axes = np.concatenate([assets.R_scene_upright.T, -assets.R_scene_upright.T])
    # Nobody says which side of the query is up: as in its grid is likeliest, but it may lie on any.
    ups_scene = [upright[0]] if upright else list(axes)
    up = ups_world[0] if ups_world else np.array([0.0, 0.0, 1.0])
    angle = np.arange(YAWS) * (2.0 * np.pi / YAWS)
    yaws = Rotation.from_rotvec(angle[:, None] * up).as_matrix()
    return np.concatenate([yaws @ _turn_onto(u / np.linalg.norm(u), up) for u in ups_scene])


def _turn_onto(source: np.ndarray, target: np.ndarray) -> Float64Array:
    """(3, 3) least rotation that brings the unit vector `source` onto `target`."""
    axis, cosine = np.cross(source, target), float(np.clip(source @ target, -1.0, 1.0))
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        side = np.eye(3)[np.argmin(np.abs(source))]
        axis = np.cross(source, side)
        return np.eye(3) if cosine > 0 else Rotation.from_rotvec(np.pi * axis / np.linalg.norm(axis)).as_matrix()
    return Rotation.from_rotvec(axis / length * np.arccos(cosine)).as_matrix()


def _scales(
    evidence: Sequence[Evidence], assets: SceneAssets, scene: Float64Array, world: Float64Array
) -> Float64Array:
    """(C,) likely metres per unit of the scene; 1 where nothing tells."""
    sizes = [item.size_m / assets.sides[item.asset] for item in evidence if isinstance(item, KnownSize)]
    hints = [
        float(np.linalg.norm(np.ptp(item.points_m, axis=0))) / assets.extents[item.asset] * step
        for item in evidence
        if isinstance(item, ObjectPoints)
        for step in HINT_STEPS
    ]
    if len(scene) > 1:
        apart = [np.linalg.norm(p[1:] - p[:1], axis=1) for p in (scene, world)]
        if (apart[0] > 1e-6).any() and (apart[1] > 1e-6).any():
            sizes.append(float(np.median(apart[1][apart[0] > 1e-6]) / np.median(apart[0][apart[0] > 1e-6])))
    known = np.array([*sizes, *hints])
    known = known[np.isfinite(known) & (known > 0)]
    if len(known) > MAX_SCALES:
        known = np.quantile(known, np.linspace(0.1, 0.9, MAX_SCALES))
    return np.unique(known.round(9)) if len(known) else np.ones(1)
