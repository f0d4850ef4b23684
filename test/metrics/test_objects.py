"""Scores of completed objects whose errors are known."""

import dataclasses

import numpy as np
import pytest

from gena3d_core.geometry.mesh import concatenate, select_faces, transformed
from gena3d_core.geometry.transforms import rigid
from gena3d_core.metrics.objects import TrueObject, score_object
from gena3d_core.metrics.rendering import masked_psnr, masked_ssim, render_color, turntable, turntable_poses
from gena3d_core.metrics.visibility import free_space_violation, seen_points
from gena3d_core.simulation.primitives import sphere
from gena3d_core.types import Mesh, OccupancyEstimate, VoxelGrid

RADIUS = 0.05
CENTER = np.array([0.0, 0.0, RADIUS])


def ball(radius=RADIUS, shift=(0.0, 0.0, 0.0)) -> Mesh:
    return transformed(sphere(radius), rigid(t=CENTER + np.asarray(shift)))


@pytest.fixture(scope="module")
def truth(solids):
    observation = solids.observe([solids.Sphere(tuple(CENTER), RADIUS)], solids.ring(1))
    return TrueObject.measure(ball(), observation)


def test_a_perfect_result(truth):
    scores = score_object(ball(), truth, seconds=1.5)
    assert scores.iou == 1.0
    assert scores.f1 > 0.999
    assert scores.f2 > 0.999
    assert scores.chamfer < 1e-3
    assert scores.normal_consistency > 0.995
    assert scores.free_space_violation < 0.01
    assert scores.observed_coverage == 1.0
    assert scores.seen_error < 1e-3
    assert scores.unseen_recall == 1.0
    assert scores.psnr > 35
    assert scores.ssim > 0.95
    assert scores.seconds == 1.5
    assert not scores.failed
    assert scores.surface_confidence is None
    assert np.isnan(scores.missed)


@pytest.mark.parametrize("radius", [0.0485, 0.0515])
def test_a_ball_of_another_size_is_off_by_the_difference(truth, radius):
    scores = score_object(ball(radius), truth, 0.0)
    share = abs(radius - RADIUS) / (2 * RADIUS)  # 1.5 % of the longest side
    assert scores.chamfer == pytest.approx(2 * share, rel=0.03)
    assert scores.seen_error == pytest.approx(share, rel=0.05)
    assert scores.unseen_error == pytest.approx(share, rel=0.05)
    assert scores.f1 == 0.0
    assert scores.f2 == 1.0
    assert scores.iou == pytest.approx(min(radius, RADIUS) ** 3 / max(radius, RADIUS) ** 3, abs=0.03)
    assert scores.normal_consistency > 0.99


def test_half_a_ball_is_precise_but_incomplete(truth):
    whole = ball()
    eye = truth.observation.views[0].T_world_camera[:3, 3] - CENTER
    towards = eye / np.linalg.norm(eye)
    half = select_faces(whole, ((whole.vertices - CENTER) @ towards)[whole.faces].min(axis=1) > 0)
    scores = score_object(half, truth, 0.0)
    assert scores.precision2 == 1.0
    assert scores.recall2 == pytest.approx(0.52, abs=0.03)
    assert scores.f2 == pytest.approx(2 * scores.recall2 / (1 + scores.recall2))
    assert scores.seen_recall == 1.0
    assert scores.unseen_recall < 0.2
    assert scores.unseen_error > 0.1
    assert scores.iou < 0.1


def test_no_result_counts_as_empty(truth):
    for nothing in (None, concatenate([])):
        scores = score_object(nothing, truth, 0.3)
        assert scores.failed
        assert (scores.iou, scores.f1, scores.f2, scores.recall2) == (0.0, 0.0, 0.0, 0.0)
        assert scores.chamfer == 2.0
        assert scores.unseen_error == 1.0
        assert scores.observed_coverage == 0.0
        assert scores.cloud is None
        assert scores.psnr < 15


def test_which_points_were_seen(truth):
    # A camera at distance d sees the cap whose normals lie within acos(r / d) of it.
    eye = truth.observation.views[0].T_world_camera[:3, 3] - CENTER
    distance = np.linalg.norm(eye)
    cosine = (truth.points - CENTER) @ eye / (RADIUS * distance)
    edge = RADIUS / distance
    assert truth.seen[cosine > edge + 0.3].all()
    # Points on the horizon pass: the line of sight meets the ball just before them.
    assert not truth.seen[cosine < edge - 0.25].any()
    empty = tuple(np.zeros_like(mask) for mask in truth.observation.visible_masks)
    assert not seen_points(truth.mesh, truth.points, truth.observation.views, empty, 0.001).any()


@pytest.mark.parametrize(("shift", "ratio"), [((0.0, 0.0, 0.0), 1.0), ((0.01, -0.02, 0.005), 0.8)])
def test_scores_know_no_unit(truth, shift, ratio):
    result = ball(RADIUS * ratio, shift)
    scale = 7.0
    S = rigid(scale * np.eye(3))
    views = tuple(
        dataclasses.replace(
            view,
            T_world_camera=rigid(view.T_world_camera[:3, :3], scale * view.T_world_camera[:3, 3]),
            depth_m=np.float32(scale) * view.depth_m,
        )
        for view in truth.observation.views
    )
    observation = dataclasses.replace(truth.observation, views=views, points_m=scale * truth.observation.points_m)
    larger = TrueObject.measure(transformed(truth.mesh, S), observation)
    one, other = score_object(result, truth, 0.0), score_object(transformed(result, S), larger, 0.0)
    for name in ("iou", "chamfer", "f2", "seen_error", "unseen_error", "normal_consistency"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), abs=0.01), name
    assert np.ptp(other.cloud, axis=0) == pytest.approx(np.ptp(one.cloud, axis=0), abs=1e-3)


