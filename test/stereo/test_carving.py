"""Free-space carving against analytic spheres."""

from dataclasses import replace

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import voxels
from gena3d_core.geometry.transforms import look_at
from gena3d_core.stereo.carving import carve_free_space
from gena3d_core.types import Intrinsics, VoxelGrid

CENTER, RADIUS = np.array([0.02, -0.01, 0.12]), 0.1
LOW, HIGH = CENTER - 0.16, CENTER + 0.16
SIZE = 0.01
CAMERA = Intrinsics(width=160, height=120, fx=180.0, fy=180.0, cx=79.5, cy=59.5)


@pytest.fixture(scope="module")
def views(analytic_view):
    eyes = [(0.9, 0.1, 0.4), (-0.5, 0.8, 0.5), (-0.4, -0.7, 0.6), (0.05, -0.1, 1.1)]
    planes = [((0.0, 0.0, 1.0), -0.2)]
    return [
        analytic_view(look_at(np.array(eye), CENTER), planes, [(CENTER, RADIUS)], CAMERA, name=f"v{i}")
        for i, eye in enumerate(eyes)
    ]


@pytest.fixture(scope="module")
def grid(views) -> VoxelGrid:
    return carve_free_space(views, LOW, HIGH, SIZE)


@pytest.fixture(scope="module")
def radius_m(grid) -> np.ndarray:
    """Distance of every voxel's centre from the sphere's centre."""
    return np.linalg.norm(voxels.voxel_centers(grid.origin_m, SIZE, grid.state.shape) - CENTER, axis=-1)


def test_inside_of_the_sphere_is_never_free(grid, radius_m):
    assert grid.state.shape == (32, 32, 32)
    assert not (grid.state[radius_m < RADIUS] == VoxelGrid.FREE).any()
    assert (grid.state[radius_m < RADIUS - 3 * SIZE] == VoxelGrid.UNKNOWN).all()


def test_space_around_the_sphere_is_carved(grid, radius_m):
    assert (grid.state[radius_m > RADIUS + 3 * SIZE] == VoxelGrid.FREE).mean() > 0.95


def test_surface_voxels_lie_on_the_sphere_and_cover_what_is_seen(grid, radius_m):
    surface = grid.state == VoxelGrid.SURFACE
    assert (np.abs(radius_m[surface] - RADIUS) < 2.5 * SIZE).all()
    centers = voxels.voxel_centers(grid.origin_m, SIZE, grid.state.shape)
    top = (np.abs(radius_m - RADIUS) < 0.3 * SIZE) & (centers[..., 2] > CENTER[2] + 0.05)
    assert surface[top].all()


def test_space_behind_the_surface_stays_unknown(views):
    grid = carve_free_space(views[:1], LOW, HIGH, SIZE)
    away = CENTER - views[0].T_world_camera[:3, 3]
    behind = CENTER + away / np.linalg.norm(away) * np.array([[0.0], [0.05], [0.08]])
    assert (voxels.sample_grid(grid, behind) == VoxelGrid.UNKNOWN).all()


def test_a_larger_margin_carves_less(views, grid):
    careful = carve_free_space(views, LOW, HIGH, SIZE, margin_m=0.04)
    free = careful.state == VoxelGrid.FREE
    assert free.sum() < (grid.state == VoxelGrid.FREE).sum()
    assert (grid.state[free] == VoxelGrid.FREE).all()


def test_depth_of_low_confidence_proves_nothing(views):
    doubtful = [replace(v, depth_confidence=np.full(v.depth_m.shape, 0.2, dtype=np.float32)) for v in views]
    assert (carve_free_space(doubtful, LOW, HIGH, SIZE, min_confidence=0.3).state == VoxelGrid.UNKNOWN).all()
    assert (carve_free_space(doubtful, LOW, HIGH, SIZE, min_confidence=0.1).state == VoxelGrid.FREE).any()


def test_missing_depth_proves_nothing(views):
    holes = [replace(v, depth_m=np.full_like(v.depth_m, np.nan)) for v in views]
    assert (carve_free_space(holes, LOW, HIGH, SIZE).state == VoxelGrid.UNKNOWN).all()


def test_order_of_views_does_not_matter(views, grid):
    np.testing.assert_array_equal(carve_free_space(views[::-1], LOW, HIGH, SIZE).state, grid.state)


def test_batches_do_not_change_the_result(views, grid, monkeypatch):
    monkeypatch.setattr("gena3d_core.stereo.carving.VOXELS_PER_BATCH", 5000)
    np.testing.assert_array_equal(carve_free_space(views, LOW, HIGH, SIZE).state, grid.state)


def test_views_of_different_sizes(analytic_view, views, grid):
    larger = Intrinsics(width=320, height=240, fx=360.0, fy=360.0, cx=159.5, cy=119.5)
    other = analytic_view(views[0].T_world_camera, [((0.0, 0.0, 1.0), -0.2)], [(CENTER, RADIUS)], larger, name="larger")
    mixed = carve_free_space([other, *views[1:]], LOW, HIGH, SIZE)
    assert (mixed.state == grid.state).mean() > 0.99


def test_bad_input_is_named(views):
    with pytest.raises(InputError, match="view with depth"):
        carve_free_space([replace(v, depth_m=None) for v in views], LOW, HIGH, SIZE)
    with pytest.raises(InputError, match="low < high"):
        carve_free_space(views, HIGH, LOW, SIZE)
    with pytest.raises(InputError, match="positive"):
        carve_free_space(views, LOW, HIGH, -0.1)
    with pytest.raises(InputError, match="margins"):
        carve_free_space(views, LOW, HIGH, SIZE, margin_m=-1.0)
