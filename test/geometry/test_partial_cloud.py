"""Partial clouds: where their grids stand, which voxels they fill, which points are outliers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import transforms
from gena3d_core.geometry.partial_cloud import (
    MAX_HIDDEN,
    SIDE_FACTOR,
    dense_points,
    hidden_points,
    place_grid,
    prepare_cloud,
    tight_grid,
)
from gena3d_core.types import Intrinsics, SupportPlane, View

SEEDS = st.integers(0, 2**32 - 1)
FLOOR = SupportPlane(np.array([0.0, 0.0, 1.0]), -0.7)


def shell(rng: np.random.Generator, count: int, radius: float, center: tuple[float, float, float]) -> np.ndarray:
    """(count, 3) points of a sphere."""
    directions = rng.normal(size=(count, 3))
    return np.array(center) + radius * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def to_grid(S_world_grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    return transforms.apply(transforms.inverse(S_world_grid), points)


@given(SEEDS, st.floats(1e-3, 1e2))
@settings(max_examples=40, deadline=None)
def test_similarity_round_trip_and_normalisation(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(30, 3)) * scale * rng.uniform(0.1, 1, 3) + rng.normal(size=3)
    S = tight_grid(points)
    inside = to_grid(S, points)
    assert np.abs(inside).max() == pytest.approx(0.5)
    assert np.allclose(inside.min(axis=0) + inside.max(axis=0), 0.0, atol=1e-7)
    assert np.allclose(transforms.apply(S, inside), points)
    assert np.allclose(S[:3, :3], S[0, 0] * np.eye(3))


@given(SEEDS, st.integers(6, 120), st.floats(0.02, 0.5))
@settings(max_examples=40, deadline=None)
def test_outlier_filter_is_a_count_of_neighbours(seed: int, count: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.5, 0.5, (count, 3)) * rng.uniform(0.1, 1.0)
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    neighbours = (distances <= radius).sum(axis=1) - 1
    assert np.array_equal(dense_points(points, radius), neighbours >= 5)


def test_filter_counts_others_not_the_point_and_the_radius_itself() -> None:
    five = np.zeros((5, 3))
    assert not dense_points(five, 1.0).any()
    assert dense_points(np.zeros((6, 3)), 1.0).all()
    around = np.concatenate([np.zeros((1, 3)), np.tile([[0.25, 0.0, 0.0]], (5, 1))])
    assert dense_points(around, 0.25).all()
    assert not dense_points(around, 0.2499)[0]
    assert dense_points(np.zeros((0, 3)), 1.0).shape == (0,)


def test_dense_cloud_loses_its_outliers_only(rng: np.random.Generator) -> None:
    surface = shell(rng, 60_000, 0.4, (0, 0, 0))
    stray = rng.uniform(0.45, 0.49, (4, 3))
    S = np.eye(4)
    found = prepare_cloud(np.concatenate([surface, stray]), S)
    index = np.floor((surface + 0.5) * 64).astype(int)
    expected = np.zeros((64, 64, 64), dtype=bool)
    expected[tuple(index[dense_points(surface, 1 / 64)].T)] = True
    assert np.array_equal(found, expected)
    assert dense_points(surface, 1 / 64).mean() > 0.999


def test_sparse_clouds_keep_what_is_not_stray(rng: np.random.Generator) -> None:
    surface = shell(rng, 800, 0.4, (0, 0, 0))
    assert dense_points(surface, 1 / 64).mean() < 0.05
    found = prepare_cloud(np.concatenate([surface, [[0.0, 0.0, 0.0]]]), np.eye(4))
    assert found.sum() > 700
    assert not found[32, 32, 32]


def test_grids_of_other_resolutions_and_points_outside(rng: np.random.Generator) -> None:
    points = shell(rng, 5000, 0.4, (0, 0, 0))
    outside = points + np.array([0.5, 0.0, 0.0])
    found = prepare_cloud(np.concatenate([points, [[np.nan, 0, 0]]]), np.eye(4), 16)
    assert found.shape == (16, 16, 16)
    assert found.dtype == bool
    half = prepare_cloud(outside, np.eye(4), 16)
    assert half.any()
    assert half.sum() < found.sum()
    assert not prepare_cloud(points + 5.0, np.eye(4)).any()
    assert not prepare_cloud(np.zeros((3, 3)), np.eye(4)).any()


def test_tight_grid_keeps_the_extreme_points() -> None:
    # Six points in each corner of a box: those on the upper walls belong to the last voxels.
    corners = np.stack(np.meshgrid(*[[1.0, 3.0]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    cloud = np.repeat(corners, 6, axis=0)
    found = prepare_cloud(cloud, tight_grid(cloud))
    assert found.sum() == 8
    assert found[::63, ::63, ::63].all()


@given(SEEDS, st.floats(0.02, 0.3))
@settings(max_examples=20, deadline=None)
def test_grid_holds_the_whole_ball_of_which_a_side_was_seen(seed: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    center = (1.0, -2.0, 0.7 + radius)
    ball = shell(rng, 4000, radius, center)
    azimuth = rng.uniform(0, 2 * np.pi)
    seen = ball[(ball - center) @ [np.cos(azimuth), np.sin(azimuth), 0.0] > 0]
    S = place_grid(seen, FLOOR)
    assert np.abs(to_grid(S, ball)).max() < 0.55
    assert S[0, 0] == pytest.approx(SIDE_FACTOR * 2 * radius, rel=0.2)


def test_grid_reaches_the_support_but_not_from_far_above(rng: np.random.Generator) -> None:
    top = rng.uniform([0.0, 0.0, 0.80], [0.2, 0.1, 0.84], (3000, 3))
    without, on, far = (
        place_grid(top, support) for support in (None, FLOOR, SupportPlane(np.array([0.0, 0.0, 1.0]), -0.2))
    )
    assert without[2, 3] == pytest.approx(0.82, abs=2e-3)
    assert on[2, 3] == pytest.approx((0.70 + 0.84) / 2, abs=2e-3)
    assert np.array_equal(far, without)
    assert on[0, 0] == pytest.approx(SIDE_FACTOR * 0.2, rel=0.02)
    # Points below the plane do not turn the box around.
    assert np.array_equal(place_grid(top, SupportPlane(np.array([0.0, 0.0, 1.0]), -0.83)), without)


def test_grid_on_a_tilted_support(rng: np.random.Generator) -> None:
    normal = np.array([0.3, 0.0, 1.0]) / np.linalg.norm([0.3, 0.0, 1.0])
    top = rng.uniform([0.9, -0.1, 0.10], [1.1, 0.1, 0.15], (3000, 3))
    plane = SupportPlane(normal, float(-normal @ [1.0, 0.0, 0.0]))
    assert place_grid(top, plane)[2, 3] == pytest.approx(0.075, abs=3e-3)
    upright = SupportPlane(np.array([1.0, 0.0, 0.0]), -1.0)
    assert np.array_equal(place_grid(top, upright), place_grid(top))


def test_grid_is_not_moved_by_strays(rng: np.random.Generator) -> None:
    surface = shell(rng, 3000, 0.05, (0.4, 0.1, 0.8))
    strayed = np.concatenate([surface, [[0.55, 0.1, 0.8], [np.nan] * 3]])
    assert np.allclose(place_grid(strayed), place_grid(surface), atol=3e-3)


def test_grid_makes_room_for_hidden_parts_within_limits(rng: np.random.Generator) -> None:
    seen = rng.uniform([0.0, 0.0, 0.70], [0.2, 0.1, 0.8], (3000, 3))
    plain = place_grid(seen, FLOOR)
    assert np.array_equal(place_grid(seen, FLOOR, hidden_m=np.zeros((0, 3))), plain)
    assert np.array_equal(place_grid(seen, FLOOR, hidden_m=np.array([[0.1, 0.05, 0.75]])), plain)
    aside = place_grid(seen, FLOOR, hidden_m=np.array([[0.3, 0.05, 0.75]]))
    assert aside[0, 3] == pytest.approx(0.15, abs=2e-3)
    assert aside[0, 0] == pytest.approx(SIDE_FACTOR * 0.3, abs=4e-3)
    # Far away it counts only so far, and not into the support.
    far = place_grid(seen, FLOOR, hidden_m=np.array([[9.0, 0.05, -9.0]]))
    assert far[0, 0] == pytest.approx(SIDE_FACTOR * 0.2 * (1.0 + MAX_HIDDEN), rel=0.01)
    assert far[2, 3] == pytest.approx(plain[2, 3], abs=2e-3)


def test_hidden_points_lie_at_the_depth_of_the_object_behind_its_masks() -> None:
    lens = Intrinsics(200, 100, 100.0, 100.0, 100.0, 50.0)
    T = transforms.look_at(np.array([0.0, -2.0, 0.0]), np.zeros(3))
    view = View(np.zeros((100, 200, 3), np.uint8), lens, T)
    mask = np.zeros((100, 200), bool)
    mask[40:61, 110:131] = True
    points = np.array([[0.0, 0.0, 0.0], [0.01, 0.0, 0.02], [np.nan] * 3], dtype=np.float32)
    corners = hidden_points([view, view], [mask, ~mask & mask], points)
    assert corners.shape == (4, 3)
    np.testing.assert_allclose(corners[:, 1], 0.0, atol=1e-6)
    # Pixels 111 to 129 and 41 to 59, at two metres.
    np.testing.assert_allclose([corners[:, 0].min(), corners[:, 0].max()], [0.22, 0.58], atol=1e-6)
    np.testing.assert_allclose([corners[:, 2].min(), corners[:, 2].max()], [-0.18, 0.18], atol=1e-6)
    behind = points - np.float32([0.0, 5.0, 0.0])
    assert not len(hidden_points([view], [mask], behind))


@pytest.mark.parametrize("function", [tight_grid, place_grid])
def test_refusals(function: object) -> None:
    assert callable(function)
    for points in (np.zeros((0, 3)), np.full((5, 3), np.nan)):
        with pytest.raises(InputError, match="without points"):
            function(points)
    with pytest.raises(InputError, match="coincide"):
        function(np.ones((20, 3)))
    with pytest.raises(InputError, match="shape"):
        function(np.ones((20, 2)))
