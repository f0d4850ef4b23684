import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry.plane import fit_plane, foot, horizontal_planes
from gena3d_core.types import SupportPlane


def tilted(slope, azimuth, height_m):
    normal = np.array([slope * np.cos(azimuth), slope * np.sin(azimuth), 1.0])
    normal /= np.linalg.norm(normal)
    return SupportPlane(normal, -height_m * normal[2])


def points_on(plane, rng, count=600, half_m=0.5, noise_m=0.002):
    xy = rng.uniform(-half_m, half_m, (count, 2))
    z = -(xy @ plane.normal[:2] + plane.offset_m) / plane.normal[2]
    return np.column_stack([xy, z]) + rng.normal(size=(count, 1)) * noise_m * plane.normal


@settings(max_examples=25, deadline=None)
@given(
    slope=st.floats(0.0, 0.02),
    azimuth=st.floats(0.0, 6.2),
    height_m=st.floats(-1.0, 1.0),
    seed=st.integers(0, 10_000),
)
def test_the_fit_finds_a_plane_under_a_third_of_clutter(slope, azimuth, height_m, seed):
    rng = np.random.default_rng(seed)
    truth = tilted(slope, azimuth, height_m)
    flat = points_on(truth, rng)
    clutter = points_on(truth, rng, count=250)
    clutter[:, 2] += rng.uniform(0.015, 0.2, len(clutter))
    fitted = fit_plane(np.concatenate([flat, clutter]), start=SupportPlane(np.array([0.0, 0.0, 1.0]), -height_m))
    assert np.degrees(np.arccos(min(1.0, fitted.normal @ truth.normal))) < 0.3
    assert np.abs(fitted.height_m(flat)).mean() < 0.003


@settings(max_examples=25, deadline=None)
@given(slope=st.floats(0.0, 0.5), azimuth=st.floats(0.0, 6.2), height_m=st.floats(-2.0, 2.0))
def test_the_foot_of_a_point_lies_on_the_plane_below_it(slope, azimuth, height_m):
    plane = tilted(slope, azimuth, height_m)
    points = np.random.default_rng(0).normal(size=(20, 3))
    feet = foot(plane, points)
    np.testing.assert_allclose(plane.height_m(feet), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.cross(points - feet, plane.normal), 0.0, atol=1e-9)


def test_a_line_of_points_is_no_plane():
    line = np.column_stack([np.linspace(0, 1, 50), np.linspace(0, 1, 50), np.zeros(50)])
    with pytest.raises(InputError, match="line"):
        fit_plane(line)


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.full((5, 3), np.nan), np.zeros((4, 2))])
def test_no_points_no_plane(points):
    with pytest.raises(InputError):
        fit_plane(points)


def test_floor_and_table_are_found_heaviest_first_and_walls_are_not(rng):
    table, floor = tilted(0.05, 1.0, 0.7), tilted(0.05, 1.0, 0.0)
    sizes = (900, 600, 500)
    wall = np.column_stack([rng.uniform(-1, 1, (sizes[2], 2)), np.zeros(sizes[2])])[:, [0, 2, 1]]
    points = np.concatenate([points_on(table, rng, sizes[0]), points_on(floor, rng, sizes[1]), wall])
    normals = np.repeat([table.normal, floor.normal, [0.0, 1.0, 0.0]], sizes, axis=0)
    found = horizontal_planes(points, normals, np.ones(len(points)))
    assert len(found) == 2
    for candidate, truth in zip(found, (table, floor), strict=True):
        np.testing.assert_allclose(candidate.plane.normal, truth.normal, atol=0.005)
        assert abs(candidate.plane.offset_m - truth.offset_m) < 0.003


def test_without_level_surfaces_there_is_no_candidate(rng):
    wall = np.column_stack([rng.uniform(-1, 1, 500), np.zeros(500), rng.uniform(0, 1, 500)])
    assert horizontal_planes(wall, np.tile([0.0, 1.0, 0.0], (500, 1)), np.ones(500)) == []
