"""π³X: order of the views, what priors change and what they do not, frames and scales, precision, errors."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from gena3d_core.errors import InputError
from gena3d_core.models.geometry.camera_attention import camera_frames
from gena3d_core.models.geometry.pi3x import Pi3XConfig
from gena3d_core.models.geometry.priors import KnownGeometry, normalised_priors
from gena3d_core.models.geometry.upsampling_head import UpsamplingHead

CLOSE = {"atol": 3e-4, "rtol": 3e-4}
NAMES = ("local_points", "confidence_logit", "T_world_camera")


def views(count: int = 3, scenes: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(scenes, count, 3, 28, 42, generator=torch.Generator().manual_seed(seed))


def poses(count: int = 3, scenes: int = 1, seed: int = 0) -> torch.Tensor:
    T = torch.eye(4).repeat(scenes, count, 1, 1)
    R = Rotation.random(scenes * count, random_state=seed).as_matrix()
    T[..., :3, :3] = torch.tensor(R, dtype=torch.float32).view(scenes, count, 3, 3)
    T[..., :3, 3] = torch.randn(scenes, count, 3, generator=torch.Generator().manual_seed(seed))
    return T


def everything(count: int = 3) -> KnownGeometry:
    generator = torch.Generator().manual_seed(5)
    rays = torch.randn(1, count, 28, 42, 2, generator=generator)
    return KnownGeometry(poses(count), rays, 1 + torch.rand(1, count, 28, 42, generator=generator))


@torch.no_grad()
def run(model, images, *arguments):
    if arguments and isinstance(arguments[0], KnownGeometry):
        return model(images, **vars(arguments[0]))
    return model(images, *arguments)


@pytest.mark.parametrize("count", [1, 3])
def test_shapes_for_any_number_of_views(make_pi3x, count):
    found = run(make_pi3x(), views(count, scenes=2))
    assert found.local_points.shape == found.points.shape == (2, count, 28, 42, 3)
    assert found.confidence.shape == (2, count, 28, 42)
    assert found.T_world_camera.shape == (2, count, 4, 4)
    assert found.metres_per_unit.shape == (2,)
    assert (found.local_points[..., 2] > 0).all()


def test_another_order_of_views_gives_the_same_in_that_order(make_pi3x):
    model, images, order = make_pi3x(), views(4), [0, 3, 1, 2]
    found, other = run(model, images), run(model, images[:, order])
    for name in NAMES:
        torch.testing.assert_close(getattr(other, name), getattr(found, name)[:, order], **CLOSE)
    torch.testing.assert_close(other.metres_per_unit, found.metres_per_unit, **CLOSE)


@pytest.mark.parametrize("kind", ["T_world_camera", "rays", "depth_m"])
def test_every_prior_is_heard(make_pi3x, kind):
    known = everything()
    alone = KnownGeometry(**{kind: getattr(known, kind)})
    found, told = run(make_pi3x(), views()), run(make_pi3x(), views(), alone)
    assert (found.local_points - told.local_points).abs().max() > 1e-4


def test_nothing_known_is_no_prior(make_pi3x):
    nothing = KnownGeometry(torch.full((1, 3, 4, 4), torch.nan), None, torch.full((1, 3, 28, 42), torch.nan))
    found, told = run(make_pi3x(), views()), run(make_pi3x(), views(), nothing)
    torch.testing.assert_close(told.local_points, found.local_points)
    one = poses()
    one[:, 1:] = torch.nan
    alone = run(make_pi3x(), views(), KnownGeometry(one))
    torch.testing.assert_close(alone.local_points, found.local_points)


def test_the_world_of_known_poses_and_their_unit_do_not_matter(make_pi3x):
    known = poses(3, seed=1)
    moved = poses(1, seed=2)[:, :1] @ known
    scaled = known.clone()
    scaled[..., :3, 3] *= 7.0
    found = run(make_pi3x(), views(), KnownGeometry(known))
    for other in (moved, scaled):
        told = run(make_pi3x(), views(), KnownGeometry(other))
        for name in NAMES:
            torch.testing.assert_close(getattr(told, name), getattr(found, name), **CLOSE)


def test_depth_gives_the_unit_of_the_poses():
    known, images = everything(), views()
    found = normalised_priors(known, images)
    assert math.isclose(float(found.depth.mean()), 1.0, rel_tol=1e-5)
    mean_m = float(known.depth_m.mean())
    apart = torch.linalg.inv(known.T_world_camera[0, 0]) @ known.T_world_camera[0, 2]
    torch.testing.assert_close(found.T_world_camera[0, 2, :3, 3], apart[:3, 3] / mean_m)
    torch.testing.assert_close(found.T_world_camera[0, 0], torch.eye(4), atol=1e-6, rtol=0)


def test_cameras_that_stand_still_keep_their_unit():
    T = poses()
    T[..., :3, 3] *= 1e-4
    found = normalised_priors(KnownGeometry(T), views())
    assert found.T_world_camera[..., :3, 3].abs().max() < 1e-3
    assert found.posed.all()
    assert not found.calibrated.any()
    assert not found.measured.any()


def test_views_without_a_pose_are_left_alone_by_the_others_poses(make_pi3x):
    T = poses()
    T[:, 1] = torch.nan
    found = normalised_priors(KnownGeometry(T), views())
    assert found.posed.tolist() == [[True, False, True]]
    assert torch.isfinite(run(make_pi3x(), views(), KnownGeometry(T)).local_points).all()


def test_half_precision_stays_near(make_pi3x):
    images, known = views(), everything()
    exact, model = run(make_pi3x(), images, known), make_pi3x()
    model.set_precision(torch.bfloat16)
    found = run(model, images, known)
    assert model.pose_blocks[0].operations["attn"].to_qkv.weight.dtype == torch.bfloat16
    assert model.point_head.outputs[0][0].weight.dtype == torch.float32
    for name in NAMES:
        ours, wanted = getattr(found, name), getattr(exact, name)
        assert ours.dtype == torch.float32
        assert (ours - wanted).norm() / wanted.norm() < 0.1


def test_views_pass_the_head_in_parts_as_they_would_together(monkeypatch):
    torch.manual_seed(0)
    head, tokens = UpsamplingHead(16, (2, 1), 14, (8, 8, 8), 4), torch.randn(2, 3, 6, 16)
    together = run(head, tokens, 2, 3)
    assert [tuple(found.shape) for found in together] == [(2, 3, 28, 42, 2), (2, 3, 28, 42, 1)]
    monkeypatch.setattr("gena3d_core.models.geometry.upsampling_head.VIEWS_PER_PASS", 1)
    for ours, wanted in zip(run(head, tokens, 2, 3), together, strict=True):
        torch.testing.assert_close(ours, wanted, atol=1e-5, rtol=1e-5)


def test_carrying_there_and_back_changes_nothing():
    torch.manual_seed(0)
    frames, x = camera_frames(poses(), torch.ones(1, 3, dtype=torch.bool), 2, 3, 16), torch.randn(1, 18, 2, 16)
    there = frames.carried(x, frames.T_camera_world, frames.forward)
    assert (there - x).abs().max() > 0.1
    torch.testing.assert_close(frames.carried(there, frames.T_world_camera, frames.back), x, atol=1e-5, rtol=1e-5)


def test_what_does_not_fit_is_refused(make_pi3x):
    with pytest.raises(InputError, match="pose_layers"):
        Pi3XConfig(depth=4)
    with pytest.raises(InputError, match="depth_m"):
        run(make_pi3x(), views(), KnownGeometry(depth_m=torch.ones(1, 3, 14, 14)))
    with pytest.raises(InputError, match="multiple of 8"):
        camera_frames(poses(), torch.ones(1, 3, dtype=torch.bool), 2, 3, 12)
