"""The assets of a layout in its scene frame, sampled once for every comparison with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import similarity, transforms
from ..types import Float64Array, Mesh
from .relative_layout import RelativeLayout

SAMPLES = 2_000
DIRECTIONS = 512
"""Directions in which an asset's outermost vertices are found: its shape as far as standing on a plane is concerned."""


@dataclass(frozen=True, eq=False)
class AssetSurface:
    """Samples (M, 3) of one asset's surface with unit normals (M, 3) and a search tree, scene frame."""

    points: Float64Array
    normals: Float64Array
    tree: cKDTree


@dataclass(frozen=True, eq=False)
class SceneAssets:
    """N assets in the scene frame, lengths in units of the query's size.

    surfaces   samples of each
    extremes   (N, E, 3) outermost vertices of each
    centers    (N, 3) middle of each asset's box along the axes of its grid
    sides      (N,) longest side of that box
    extents    (N,) its diagonal
    ups, aheads  (N, 3) z and y axes of the grids
    S_scene_grid  (N, 4, 4) of the layout
    R_scene_upright  (3, 3) rotation of a z-up frame to the scene in which the query stands as in its grid
    """

    surfaces: tuple[AssetSurface, ...]
    extremes: Float64Array
    centers: Float64Array
    sides: Float64Array
    extents: Float64Array
    ups: Float64Array
    aheads: Float64Array
    S_scene_grid: Float64Array
    R_scene_upright: Float64Array


def scene_assets(layout: RelativeLayout, meshes: Sequence[Mesh], seed: int = 0) -> SceneAssets:
    """Assets with meshes in the frames of their grids, in the layout's order.

    Raises `InputError` for another number of meshes, or one without area.
    """
    if len(meshes) != len(layout):
        raise InputError(f"the layout has {len(layout)} assets, but {len(meshes)} meshes were given")
    directions = mesh_ops.sphere_directions(DIRECTIONS).T
    surfaces, extremes, boxes = [], [], []
    S_scene_grid = layout.S_scene_grid
    rotations = similarity.parts(S_scene_grid)[1]
    for number, (mesh, S, R) in enumerate(zip(meshes, S_scene_grid, rotations, strict=True)):
        if not np.isfinite(mesh.vertices).all() or not mesh_ops.area(mesh) > 0:
            raise InputError(f"the mesh of asset {number} has no area or is not finite; nothing can be placed")
        points, faces = mesh_ops.sample_surface(mesh, SAMPLES, np.random.default_rng(seed))
        placed = transforms.apply(S, points.astype(np.float64))
        surfaces.append(AssetSurface(placed, mesh_ops.face_normals(mesh)[faces] @ R.T, cKDTree(placed)))
        used = mesh.vertices[np.unique(mesh.faces)].astype(np.float64)
        extremes.append(transforms.apply(S, used[(used @ directions).argmax(axis=0)]))
        boxes.append(np.stack([used.min(axis=0), used.max(axis=0)]))
    box, scale = np.stack(boxes), similarity.parts(S_scene_grid)[2]
    size = box[:, 1] - box[:, 0]
    return SceneAssets(
        surfaces=tuple(surfaces),
        extremes=np.stack(extremes),
        centers=np.einsum("nij,nj->ni", S_scene_grid[:, :3, :3], box.mean(axis=1)) + S_scene_grid[:, :3, 3],
        sides=size.max(axis=1) * scale,
        extents=np.linalg.norm(size, axis=1) * scale,
        ups=rotations[:, :, 2],
        aheads=rotations[:, :, 1],
        S_scene_grid=S_scene_grid,
        R_scene_upright=layout.R_scene_upright,
    )
