"""Observation consistency on voxels and on the mesh that comes of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import expit

from gena3d_core.generative.consistency import (
    FILLED,
    LIMIT,
    Evidence,
    disagreement,
    gather_evidence,
    grid_centers_m,
    make_consistent,
)
from gena3d_core.generative.object_shape import FILLED_FROM, shape_mesh, shape_of_samples
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms, voxels
from gena3d_core.geometry.partial_cloud import place_grid, prepare_cloud
from gena3d_core.geometry.solid_voxelization import solid_occupancy
from gena3d_core.meshing.occupancy_surface import surface_from_logits
from gena3d_core.stereo.carving import carve_free_space
from gena3d_core.types import VoxelGrid

R = 64


@pytest.fixture(scope="module")
def seen(solids):
    """A box on a table from three sides, without noise: observation, grid and signed distance of its voxel centres."""
    box = solids.Box((0.02, -0.01, 0.04), (0.05, 0.03, 0.04))
    observation = solids.observe([box], solids.ring(3))
    S_world_grid = place_grid(observation.points_m, observation.support)
    side_m = S_world_grid[0, 0]
    corner = S_world_grid[:3, 3] - side_m / 2
    carved = carve_free_space(observation.views, corner, corner + side_m, side_m / R)
    observation = replace(observation, free_space=carved)
    return observation, S_world_grid, box.distance(grid_centers_m(S_world_grid, R).reshape(-1, 3)).reshape((R,) * 3)


def evidence_of(seen) -> Evidence:
    observation, S_world_grid, _ = seen
    return gather_evidence(observation, S_world_grid, prepare_cloud(observation.points_m, S_world_grid))


def wrong_samples(distance_m, voxel_m):
    """What a poor generator may give: grown, shrunk, beside the object, riddled with holes, nothing near it."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=distance_m.shape), 2.0)
    return {
        "grown": (4 * voxel_m - distance_m) / voxel_m,
        "shrunk": (-6 * voxel_m - distance_m) / voxel_m,
        "beside": np.roll(-distance_m, 8, axis=1) / voxel_m,
        "holes": -distance_m / voxel_m + 60 * noise,
        "elsewhere": np.where(np.arange(R)[:, None, None] < 4, 9.0, -9.0) * np.ones((R,) * 3),
        "all": np.full((R,) * 3, 30.0),
    }


def test_the_truth_agrees_with_the_evidence(seen):
    observation, _, distance_m = seen
    evidence = evidence_of(seen)
    assert 0.2 < evidence.free.mean() < 0.9
    assert 200 < evidence.surface.sum() < 6000
    assert not (evidence.free & evidence.surface).any()
    assert not (evidence.free & (distance_m < 0)).any()
    figures = disagreement(distance_m < 0, evidence)
    assert figures.free_space_violation == 0.0
    assert figures.observed_coverage == 1.0
    truth = -distance_m / observation.free_space.voxel_size_m
    changed = (make_consistent(truth, evidence) > 0) != (truth > 0)
    # Depth between pixels moves the measured surface by parts of a voxel.
    assert np.quantile(np.abs(truth[changed]), 0.95) < 1.0
    assert changed.sum() < 0.05 * (truth > 0).sum()


@pytest.mark.parametrize("name", ["grown", "shrunk", "beside", "holes", "elsewhere", "all"])
def test_wrong_samples_are_made_consistent(seen, name):
    observation, S_world_grid, distance_m = seen
    evidence = evidence_of(seen)
    logits = wrong_samples(distance_m, observation.free_space.voxel_size_m)[name]
    before = disagreement(expit(logits) > FILLED_FROM, evidence)
    assert before.free_space_violation > 0 or before.observed_coverage < 0.99
    shape = shape_of_samples(logits[None], evidence)
    assert shape.residuals["free_space_violation_before"] == before.free_space_violation
    assert shape.residuals["observed_coverage_before"] == before.observed_coverage
    assert shape.residuals["free_space_violation_after"] == 0.0
    assert shape.residuals["observed_coverage_after"] >= 0.99
    # The same holds for the mesh, as others measure it: voxels at least half inside it, points near its surface.
    mesh = shape_mesh(shape, observation.support, S_world_grid)
    assert mesh_ops.is_watertight(mesh)
    inside = solid_occupancy(mesh, np.eye(4), R) >= 0.5
    assert not (inside & evidence.free).any()
    surface, _ = mesh_ops.sample_surface(mesh, 60_000, np.random.default_rng(0))
    points = transforms.apply(transforms.inverse(S_world_grid), observation.points_m.astype(np.float64))
    away, _ = cKDTree(surface).query(points)
    assert (away < (evidence.margin + 1.0) / R).mean() >= 0.99


def test_where_it_was_measured_the_surface_is_the_measured_one(seen):
    """Samples whose surface is rough by voxels give a smooth one between the voxels' centres."""
    observation, S_world_grid, distance_m = seen
    voxel_m = observation.free_space.voxel_size_m
    rng = np.random.default_rng(0)
    rough = np.where(-distance_m / voxel_m + 2 * rng.normal(size=(R,) * 3) > 0, 9.0, -9.0)
    evidence = evidence_of(seen)
    # The box's walls away from its edges, as far as they were seen.
    inner = evidence.surface & (np.abs(distance_m) < voxel_m)
    seen_points = grid_centers_m(S_world_grid, R)[inner]
    away = []
    for known in (evidence, replace(evidence, measured=None)):
        mesh = shape_mesh(shape_of_samples(rough[None], known), observation.support, S_world_grid)
        vertices = mesh_ops.transformed(mesh, S_world_grid).vertices.astype(np.float64)
        nearest = vertices[cKDTree(vertices).query(seen_points)[1]]
        grid = transforms.apply(transforms.inverse(S_world_grid), nearest)
        error = ndimage.map_coordinates(distance_m, ((grid + 0.5) * R - 0.5).T, order=1) / voxel_m
        away.append(float(np.median(np.abs(error))))
    assert away[0] < 0.1
    assert away[0] < 0.5 * away[1]


