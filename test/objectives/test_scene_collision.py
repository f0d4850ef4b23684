"""Shares of colliding voxels: scenes whose answer is known, gradients by finite differences, and what they lead to."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.geometry import scene_poses, transforms
from gena3d_core.objectives.scene_collision import (
    asset_points,
    counted_share,
    into_unit_cubes,
    placed,
    soft_share,
)

SURE = 50.0


def cubes(count: int, resolution: int = 16, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """(B, R, R, R) logits: every voxel full without doubt."""
    return torch.full((count, *[resolution] * 3), SURE, dtype=dtype)


def poses_at(*rows: tuple[float, float, float], scale: float = 1.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Unturned assets at these places."""
    return torch.tensor([[*row, 1.0, 0.0, 0.0, 0.0, scale] for row in rows], dtype=dtype)


def shares(logits: Tensor, poses: Tensor, assets: int, resolution: int = 64) -> tuple[Tensor, Tensor]:
    """Counted and soft share of each scene."""
    points = asset_points(logits)
    scenes = len(poses) // assets
    inside = into_unit_cubes(placed(points, poses), points.row // assets, scenes)
    everyone = torch.ones(len(poses), dtype=torch.bool)
    return (
        counted_share(inside, points.row, everyone, assets, resolution),
        soft_share(inside, points.row, points.weight, assets, scenes, resolution),
    )


@pytest.mark.parametrize("apart", [0.0, 0.25, 0.5, 0.75])
def test_overlap_of_two_cubes(apart: float):
    counted, soft = shares(cubes(2, 32), poses_at((0, 0, 0), (apart, 0, 0)), 2, resolution=24)
    expected = (1 - apart) / (1 + apart)
    assert float(counted) == pytest.approx(expected, abs=0.06)  # a voxel of 24 more or less
    assert float(soft) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_apart_is_no_collision(scale: float):
    counted, soft = shares(cubes(3), poses_at((0, 0, 0), (1.2 * scale, 0, 0), (0, 1.2 * scale, 0), scale=scale), 3)
    assert float(counted) == 0.0
    assert float(soft) < 1e-6


def test_three_in_one_place_are_all_colliding():
    counted, soft = shares(cubes(3, 32), poses_at((0, 0, 0), (0, 0, 0), (0, 0, 0)), 3, resolution=16)
    assert float(counted) == pytest.approx(1.0)
    assert float(soft) > 0.99


def test_scenes_of_a_batch_do_not_see_one_another():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 8, 8, 8, generator=generator)
    poses = torch.cat([torch.randn(6, 7, generator=generator), torch.rand(6, 1, generator=generator) + 0.5], dim=1)
    together = shares(logits, poses, 3)
    for k, both in enumerate(together):
        alone = torch.cat([shares(logits[i : i + 3], poses[i : i + 3], 3)[k] for i in (0, 3)])
        torch.testing.assert_close(both, alone)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_soft_and_counted_shares_agree_where_assets_fill_voxels(seed: int):
    """Solid boxes that overlap at random: both say how much of the scene is taken twice."""
    generator = torch.Generator().manual_seed(seed)
    poses = poses_at(*((torch.rand(3, 3, generator=generator) - 0.5).tolist()))
    poses[:, 3:7] = torch.randn(3, 4, generator=generator)
    poses[:, 7] = 0.6 + 0.4 * torch.rand(3, generator=generator)
    counted, soft = shares(cubes(3, 32), poses, 3, resolution=32)
    assert abs(float(counted) - float(soft)) < 0.05


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_placed_points_are_those_of_the_similarities(seed: int):
    generator = torch.Generator().manual_seed(seed)
    poses = torch.randn(4, 8, generator=generator, dtype=torch.float64)
    poses[:, 7] = poses[:, 7].abs() + 0.1
    points = asset_points(torch.randn(4, 5, 5, 5, generator=generator))
    axes = torch.from_numpy(scene_poses.S_YUP_ZUP[:3, :3])
    S = scene_poses.similarities_from_poses(poses.numpy()) @ scene_poses.S_YUP_ZUP
    found = placed(points, poses, axes)
    for row in range(4):
        wanted = transforms.apply(S[row], points.points[points.row == row].double().numpy())
        torch.testing.assert_close(found[points.row == row], torch.from_numpy(wanted))


def test_voxels_stand_for_their_centres_or_corners():
    logits = torch.full((1, 4, 4, 4), -1.0)
    logits[0, 1, 2, 3] = 1.0
    torch.testing.assert_close(asset_points(logits).points, torch.tensor([[-0.125, 0.125, 0.375]]))
    torch.testing.assert_close(asset_points(logits[:, None], at_corner=True).points, torch.tensor([[-0.25, 0.0, 0.25]]))
    with pytest.raises(InputError, match="occupancy"):
        asset_points(torch.zeros(1, 2, 4, 4, 4))


def test_the_gradient_of_the_soft_share_is_that_of_its_values():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 4, 4, 4, generator=generator, dtype=torch.float64)
    logits = torch.where(logits.abs() < 0.1, 0.3, logits)  # none changes sides within a finite difference
    poses = poses_at((0, 0, 0), (0.31, -0.17, 0.23), dtype=torch.float64)
    poses[1, 3:7] = torch.tensor([0.9, 0.2, -0.3, 0.1])

    def share(logits: Tensor, poses: Tensor) -> Tensor:
        points = asset_points(logits)
        # A fixed frame: the box around the scene passes no gradient on by design.
        inside = placed(points, poses) / 4.0 + 0.5
        return soft_share(inside, points.row, points.weight, 2, 1, 6)

    assert torch.autograd.gradcheck(share, (logits.requires_grad_(), poses.requires_grad_()), eps=1e-7, atol=1e-5)


def test_following_the_gradient_parts_two_cubes():
    poses = poses_at((0, 0, 0), (0.7, 0.1, 0.0)).requires_grad_()
    logits = cubes(2, 10)
    assert float(shares(logits, poses.detach(), 2, 16)[0]) > 0.1
    optimiser = torch.optim.SGD([poses], lr=0.05)
    for _ in range(40):
        optimiser.zero_grad()
        shares(logits, poses, 2, 16)[1].sum().backward()
        optimiser.step()
    assert float(shares(logits, poses.detach(), 2, 16)[0]) < 0.01


def test_counted_assets_and_empty_scenes():
    poses = poses_at((0, 0, 0), (0, 0, 0), (3, 0, 0))
    points = asset_points(cubes(3))
    inside = into_unit_cubes(placed(points, poses), points.row // 3, 1)
    counted = torch.tensor([False, True, True])
    assert float(counted_share(inside, points.row, counted, 3)) == 0.0
    nothing = -cubes(2)
    for share in shares(nothing, poses[:2], 2):
        assert float(share) == 0.0


def test_poses_must_fit_the_assets():
    with pytest.raises(InputError, match="poses"):
        placed(asset_points(cubes(2)), poses_at((0, 0, 0)))