def grid(state):
    return VoxelGrid(np.zeros(3), 0.1, state.astype(np.uint8))


def test_free_space_violation_counts_voxels_inside():
    state = np.zeros((10, 10, 10))
    state[:5] = VoxelGrid.FREE
    middle = np.full(3, 0.5)
    solid = transformed(sphere(0.4), rigid(t=middle))
    assert free_space_violation(solid, grid(state)) == pytest.approx(0.5, abs=0.02)
    assert free_space_violation(solid, grid(np.zeros((10, 10, 10)))) == 0.0
    assert free_space_violation(transformed(sphere(0.1), rigid(t=np.array([5.0, 5, 5]))), grid(state)) == 0.0
    # An open shell encloses nothing, so nothing of it is proven wrong.
    half = select_faces(solid, solid.vertices[solid.faces][..., 2].min(axis=1) > 0.6)
    assert free_space_violation(half, grid(state)) == 0.0


def test_confidence_of_surface_and_voxels(truth):
    shifted = ball(shift=(0.02, 0.0, 0.0))
    near = (shifted.vertices[:, 0] - 0.02) ** 2 < 0.1 * RADIUS**2
    result = dataclasses.replace(shifted, vertex_confidence=np.where(near, 0.9, 0.1).astype(np.float32))
    side = 3 * RADIUS
    centers = (np.stack(np.meshgrid(*[np.arange(32)] * 3, indexing="ij"), axis=-1) + 0.5) / 32 - 0.5
    distance = np.linalg.norm(centers * side, axis=-1)
    sharp = np.where(distance < RADIUS, 0.995, 0.02).astype(np.float32)
    estimate = OccupancyEstimate(sharp, rigid(side * np.eye(3), CENTER))
    scores = score_object(result, truth, 0.0, occupancy=estimate)
    assert scores.surface_confidence.right.sum() + scores.surface_confidence.wrong.sum() == 10_000
    wrong, right = scores.voxel_confidence.wrong.sum(), scores.voxel_confidence.right.sum()
    assert wrong + right == 32**3
    assert wrong / right < 0.01
    assert scores.missed < 0.02
    certain = OccupancyEstimate(np.where(distance < RADIUS / 2, 1.0, 0.0).astype(np.float32), estimate.S_world_grid)
    small = score_object(result, truth, 0.0, occupancy=certain)
    assert small.voxel_confidence.wrong.sum() == 0
    assert small.missed == pytest.approx(7 / 8, abs=0.02)


def test_pictures_of_a_result(truth):
    view = truth.observation.views[0]
    picture, hit = render_color(ball(), view.T_world_camera, view.intrinsics)
    overlap = (hit & truth.observation.visible_masks[0]).sum() / (hit | truth.observation.visible_masks[0]).sum()
    assert overlap > 0.98
    assert (picture[~hit] == 0).all()
    assert (picture[hit] == 128).all()


def test_psnr_and_ssim_look_at_the_mask_only(rng):
    picture = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
    mask = np.zeros((40, 50), dtype=bool)
    mask[10:30, 20:45] = True
    other = picture.copy()
    other[~mask] = 0
    assert masked_psnr(other, picture, mask) == 100.0
    assert masked_ssim(other, picture, mask) == pytest.approx(1.0)
    brighter = np.clip(picture[mask].astype(int) // 2 + 60, 0, 255)
    other[mask] = brighter
    expected = 10 * np.log10(255**2 / ((brighter - picture[mask].astype(float)) ** 2).mean())
    assert masked_psnr(other, picture, mask) == pytest.approx(expected)
    assert masked_ssim(other, picture, mask) < 0.95
    tiny = np.zeros((40, 50), dtype=bool)
    tiny[0, 0] = True
    assert -1.0 <= masked_ssim(other, picture, tiny) <= 1.0


def test_the_turntable_goes_around(truth):
    poses = turntable_poses(CENTER, 2 * RADIUS)
    eyes = np.stack([pose[:3, 3] for pose in poses]) - CENTER
    assert np.linalg.norm(eyes, axis=1) == pytest.approx(np.full(8, 4 * RADIUS))
    assert np.degrees(np.arcsin(eyes[:, 2] / (4 * RADIUS))) == pytest.approx(np.full(8, 15.0))
    azimuth = np.unwrap(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert np.degrees(np.diff(azimuth)) == pytest.approx(np.full(7, 45.0))
    shots = turntable(ball(), CENTER, 2 * RADIUS, 64)
    assert shots.shape == (8, 64, 64, 3)
    assert (shots[:, 32, 32] == 128).all()
    assert (shots[:, 0, 0] == 255).all()
    # The ball's outline: the sine of its half angle is r / d.
    radius_px = 32 / np.tan(np.radians(20)) * np.tan(np.arcsin(0.25))
    assert (shots[0] == 128).all(axis=-1).sum() == pytest.approx(np.pi * radius_px**2, rel=0.03)
