"""Which part of a true surface did the views show, and how does a result agree with what they measured?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..geometry import camera, transforms
from ..geometry.mesh_voxelization import voxelize_surface
from ..geometry.partial_cloud import RESOLUTION, WIDENING, dense_points
from ..geometry.solid_voxelization import is_solid, solid_occupancy
from ..simulation.ray_casting import make_caster
from ..types import BoolArray, Mesh, ObjectObservation, View, VoxelGrid
from .surface_distance import MeasuredSurface
from .voxels import enclosed

COVERAGE_VOXELS = 1.5
"""Measured points count as covered by a surface within so many 64ths of the object's longest side: a voxel of the
generators' grid, which is half as wide again as the object."""
DEPTH_NOISE_M = 0.005
"""They count in any case within this distance, which depth cameras err by."""
COVERAGE_POINTS = 4_000


def seen_points(
    truth: Mesh, points_m: np.ndarray, views: Sequence[View], visible_masks: Sequence[np.ndarray], tolerance_m: float
) -> BoolArray:
    """(N,) bool: surface points (N, 3) of `truth` (world) that some view shows inside its visible mask (H, W).

    A point is hidden where the line of sight meets the mesh more than `tolerance_m` before it.
    """
    caster = make_caster(truth.vertices, truth.faces)
    seen = np.zeros(len(points_m), dtype=bool)
    for view, mask in zip(views, visible_masks, strict=True):
        rows, cols, _, inside = camera.pixel_index(points_m, view)
        asked = np.flatnonzero(inside & mask[rows, cols] & ~seen)
        eye = view.T_world_camera[:3, 3]
        rays = points_m[asked] - eye
        length = np.linalg.norm(rays, axis=1)
        hits = caster(np.broadcast_to(eye, rays.shape), rays / np.maximum(length, 1e-9)[:, None])
        seen[asked] = (hits.face < 0) | (hits.distance > length - tolerance_m)
    return seen


def observed_coverage(surface: MeasuredSurface, observation: ObjectObservation, side_m: float) -> float:
    """Share of the observation's points that lie on the result, within a voxel or the noise of depth cameras.

    Lonely points, which generators reject as outliers too, do not count. side_m: longest side of the true object.
    NaN without points.
    """
    points = observation.points_m[np.isfinite(observation.points_m).all(axis=1)].astype(np.float64)
    if not len(points):
        return float("nan")
    kept = points[dense_points(points, side_m / RESOLUTION, widening=WIDENING)]
    kept = kept if len(kept) else points
    chosen = np.random.default_rng(0).permutation(len(kept))[:COVERAGE_POINTS]
    distance, _ = surface.nearest(kept[chosen])
    return float((distance <= max(COVERAGE_VOXELS / RESOLUTION * side_m, DEPTH_NOISE_M)).mean())


def free_space_violation(mesh: Mesh, grid: VoxelGrid) -> float:
    """Share of the voxels of `grid` inside the mesh (world) that cameras proved empty; 0 if none is inside.

    Inside a closed mesh is a voxel that is at least half filled. An open mesh has inside what it encloses at the grid's
    spacing; its surface counts among its voxels, but not against it, because it may pass anywhere through them.
    """
    inside, counted = _voxels_inside(mesh, grid)
    if not counted.any():
        return 0.0
    return float((inside & (grid.state == VoxelGrid.FREE)).sum() / counted.sum())


def _voxels_inside(mesh: Mesh, grid: VoxelGrid) -> tuple[BoolArray, BoolArray]:
    """(X, Y, Z) bool each: voxels of the grid inside the mesh, and those that it takes up."""
    size = max(grid.state.shape)
    side_m = size * grid.voxel_size_m
    center = np.asarray(grid.origin_m) + side_m / 2.0
    own = tuple(slice(n) for n in grid.state.shape)
    if is_solid(mesh):
        S_world_cube = transforms.rigid(side_m * np.eye(3), center)
        inside = (solid_occupancy(mesh, S_world_cube, size) >= 0.5)[own]
        return inside, inside
    # A rim of one voxel takes what lies outside the grid, so that it fills no voxel of it.
    local = (mesh.vertices.astype(np.float64) - center) / side_m * (size / (size + 2))
    surface = voxelize_surface(local, mesh.faces, size + 2)
    within = enclosed(np.pad(surface, 1))[2:-2, 2:-2, 2:-2][own]
    return within, within | surface[1:-1, 1:-1, 1:-1][own]
