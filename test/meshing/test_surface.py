"""Marching cubes of distance bands and of occupancy: volume, area, closedness, unknown regions stay open."""

import numpy as np
import pytest

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.meshing.surface import surface_from_distance, surface_from_occupancy

VOXEL = 0.005
RADIUS = 0.08


@pytest.fixture(scope="module")
def sphere_distance():
    grid = np.stack(np.meshgrid(*[np.arange(40)] * 3, indexing="ij"), axis=-1) * VOXEL
    return (np.linalg.norm(grid - 0.0987, axis=-1) - RADIUS).astype(np.float32)


def test_sphere_volume_and_area(sphere_distance):
    mesh = surface_from_distance(sphere_distance, VOXEL, np.eye(4))
    assert mesh_ops.is_watertight(mesh)
    assert mesh_ops.volume(mesh) == pytest.approx(4 / 3 * np.pi * RADIUS**3, rel=0.01)
    assert mesh_ops.area(mesh) == pytest.approx(4 * np.pi * RADIUS**2, rel=0.01)
    distance = np.linalg.norm(mesh.vertices - 0.0987, axis=1) - RADIUS
    assert np.abs(distance).max() < 0.05 * VOXEL


def test_grid_frame_is_applied(sphere_distance):
    T = transforms.look_at((1.0, 2.0, 3.0), (0.0, 0.0, 0.0))
    mesh = surface_from_distance(sphere_distance, VOXEL, T)
    center = transforms.apply(T, np.full(3, 0.0987))
    np.testing.assert_allclose(np.linalg.norm(mesh.vertices - center, axis=1), RADIUS, atol=0.001)
    assert mesh_ops.volume(mesh) > 0


def test_unknown_regions_stay_open(sphere_distance):
    known = sphere_distance.copy()
    known[:, :, 20:] = np.nan
    mesh = surface_from_distance(known, VOXEL, np.eye(4))
    assert not mesh_ops.is_watertight(mesh)
    assert mesh.vertices[:, 2].max() <= 19 * VOXEL + 1e-6
    assert np.abs(np.linalg.norm(mesh.vertices - 0.0987, axis=1) - RADIUS).max() < 0.05 * VOXEL
    rim = mesh.vertices[np.unique(mesh_ops.boundary_edges(mesh))]
    np.testing.assert_allclose(rim[:, 2], 19 * VOXEL, atol=1e-6)


def test_steps_of_the_field_make_no_surface():
    distance = np.full((20, 20, 20), 3 * VOXEL, dtype=np.float32)
    distance[10:] = -2 * VOXEL
    assert len(surface_from_distance(distance, VOXEL, np.eye(4)).faces) == 0


def test_nothing_known_gives_no_faces():
    assert len(surface_from_distance(np.full((5, 5, 5), np.nan, np.float32), VOXEL, np.eye(4)).faces) == 0


@pytest.mark.parametrize("touching_border", [False, True])
def test_occupancy_closes(sphere_distance, touching_border):
    occupancy = sphere_distance < (0.03 if touching_border else 0.0)
    mesh = surface_from_occupancy(occupancy, VOXEL, np.eye(4))
    assert mesh_ops.is_watertight(mesh)
    assert mesh_ops.volume(mesh) == pytest.approx(occupancy.sum() * VOXEL**3, rel=0.06)


def test_occupancy_takes_a_similarity(sphere_distance):
    S = transforms.rigid(2.0 * np.eye(3), np.array([1.0, 0.0, 0.0]))
    plain = surface_from_occupancy(sphere_distance < 0, VOXEL, np.eye(4))
    scaled = surface_from_occupancy(sphere_distance < 0, VOXEL, S)
    assert mesh_ops.volume(scaled) == pytest.approx(8 * mesh_ops.volume(plain), rel=1e-4)


def test_empty_occupancy_is_an_error():
    with pytest.raises(InputError, match="no voxel"):
        surface_from_occupancy(np.zeros((4, 4, 4)), VOXEL, np.eye(4))
