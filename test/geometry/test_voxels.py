"""Voxel grids: indices, occupancy, resolution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gena3d_core.errors import InputError
from gena3d_core.geometry import voxels
from gena3d_core.types import VoxelGrid

coordinate = st.floats(-5.0, 5.0, allow_nan=False, width=64)
origins = arrays(np.float64, 3, elements=coordinate)
sizes = st.floats(0.002, 0.5)
shapes = st.tuples(*[st.integers(1, 12)] * 3)
indices = arrays(np.int64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.integers(-50, 50))


@settings(deadline=None)
@given(indices, origins, sizes)
def test_center_of_a_voxel_lies_in_it(index, origin, size):
    centers = voxels.index_to_center(index, origin, size)
    np.testing.assert_array_equal(voxels.points_to_index(centers, origin, size), index)


@settings(deadline=None)
@given(arrays(np.float64, (10, 3), elements=coordinate), origins, sizes)
def test_a_point_is_within_half_a_voxel_of_its_center(points, origin, size):
    centers = voxels.index_to_center(voxels.points_to_index(points, origin, size), origin, size)
    assert (np.abs(centers - points) <= size * (0.5 + 1e-6) + 1e-12).all()


@settings(deadline=None)
@given(origins, sizes, shapes)
def test_centers_agree_with_indices(origin, size, shape):
    centers = voxels.voxel_centers(origin, size, shape)
    assert centers.shape == (*shape, 3)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    np.testing.assert_allclose(centers, voxels.index_to_center(index, origin, size))


@settings(deadline=None)
@given(arrays(bool, shapes), origins, sizes)
def test_occupancy_survives_the_way_over_points(occupancy, origin, size):
    centers = voxels.occupied_centers(occupancy, origin, size)
    np.testing.assert_array_equal(voxels.points_to_occupancy(centers, origin, size, occupancy.shape), occupancy)


@settings(deadline=None)
@given(arrays(bool, (4, 6, 8)), st.sampled_from([1, 2]))
def test_downsampling_keeps_every_occupied_place(occupancy, factor):
    coarse = voxels.downsample_occupancy(occupancy, factor)
    assert (voxels.upsample(coarse, factor) >= occupancy).all()
    filled = voxels.downsample_occupancy(occupancy, factor, min_fraction=1.0)
    assert (voxels.upsample(filled, factor) <= occupancy).all()


@settings(deadline=None)
@given(arrays(np.uint8, (4, 4, 4), elements=st.integers(0, 2)))
def test_downsampled_states_never_claim_more_free_space(state):
    grid = VoxelGrid(np.zeros(3), 0.1, state)
    coarse = voxels.downsample_grid(grid, 2)
    spread = voxels.upsample(coarse.state, 2)
    assert coarse.voxel_size_m == pytest.approx(0.2)
    assert (state[spread == VoxelGrid.FREE] == VoxelGrid.FREE).all()
    assert (spread[state == VoxelGrid.SURFACE] == VoxelGrid.SURFACE).all()


@settings(deadline=None)
@given(origins, arrays(np.float64, 3, elements=st.floats(0.01, 3.0)), sizes)
def test_shape_covers_the_bounds(low, extent, size):
    shape = np.array(voxels.shape_of_bounds(low, low + extent, size))
    assert (shape * size >= extent - 1e-5 * size - 1e-9).all()
    assert ((shape - 1) * size < extent + 1e-9).all()


def test_whole_numbers_of_voxels_do_not_grow_by_rounding():
    assert voxels.shape_of_bounds(np.zeros(3), np.array([0.3, 0.6, 0.1]), 0.1) == (3, 6, 1)


def test_points_outside_or_nan_are_ignored():
    points = np.array([[0.05, 0.05, 0.05], [np.nan, 0.0, 0.0], [-0.01, 0.0, 0.0], [0.4, 0.0, 0.0]])
    counts = voxels.count_points(points, np.zeros(3), 0.1, (4, 4, 4))
    assert counts.sum() == 1
    assert counts[0, 0, 0] == 1


def test_min_points(rng):
    points = np.concatenate([np.full((3, 3), 0.05), np.full((1, 3), 0.15)])
    occupancy = voxels.points_to_occupancy(points, np.zeros(3), 0.1, (2, 2, 2), min_points=2)
    assert np.argwhere(occupancy).tolist() == [[0, 0, 0]]


def test_grid_around_contains_all_points(rng):
    points = rng.normal(size=(200, 3)) * (1.0, 0.2, 0.5)
    origin, size = voxels.grid_around(points, 64, padding=0.1)
    index = voxels.points_to_index(points, origin, size)
    assert voxels.inside_grid(index, (64, 64, 64)).all()
    assert 64 * size == pytest.approx(1.2 * np.ptp(points[:, 0]))


def test_sample_grid_knows_its_limits():
    state = np.zeros((2, 2, 2), dtype=np.uint8)
    state[1, 0, 0] = VoxelGrid.FREE
    grid = VoxelGrid(np.array([1.0, 0.0, 0.0]), 0.5, state)
    points = np.array([[1.6, 0.1, 0.1], [1.1, 0.1, 0.1], [2.1, 0.1, 0.1], [np.nan, 0.0, 0.0]])
    assert voxels.sample_grid(grid, points).tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: voxels.shape_of_bounds(np.zeros(3), np.ones(3), 0.0), "positive"),
        (lambda: voxels.shape_of_bounds(np.zeros(3), np.zeros(3), 0.1), "low < high"),
        (lambda: voxels.shape_of_bounds(np.zeros(3), np.full(3, np.nan), 0.1), "low < high"),
        (lambda: voxels.downsample_occupancy(np.zeros((3, 4, 4), dtype=bool), 2), "blocks of 2"),
        (lambda: voxels.grid_around(np.full((4, 3), np.nan), 8), "finite"),
        (lambda: voxels.grid_around(np.ones((4, 3)), 8), "coincide"),
        (lambda: voxels.upsample(np.zeros((2, 2)), 2), "upsample"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
