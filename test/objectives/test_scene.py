"""SceneGen's objective: parts with known values, differences of paper and published code, the running weight."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.objectives import (
    PAPER_SCENE,
    PUBLISHED_SCENE,
    RunningWeight,
    SceneTargets,
    decayed_weight,
    scene_losses,
    velocity_target,
)
from gena3d_core.objectives.scene import huber, position_losses, scene_extents


def targets(scenes: int = 2, assets: int = 3, seed: int = 0, query: int = 0) -> SceneTargets:
    generator = torch.Generator().manual_seed(seed)
    rows = scenes * assets
    poses = torch.randn(rows, 8, generator=generator)
    poses[:, 3:7] = torch.nn.functional.normalize(poses[:, 3:7], dim=1)
    poses[:, :3] *= 0.3
    poses[:, 7] = 0.5 + torch.rand(rows, generator=generator)
    is_query = torch.arange(rows) % assets == query
    poses[is_query] = torch.tensor([0.0, 0, 0, 1, 0, 0, 0, 1])
    x0, noise = torch.randn(2, rows, 2, 4, 4, 4, generator=generator)
    return SceneTargets(x0, noise, torch.rand(rows, generator=generator) * 0.9, poses, is_query, assets)


def decode(latent: Tensor) -> Tensor:
    flat = latent.mean(dim=1, keepdim=True)
    return torch.nn.functional.interpolate(flat, scale_factor=4, mode="trilinear") + 0.5


@pytest.mark.parametrize("objective", [PAPER_SCENE, PUBLISHED_SCENE])
def test_the_truth_costs_nothing_but_its_collisions(objective):
    given = targets()
    velocity = velocity_target(given.x0, given.noise)
    losses = scene_losses(velocity, given.poses, given, decode, objective)
    assert float(losses.flow) == 0.0
    assert float(losses.position) == 0.0
    assert float(losses.collision) > 0.0  # places close to one another
    torch.testing.assert_close(losses.total(0.5), 0.5 * losses.collision)


@settings(deadline=None, max_examples=30)
@given(st.floats(-2, 2), st.floats(0.01, 1.0))
def test_huber(d: float, delta: float):
    expected = d * d / (2 * delta) if abs(d) < delta else abs(d) - delta / 2
    assert float(huber(torch.tensor(d), torch.tensor(0.0), delta)) == pytest.approx(expected, abs=1e-6)


def test_translation_is_measured_by_the_extent_of_the_scene():
    """Moving all places and the error by the same factor changes nothing once the sizes count for little."""
    small, large = (targets(1) for _ in range(2))
    small.poses[:, 7] = large.poses[:, 7] = 1e-3
    large.poses[:, :3] *= 7.0
    off = torch.randn(3, 8, generator=torch.Generator().manual_seed(3))
    off[:, 3:] = 0.0
    ours = position_losses(small.poses + off, small)[0]
    theirs = position_losses(large.poses + off * torch.tensor([7.0] * 3 + [1.0] * 5), large)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0)


def test_extents_of_a_known_scene():
    poses = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0, 1.0], [2.0, 0, 0, 1, 0, 0, 0, 0.5]])
    torch.testing.assert_close(scene_extents(poses, 2), torch.tensor([[2.75, 1.0, 1.0]]))
    given = SceneTargets(*torch.zeros(2, 2, 1, 4, 4, 4), torch.zeros(2), poses, torch.tensor([True, False]), 2)
    moved = poses.clone()
    moved[1, 1] += 0.275
    longest = float(position_losses(moved, given, PAPER_SCENE)[0])
    by_axis = float(position_losses(moved, given, PUBLISHED_SCENE)[0])
    assert longest == pytest.approx((0.1 - 0.01) / 3, abs=1e-6)  # a tenth of 2.75
    assert by_axis == pytest.approx((0.275 - 0.01) / 3, abs=1e-6)


def test_a_quaternion_may_have_either_sign():
    given = targets()
    flipped = given.poses * torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1])
    assert float(position_losses(flipped, given, PAPER_SCENE)[1]) == 0.0
    assert float(position_losses(flipped, given, PUBLISHED_SCENE)[1]) > 0.1


def test_the_query_has_no_position_to_learn():
    given = targets(query=1)
    wrong = given.poses.clone()
    wrong[given.query] += 1.0
    for part in position_losses(wrong, given):
        assert float(part) == 0.0
    # Nor do collisions move it.
    poses = wrong.requires_grad_()
    scene_losses(given.x0, poses, given, decode).collision.backward()
    assert poses.grad is not None
    assert not poses.grad[given.query].any()
    assert poses.grad[~given.query].any()


def test_the_paper_sums_and_the_code_averages_over_assets():
    given = targets(scenes=2, assets=4)
    off = given.poses + 0.1
    summed = position_losses(off, given, replace(PUBLISHED_SCENE, assets="sum"))
    for one, other in zip(position_losses(off, given, PUBLISHED_SCENE), summed, strict=True):
        torch.testing.assert_close(3 * one, other)


def test_only_the_paper_learns_from_collisions():
    given = targets()
    for objective, learns in ((PAPER_SCENE, True), (PUBLISHED_SCENE, False)):
        velocity, poses = given.x0.clone().requires_grad_(), given.poses.clone().requires_grad_()
        collision = scene_losses(velocity, poses, given, decode, objective).collision
        assert collision.requires_grad == learns
        if learns:
            collision.backward()
            assert velocity.grad is not None
            assert velocity.grad.abs().sum() > 0


def test_shapes_learn_from_collisions_only_if_the_decoder_lets_them():
    given = targets()
    velocity, poses = given.x0.clone().requires_grad_(), given.poses.clone().requires_grad_()
    scene_losses(velocity, poses, given, torch.no_grad()(decode)).collision.backward()
    assert velocity.grad is None
    assert poses.grad is not None
    assert poses.grad.abs().sum() > 0


@pytest.mark.parametrize("objective", [PAPER_SCENE, PUBLISHED_SCENE])
def test_the_order_of_scenes_does_not_matter(objective):
    given = targets(scenes=2, assets=3)
    order = torch.tensor([3, 4, 5, 0, 1, 2])
    swapped = SceneTargets(
        given.x0[order], given.noise[order], given.t[order], given.poses[order], given.query[order], 3
    )
    velocity, poses = torch.roll(given.x0, 1, 0), given.poses + 0.05
    one = scene_losses(velocity, poses, given, decode, objective)
    other = scene_losses(velocity[order], poses[order], swapped, decode, objective)
    torch.testing.assert_close(one.total(0.7), other.total(0.7))


def test_weight_of_the_paper():
    assert decayed_weight(0) == 1.0
    assert decayed_weight(1) == pytest.approx(0.99)
    assert decayed_weight(160) > 0.2
    assert decayed_weight(161) == 0.2
    assert decayed_weight(10**6) == 0.2


def test_running_weight_of_the_published_code():
    given, weight = targets(), RunningWeight()
    truth = velocity_target(given.x0, given.noise)
    off = given.poses + 0.5

    def step(error: float) -> float:
        losses = scene_losses(truth + error, off, given, objective=replace(PUBLISHED_SCENE, collision="none"))
        return weight(losses)

    layout = float(scene_losses(truth, off, given, objective=replace(PUBLISHED_SCENE, collision="none")).layout)
    first = step((0.5 * layout) ** 0.5)
    assert first == pytest.approx(0.5, rel=1e-4)  # flow / layout
    assert step(layout**0.5) == pytest.approx(0.99 * 0.5 + 0.01, rel=1e-4)
    # The state is not clamped, what is used is.
    assert step((1e4 * layout) ** 0.5) == 1.0
    assert weight.ratio == pytest.approx(100.5, rel=1e-2)
    assert RunningWeight(ratio=0.0)(scene_losses(truth, off, given, decode)) == 0.2


def test_what_is_no_scene_is_refused():
    given = targets()
    with pytest.raises(InputError, match="two assets"):
        replace(given, assets=4)
    with pytest.raises(InputError, match="two assets"):
        replace(given, assets=1)
    with pytest.raises(InputError, match="query"):
        replace(given, query=torch.zeros(6, dtype=torch.bool))
    with pytest.raises(InputError, match="decoder"):
        scene_losses(given.x0, given.poses, given)
    with pytest.raises(InputError, match="poses"):
        position_losses(given.poses[:3], given)