def test_a_voxel_both_free_and_measured_is_kept(seen):
    observation, S_world_grid, _ = seen
    cloud = prepare_cloud(observation.points_m, S_world_grid)
    everything = replace(observation.free_space, state=np.full((R,) * 3, VoxelGrid.FREE, dtype=np.uint8))
    evidence = gather_evidence(replace(observation, free_space=everything), S_world_grid, cloud)
    made = make_consistent(np.full((R,) * 3, -9.0), evidence) > 0
    assert made.sum() > 0.3 * cloud.sum()
    assert not (made & ~cloud).any()
    assert disagreement(made, evidence).observed_coverage >= 0.99


@pytest.mark.parametrize("resolution", [32, 48, 96])
def test_carving_at_another_resolution_never_claims_more(seen, resolution):
    observation, S_world_grid, distance_m = seen
    side_m = 1.1 * S_world_grid[0, 0]
    corner = S_world_grid[:3, 3] - side_m / 2
    carved = carve_free_space(observation.views, corner, corner + side_m, side_m / resolution)
    cloud = prepare_cloud(observation.points_m, S_world_grid)
    other = gather_evidence(replace(observation, free_space=carved), S_world_grid, cloud)
    exact = evidence_of(seen).free
    assert not (other.free & (distance_m < 0)).any()
    assert (other.free & exact).sum() > 0.8 * exact.sum()


def test_without_carving_nothing_is_said_about_free_space(seen):
    observation, S_world_grid, distance_m = seen
    bare = replace(observation, free_space=None, support=None)
    evidence = gather_evidence(bare, S_world_grid, prepare_cloud(bare.points_m, S_world_grid))
    assert not evidence.empty.any()
    assert set(shape_of_samples(-distance_m[None], evidence).residuals) == {
        "observed_coverage_before",
        "observed_coverage_after",
    }


def test_nothing_stays_under_the_support(seen):
    observation, S_world_grid, distance_m = seen
    evidence = evidence_of(seen)
    sunk = np.roll(-distance_m / observation.free_space.voxel_size_m, -5, axis=2)
    mesh = shape_mesh(shape_of_samples(sunk[None], evidence), observation.support, S_world_grid)
    lowest_m = mesh_ops.transformed(mesh, S_world_grid).vertices[:, 2].min()
    assert lowest_m == pytest.approx(0.0, abs=1e-4)


def blob(center, radius):
    return np.linalg.norm(voxels.voxel_centers(np.zeros(3), 1.0, (24,) * 3) - np.array(center), axis=-1) < radius


def test_fragments_go_but_measured_ones_stay():
    large, loose, measured = blob((8, 8, 8), 6), blob((20, 20, 20), 1), blob((20, 4, 12), 1)
    nothing = np.zeros_like(large)
    logits = np.where(large | loose | measured, 5.0, -5.0)
    kept = make_consistent(logits, Evidence(nothing, nothing, measured, 1.0)) > 0
    np.testing.assert_array_equal(kept, large | measured)
    # A single stray voxel beside many that were observed is no reason to keep a fragment.
    stray = blob((8, 8, 8), 5) | (loose & (np.cumsum(loose).reshape(loose.shape) == 1))
    np.testing.assert_array_equal(make_consistent(logits, Evidence(nothing, nothing, stray, 1.0)) > 0, large)


@pytest.mark.parametrize("known_before", [True, False])
def test_narrow_free_space_stays_open_in_the_mesh(known_before):
    """A tunnel one voxel wide through a block, which the sample has or has not."""
    block = np.zeros((24,) * 3, dtype=bool)
    block[6:18, 6:18, 6:18] = True
    tunnel = np.zeros_like(block)
    tunnel[10:, 12, 12] = True
    nothing = np.zeros_like(block)
    logits = np.where(block & ~(tunnel & known_before), 9.0, -9.0)
    made = make_consistent(logits, Evidence(tunnel, nothing, nothing, 1.0))
    inside = solid_occupancy(surface_from_logits(made), np.eye(4), 24)
    assert inside[tunnel].max() < 0.5
    assert inside[block & ~tunnel].min() > 0.2


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.0, 0.6), margin=st.floats(1.0, 3.0))
def test_any_evidence_is_obeyed(seed, share, margin):
    rng = np.random.default_rng(seed)
    shape = (12,) * 3
    surface = rng.random(shape) < 0.05
    free = (rng.random(shape) < share) & ~surface
    beneath = np.zeros(shape, dtype=bool)
    beneath[:, :, : rng.integers(0, 4)] = True
    evidence = Evidence(free, beneath & ~surface, surface, margin)
    made = make_consistent(rng.normal(size=shape) * 8, evidence)
    assert np.abs(made).max() <= LIMIT
    assert not (made > 0)[evidence.empty].any()
    figures = disagreement(made > 0, evidence)
    assert figures.free_space_violation == 0.0
    if surface.sum() >= 20:
        assert figures.observed_coverage >= 0.99
    # Nothing new appears but beside measured voxels.
    again = make_consistent(made, evidence)
    assert disagreement(again > 0, evidence).free_space_violation == 0.0
    assert FILLED <= LIMIT
