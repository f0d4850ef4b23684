"""The steps of the plane sweep one by one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.geometry.transforms import look_at
from gena3d_core.stereo.plane_sweep.aggregation import EDGE_CONTRAST, semi_global, winner
from gena3d_core.stereo.plane_sweep.config import PlaneSweepConfig
from gena3d_core.stereo.plane_sweep.consistency import agreement
from gena3d_core.stereo.plane_sweep.cost import COSTS, NEUTRAL, box_mean, cost_volume, fuse_sources
from gena3d_core.stereo.plane_sweep.edges import snap_to_color
from gena3d_core.stereo.plane_sweep.filtering import to_size, without_specks
from gena3d_core.stereo.plane_sweep.frames import make_frame
from gena3d_core.stereo.plane_sweep.hypotheses import descent, fronto_parallel, horizontal, resample
from gena3d_core.stereo.plane_sweep.sources import disparity_range_px, plan_sweep
from gena3d_core.types import Intrinsics

CPU = torch.device("cpu")
CAMERA = Intrinsics(width=96, height=72, fx=90.0, fy=90.0, cx=47.5, cy=35.5)
GROUND = [((0.0, 0.0, 1.0), 0.0)]


def semi_global_slow(volume: np.ndarray, gray: np.ndarray, small: float, large: float) -> np.ndarray:
    """Pixel by pixel, straight from the definition."""
    depth, height, width = volume.shape
    total = np.zeros_like(volume)
    for dy, dx in [(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)]:
        path = np.zeros_like(volume)
        for y in range(height)[:: -1 if dy < 0 else 1]:
            for x in range(width)[:: -1 if dx < 0 else 1]:
                py, px = y - dy, x - dx
                path[:, y, x] = volume[:, y, x]
                if not (0 <= py < height and 0 <= px < width):
                    continue
                before = path[:, py, px]
                jump = large / (1.0 + abs(gray[y, x] - gray[py, px]) / EDGE_CONTRAST)
                for d in range(depth):
                    ways = [before[d], before.min() + jump]
                    ways += [before[e] + small for e in (d - 1, d + 1) if 0 <= e < depth]
                    path[d, y, x] += min(ways) - before.min()
        total += path
    return total / 8.0


@pytest.mark.parametrize("shape", [(5, 6, 9), (4, 9, 6), (1, 4, 4)])
def test_semi_global_matches_its_definition(rng, shape):
    volume = rng.uniform(size=shape).astype(np.float32)
    gray = rng.uniform(size=shape[1:]).astype(np.float32)
    fast = semi_global(torch.from_numpy(volume), torch.from_numpy(gray), 0.1, 0.4)
    np.testing.assert_allclose(fast.numpy(), semi_global_slow(volume, gray, 0.1, 0.4), atol=1e-5)


@settings(deadline=None)
@given(st.floats(1.0, 8.0), st.floats(0.001, 0.1))
def test_winner_finds_the_vertex_of_a_parabola(vertex, curvature):
    steps = torch.arange(10, dtype=torch.float32)
    volume = (curvature * (steps - vertex) ** 2)[:, None, None].expand(10, 4, 5).contiguous()
    fractional, index, _ = winner(volume, volume)
    assert torch.allclose(fractional, torch.full((4, 5), vertex), atol=1e-2)
    assert (index - vertex).abs().max() <= 0.5 + 1e-4


def test_winner_is_distinct_only_when_alone():
    lonely = torch.full((12, 3, 3), 0.5)
    lonely[4] = 0.1
    twins = lonely.clone()
    twins[9] = 0.1
    assert (winner(lonely, lonely)[2] > 0.7).all()
    assert (winner(twins, twins)[2] < 1e-6).all()


@settings(deadline=None)
@given(st.integers(0, 3))
def test_box_mean_is_the_mean_of_windows(radius):
    image = torch.from_numpy(np.random.default_rng(radius).uniform(size=(2, 12, 15)).astype(np.float32))
    mean = box_mean(image, radius)
    window = image[1, 5 - radius : 6 + radius, 7 - radius : 8 + radius]
    assert mean[1, 5, 7] == pytest.approx(float(window.mean()), abs=1e-6)
    assert mean.shape == image.shape


@pytest.mark.parametrize("name", sorted(COSTS))
def test_costs_tell_same_from_other_whatever_the_exposure(rng, name):
    image = torch.from_numpy(rng.uniform(0.2, 0.8, size=(20, 24)).astype(np.float32))
    other = torch.from_numpy(rng.uniform(0.2, 0.8, size=(20, 24)).astype(np.float32))
    match = COSTS[name](image, 2)
    same, brighter, unrelated, flat = match(torch.stack([image, image * 0.5 + 0.3, other, torch.full_like(image, 0.5)]))
    assert same.median() < 0.05
    assert brighter.median() < 0.1
    assert max(same.max(), brighter.max()) < 0.3
    assert unrelated.mean() == pytest.approx(NEUTRAL, abs=0.05)
    assert (flat - NEUTRAL).abs().max() < 0.05


def test_fusion_ignores_sources_that_do_not_see_the_surface():
    good, occluded = torch.full((1, 2, 2), 0.1), torch.full((1, 2, 2), 0.9)
    seen = torch.ones((1, 2, 2), dtype=torch.bool)
    outside = ~seen
    fused = fuse_sources([good.clone(), occluded.clone(), good.clone(), occluded.clone()], [seen] * 4)
    assert torch.allclose(fused, good)
    assert torch.allclose(fuse_sources([good.clone(), occluded.clone()], [seen, outside]), good)
    assert torch.allclose(
        fuse_sources([good.clone(), good.clone()], [outside, outside]), torch.full_like(good, NEUTRAL)
    )


@settings(deadline=None)
@given(st.permutations(range(4)))
def test_fusion_does_not_depend_on_the_order_of_sources(order):
    rng = np.random.default_rng(1)
    costs = [torch.from_numpy(rng.uniform(size=(3, 4, 5)).astype(np.float32)) for _ in range(4)]
    seen = [torch.from_numpy(rng.uniform(size=(3, 4, 5)) > 0.3) for _ in range(4)]
    one = fuse_sources([c.clone() for c in costs], seen)
    other = fuse_sources([costs[i].clone() for i in order], [seen[i] for i in order])
    assert torch.allclose(one, other, atol=1e-6)


@pytest.fixture(scope="module")
def ground(analytic_view):
    """Two views of textured ground, as views and as frames."""
    eyes = [np.array([x, -0.8, 0.6]) for x in (-0.06, 0.06)]
    views = [analytic_view(look_at(eye, np.zeros(3)), GROUND, intrinsics=CAMERA) for eye in eyes]
    return views, [make_frame(view, 96, CPU) for view in views]


def test_true_depth_costs_least(ground):
    views, frames = ground
    true = torch.from_numpy(1.0 / views[0].depth_m)[None]
    cost = [cost_volume(frames[0], frames[1:], true * k, "ncc", 2)[0, 8:-8, 16:-16] for k in (1.0, 1.06, 0.94)]
    assert cost[0].median() < 0.05
    assert (cost[0] < cost[1]).float().mean() > 0.9
    assert (cost[0] < cost[2]).float().mean() > 0.9


def test_horizontal_planes_beat_facing_planes_on_the_ground(ground):
    views, frames = ground
    slope = descent(frames[0], frames[0].rays, torch.tensor([0.0, 0.0, 1.0]))
    inverse_depth, inverse_height = horizontal(slope, 0.5, 2.0, 64)
    tilted = cost_volume(frames[0], frames[1:], inverse_depth, "ncc", 2)
    nearest = int((inverse_height - 1.0 / 0.6).abs().argmin())
    truth = torch.from_numpy(1.0 / views[0].depth_m)
    assert (inverse_depth[nearest] - truth).abs().median() < 0.03
    facing_depths = fronto_parallel(0.5, 2.0, 64, CPU)
    resampled = resample(tilted, inverse_height, slope, facing_depths, fill=1.0)
    facing = cost_volume(frames[0], frames[1:], facing_depths, "ncc", 2)
    index = (truth[None] - facing_depths).abs().argmin(dim=0)[None]
    inner = (slice(10, -10), slice(16, -16))
    assert resampled.gather(0, index)[0][inner].mean() < facing.gather(0, index)[0][inner].mean()


def test_half_size_frames_see_the_same_rays(ground):
    views, frames = ground
    half = make_frame(views[0], 48, CPU)
    centers = frames[0].rays.view(3, 36, 2, 48, 2).mean(dim=(2, 4))
    assert torch.allclose(half.rays, centers, atol=1e-5)


def test_exact_depths_confirm_one_another(ground):
    views, frames = ground
    depth = [torch.from_numpy(view.depth_m) for view in views]
    strength, mean_m = agreement(frames[0], depth[0], frames[1:], depth[1:], 2.0, 0.03)
    assert (strength > 0.7).float().mean() > 0.75
    assert torch.allclose(mean_m[strength > 0], depth[0][strength > 0], rtol=0.02)
    wrong, _ = agreement(frames[0], depth[0] * 1.2, frames[1:], depth[1:], 2.0, 0.03)
    assert (wrong > 0).float().mean() < 0.02
    unknown, _ = agreement(frames[0], depth[0], frames[1:], [torch.full_like(depth[1], float("nan"))], 2.0, 0.03)
    assert (unknown == 0).all()


def test_range_and_sources_from_poses_alone(ground):
    views, _ = ground
    plan = plan_sweep(views, 0, PlaneSweepConfig())
    assert plan.sources == (1,)
    assert plan.near_m < np.nanmin(views[0].depth_m)
    assert plan.far_m > np.nanmax(views[0].depth_m)
    assert 2.0 < disparity_range_px(views[0], views[1:], 0.7, 1.5) < 20.0


def test_points_narrow_the_range(ground):
    views, _ = ground
    points = np.random.default_rng(0).uniform((-0.2, -0.2, 0.0), (0.2, 0.2, 0.1), size=(100, 3))
    wide, narrow = plan_sweep(views, 0, PlaneSweepConfig()), plan_sweep(views, 0, PlaneSweepConfig(), points)
    assert wide.near_m <= narrow.near_m < 0.75
    assert 1.2 < narrow.far_m < wide.far_m
    given_range = plan_sweep(views, 0, PlaneSweepConfig(min_depth_m=0.4, max_depth_m=3.0), points)
    assert (given_range.near_m, given_range.far_m) == (0.4, 3.0)


def test_sources_with_a_useful_angle_come_first(analytic_view):
    eyes = [np.array([x, -0.9, 0.5]) for x in (0.0, 0.004, 0.15, 0.9)]
    views = [analytic_view(look_at(eye, np.zeros(3)), GROUND, intrinsics=CAMERA) for eye in eyes]
    assert plan_sweep(views, 0, PlaneSweepConfig(max_sources=1)).sources == (2,)
    assert plan_sweep([views[0], views[0]], 0, PlaneSweepConfig()) is None


def test_specks_go_and_surfaces_stay():
    depth_m = np.full((40, 50), np.nan, dtype=np.float32)
    depth_m[5:25, 5:40] = np.linspace(1.0, 1.2, 35, dtype=np.float32)
    depth_m[10:13, 20:23] = 2.0
    depth_m[30:33, 30:33] = 1.1
    cleaned = without_specks(depth_m, step=0.02, min_pixels=20)
    assert np.isnan(cleaned[10:13, 20:23]).all()
    assert np.isnan(cleaned[30:33, 30:33]).all()
    assert np.isfinite(cleaned[5:10, 5:40]).all()
    assert np.array_equal(cleaned[5:10], depth_m[5:10], equal_nan=True)


def test_enlarging_makes_no_depth_between_surfaces():
    depth_m = np.full((10, 12), 1.0, dtype=np.float32)
    depth_m[:, 6:] = 2.0
    depth_m[0, 0] = np.nan
    large = to_size(depth_m, (20, 24))
    assert large.shape == (20, 24)
    assert set(np.unique(large[np.isfinite(large)])) == {1.0, 2.0}
    assert np.isnan(large[0, 0])
    slope = np.broadcast_to(np.linspace(1.0, 1.05, 12, dtype=np.float32), (10, 12)).copy()
    steps = np.diff(to_size(slope, (20, 24))[10, 2:-2])
    assert (steps > 0).all()


def test_edges_snap_to_color():
    color = torch.full((3, 40, 60), 0.7)
    color[:, 10:30, 20:40] = 0.2
    truth = torch.full((40, 60), 0.5)
    truth[10:30, 20:40] = 1.0
    widened = torch.full((40, 60), 0.5)
    widened[7:33, 17:43] = 1.0
    snapped = snap_to_color(widened, color, step=0.02)
    assert (widened != truth).sum() > 200
    assert torch.allclose(snapped, truth, atol=1e-6)


def test_edges_stay_where_color_tells_nothing():
    depth = torch.full((40, 60), 0.5)
    depth[10:30, 20:40] = 1.0
    slope = torch.linspace(0.5, 0.6, 60).expand(40, 60).contiguous()
    flat = torch.full((3, 40, 60), 0.7)
    assert torch.equal(snap_to_color(slope, flat, step=0.02), slope)
    snapped = snap_to_color(depth, flat, step=0.02)
    assert torch.equal(snapped[13:27, 23:37], depth[13:27, 23:37])
