"""π³ as a whole: order of the views, frames, precision, errors; its numbers are those of the numerical case."""

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.models.geometry.pi3 import Pi3Config, ViewGeometry
from gena3d_core.models.image_encoders.dinov2 import DinoV2Config

CLOSE = {"atol": 2e-4, "rtol": 2e-4}


def views(count: int = 3, scenes: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand(scenes, count, 3, 28, 42, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("depth", [2, 3])
def test_shapes_for_any_number_of_views(make_pi3, count, depth):
    with torch.no_grad():
        found = make_pi3(depth=depth)(views(count, scenes=2))
    assert found.local_points.shape == found.points.shape == (2, count, 28, 42, 3)
    assert found.confidence_logit.shape == found.confidence.shape == (2, count, 28, 42)
    assert found.T_world_camera.shape == (2, count, 4, 4)
    assert (found.local_points[..., 2] > 0).all()
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


def test_another_order_of_views_gives_the_same_in_that_order(make_pi3):
    model, images, order = make_pi3(), views(4), [2, 0, 3, 1]
    with torch.no_grad():
        found, other = model(images), model(images[:, order])
    for name in ("local_points", "confidence_logit", "T_world_camera", "points"):
        torch.testing.assert_close(getattr(other, name), getattr(found, name)[:, order], **CLOSE)


def test_views_see_each_other_and_scenes_do_not(make_pi3):
    model, images = make_pi3(), views(3, scenes=2)
    changed = images.clone()
    changed[0, 2] = 1 - changed[0, 2]
    with torch.no_grad():
        found, other = model(images), model(changed)
    apart = (found.T_world_camera - other.T_world_camera).abs().amax(dim=(2, 3))
    assert (apart[0] > 1e-5).all()
    assert (apart[1] < 1e-5).all()


def test_world_points_are_the_pose_of_local_ones():
    pose = torch.eye(4).repeat(1, 2, 1, 1)
    pose[0, 1, :3, :3] = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    pose[0, 1, :3, 3] = torch.tensor([1.0, 2, 3])
    local = torch.tensor([1.0, 5.0, 7.0]).expand(1, 2, 1, 1, 3)
    geometry = ViewGeometry(local, torch.zeros(1, 2, 1, 1), pose)
    assert geometry.points[0, :, 0, 0].tolist() == [[1, 5, 7], [-4, 3, 10]]


def test_half_precision_stays_near(make_pi3):
    images = views()
    with torch.no_grad():
        exact = make_pi3()(images)
        model = make_pi3()
        model.set_precision(torch.bfloat16)
        found = model(images)
    assert model.blocks[0].operations["attn"].to_qkv.weight.dtype == torch.bfloat16
    assert model.camera_head.translation.weight.dtype == model.point_decoder.input_layer.weight.dtype == torch.float32
    for name in ("local_points", "confidence_logit", "T_world_camera"):
        ours, wanted = getattr(found, name), getattr(exact, name)
        assert ours.dtype == torch.float32
        assert (ours - wanted).norm() / wanted.norm() < 0.05


def test_what_does_not_fit_is_refused(make_pi3):
    with pytest.raises(InputError, match="sides"):
        make_pi3()(torch.rand(1, 2, 3, 28, 30))
    with pytest.raises(InputError, match="views"):
        make_pi3()(torch.rand(2, 3, 28, 28))
    with pytest.raises(InputError, match="depth"):
        Pi3Config(depth=1)
    with pytest.raises(InputError, match="head_heads"):
        Pi3Config(head_heads=3)
    with pytest.raises(InputError, match="multiples of 4"):
        Pi3Config(encoder=DinoV2Config(embed_dim=36, num_heads=2), heads=2, head_width=16, head_heads=2)
