"""Fusion of ideal and noisy depth of analytic solids: distances, edges, thin walls, strays, limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.meshing import patches as patch_ops
from gena3d_core.meshing import tsdf
from gena3d_core.meshing.surface import surface_from_distance
from gena3d_core.types import SupportPlane, View


def fuse(observation, voxel_m=0.0025, support=None):
    patches = tsdf.make_patches(observation.views, observation.visible_masks, observation.points_m)
    return tsdf.fuse(patches, observation.points_m, voxel_m, support)


def grid_positions(volume):
    index = np.argwhere(np.isfinite(volume.distance_m))
    return index, tsdf.grid_points_m(index, volume.voxel_size_m, volume.T_world_grid)


@pytest.mark.parametrize("depth_noise", [0.0, 0.003])
def test_distances_of_a_sphere(solids, depth_noise):
    sphere = solids.Sphere((0, 0, 0.05), 0.05)
    observation = solids.observe([sphere], solids.ring(4), depth_noise=depth_noise)
    volume = fuse(observation)
    mesh = surface_from_distance(volume.distance_m, volume.voxel_size_m, volume.T_world_grid)
    distance = sphere.distance(mesh.vertices)
    assert abs(distance.mean()) < 0.0003
    assert np.abs(distance).mean() < 0.0004
    assert np.abs(distance).max() < 0.002


def test_field_signs_agree_with_the_solid(solids):
    box = solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))
    volume = fuse(solids.observe([box], solids.ring(4)))
    index, points = grid_positions(volume)
    truth, field = box.distance(points), volume.distance_m[tuple(index.T)]
    sure = np.abs(truth) > 1.5 * volume.voxel_size_m
    assert (np.sign(field[sure]) == np.sign(truth[sure])).mean() > 0.98
    assert (volume.weight[tuple(index.T)] >= 0).all()


def test_steep_walls_are_kept(solids):
    box = solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))
    observation = solids.observe([box], solids.ring(1))
    volume = fuse(observation)
    mesh = surface_from_distance(volume.distance_m, volume.voxel_size_m, volume.T_world_grid)
    # The camera sees the wall y = +0.04 at 75 degrees of incidence.
    on_wall = np.abs(mesh.vertices[:, 1] - 0.04) < 0.001
    assert np.ptp(mesh.vertices[on_wall, 0]) > 0.10
    assert np.ptp(mesh.vertices[on_wall, 2]) > 0.04


def test_no_skirts_at_depth_edges(solids):
    solids_in_view = [solids.Box((0, 0, 0.05), (0.02, 0.02, 0.05)), solids.Box((-0.15, 0, 0.08), (0.01, 0.2, 0.08))]
    observation = solids.observe(solids_in_view, solids.ring(1, start_deg=0), target=(0, 0, 0.05))
    volume = fuse(observation)
    mesh = surface_from_distance(volume.distance_m, volume.voxel_size_m, volume.T_world_grid)
    assert np.abs(solids_in_view[0].distance(mesh.vertices)).max() < 1.5 * volume.voxel_size_m


def test_thin_wall_seen_from_both_sides_survives(solids):
    wall = solids.Box((0, 0, 0.04), (0.002, 0.05, 0.04))
    observation = solids.observe([wall], solids.ring(2, start_deg=0), depth_noise=0.004)
    volume = fuse(observation)
    mesh = surface_from_distance(volume.distance_m, volume.voxel_size_m, volume.T_world_grid)
    truth = [p for p in wall_samples(wall) if p[2] > 0.005]
    gap = np.linalg.norm(mesh.vertices[None] - np.array(truth)[:, None], axis=2).min(axis=1)
    assert np.mean(gap < 0.004) > 0.97


def wall_samples(wall):
    grid = np.linspace(-0.95, 0.95, 12)
    y, z = np.meshgrid(grid, grid)
    return [
        (side * wall.half[0], wall.half[1] * a, wall.center[2] + wall.half[2] * b)
        for side in (-1, 1)
        for a, b in zip(y.ravel(), z.ravel(), strict=True)
    ]


def test_grid_stands_on_a_tilted_support(solids):
    normal = np.array([0.05, -0.1, 1.0])
    normal /= np.linalg.norm(normal)
    support = SupportPlane(normal, -0.01)
    volume = fuse(solids.observe([solids.Sphere((0, 0, 0.06), 0.04)], solids.ring(2)), support=support)
    layer = transforms.apply(volume.T_world_grid, np.array([[3.0, 4.0, tsdf.LAYERS_BELOW]]) * volume.voxel_size_m)
    assert support.height_m(layer)[0] == pytest.approx(0.5 * volume.voxel_size_m, abs=1e-9)
    assert np.isnan(volume.distance_m[:, :, : tsdf.LAYERS_BELOW]).all()


def test_mixed_pixels_are_dropped_and_slopes_kept():
    depth = np.full((9, 20), 1.0, dtype=np.float32)
    depth[:, 10] = 1.05
    depth[:, 11:] = 1.1
    mixed = patch_ops.mixed_pixels(depth, np.full_like(depth, 0.01))
    assert mixed[:, 10].all()
    assert mixed.sum() == 9
    slope = np.tile(np.linspace(1.0, 1.4, 20, dtype=np.float32), (9, 1))
    assert not patch_ops.mixed_pixels(slope, np.full_like(slope, 0.01))[:, 2:-2].any()


def test_patch_lookup_interpolates_on_one_surface(solids):
    observation = solids.observe([solids.Box((0, 0, 0.03), (0.06, 0.04, 0.03))], solids.ring(1))
    view, mask = observation.views[0], observation.visible_masks[0]
    patch = patch_ops.crop_patch(view, mask, observation.points_m)
    samples = patch_ops.sample_patch(patch, observation.points_m)
    assert samples.on_object.mean() > 0.95
    on = samples.on_object & (samples.support > 0.99)
    np.testing.assert_allclose(samples.surface_m[on], samples.depth_m[on], atol=1e-4)


def test_view_without_depth_is_an_error(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(1))
    view = observation.views[0]
    blind = View(view.color, view.intrinsics, view.T_world_camera, name="blind")
    with pytest.raises(InputError, match="'blind' has no depth"):
        tsdf.make_patches([blind], observation.visible_masks, observation.points_m)


def test_impossible_requests_are_errors(solids):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(1))
    with pytest.raises(InputError, match="at least one"):
        tsdf.fuse([], np.zeros((0, 3), np.float32), 0.002)
    with pytest.raises(InputError, match="positive"):
        fuse(observation, voxel_m=0.0)
    far = np.array([[0, 0, 0], [30, 30, 30]], dtype=np.float32)
    with pytest.raises(InputError, match="stray points"):
        tsdf.fuse([], far, 0.002)


def test_strays_are_found():
    rng = np.random.default_rng(0)
    body = rng.uniform(0, 0.1, (2000, 3))
    other_half = rng.uniform(0, 0.1, (300, 3)) + np.array([0.3, 0, 0])
    stray = np.array([[1.0, 1.0, 1.0], [1e4, 0.0, 0.0]])
    kept = tsdf.without_strays(np.concatenate([body, other_half, stray]), 0.01)
    assert kept[:2300].mean() > 0.99
    assert not kept[-2:].any()


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 200), seed=st.integers(0, 1000), spread=st.floats(1e-4, 10.0))
def test_some_points_are_always_kept(count, seed, spread):
    points = np.random.default_rng(seed).normal(size=(count, 3)) * spread
    assert tsdf.without_strays(points, 0.01).any()


def test_voxel_size_follows_distance_and_size(solids):
    near = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(2, distance=0.4))
    far = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(2, distance=1.2))
    sizes = [tsdf.choose_voxel_size(o.views, o.points_m, o.point_view) for o in (near, far)]
    assert sizes[0] == pytest.approx(0.002)
    assert sizes[1] == pytest.approx(1.2 / 300, rel=0.1)
    large = tsdf.choose_voxel_size(near.views, near.points_m * 20, near.point_view)
    assert large >= np.ptp(near.points_m * 20, axis=0).max() / tsdf.MAX_SIDE_VOXELS - 1e-9


def test_chunks_do_not_change_the_result(solids, monkeypatch):
    observation = solids.observe([solids.Sphere((0, 0, 0.05), 0.05)], solids.ring(2))
    whole = fuse(observation)
    monkeypatch.setattr(tsdf, "CHUNK_POINTS", 1000)
    np.testing.assert_array_equal(fuse(observation).distance_m, whole.distance_m)


def test_mesh_area_matches_what_is_seen(solids):
    sphere = solids.Sphere((0, 0, 0.05), 0.05)
    volume = fuse(solids.observe([sphere], [(0.01, 0.0, 0.8)]))
    mesh = surface_from_distance(volume.distance_m, volume.voxel_size_m, volume.T_world_grid)
    cap = 2 * np.pi * 0.05**2 * (1 - 0.05 / 0.75)  # the part of the sphere a camera 0.75 m from its centre can see
    assert 0.55 * cap < mesh_ops.area(mesh) < 1.02 * cap
