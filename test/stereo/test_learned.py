"""Networks of scene geometry as stereo matchers: a perfect one on a known scene, and π³ itself in a small size."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, Gena3DError, InputError
from gena3d_core.geometry import camera, transforms
from gena3d_core.models.geometry.pi3 import ViewGeometry
from gena3d_core.models.geometry.pi3x import Pi3X, Pi3XConfig
from gena3d_core.models.image_encoders.dinov2 import DinoV2Config
from gena3d_core.stereo import LEARNED, make_stereo_matcher, match_views
from gena3d_core.stereo.choice import choose, matchers_at_hand
from gena3d_core.stereo.learned import LearnedStereo, LearnedStereoConfig, focal_lengths, to_image
from gena3d_core.types import Intrinsics

SCENE = {"planes": [((0, 0, 1), 0.0)], "spheres": [((0.05, 0.0, 0.06), 0.06), ((-0.2, 0.1, 0.09), 0.09)]}
EYES = ((0.7, 0.0, 0.5), (0.3, 0.6, 0.6), (-0.4, 0.5, 0.4))
SCALE = 0.3
PIXELS = 30_000


@pytest.fixture(scope="module")
def views(analytic_view):
    return [
        analytic_view(transforms.look_at(np.array(eye), np.zeros(3)), **SCENE, name=f"view {i}")
        for i, eye in enumerate(EYES)
    ]


def resized(intrinsics: Intrinsics, width: int, height: int) -> Intrinsics:
    across, down = width / intrinsics.width, height / intrinsics.height
    center = ((intrinsics.cx + 0.5) * across - 0.5, (intrinsics.cy + 0.5) * down - 0.5)
    return Intrinsics(width, height, intrinsics.fx * across, intrinsics.fy * down, *center)


@pytest.fixture(scope="module")
def perfect(analytic_view, views):
    """A network that knows the scene, but in a frame and unit of its own; it counts its calls."""
    S = transforms.rigid(Rotation.random(random_state=4).as_matrix() / SCALE, np.array([3.0, -1.0, 2.0]))
    calls = []

    def network(images: torch.Tensor) -> ViewGeometry:
        calls.append(tuple(images.shape))
        count, height, width = images.shape[1], *images.shape[-2:]
        points, poses = [], []
        for view in views[:count]:
            small = resized(view.intrinsics, width, height)
            depth_m = analytic_view(view.T_world_camera, **SCENE, intrinsics=small).depth_m
            points.append(np.nan_to_num(camera.backproject(depth_m, small), nan=100.0) / SCALE)
            T = S @ view.T_world_camera
            T[:3, :3] *= SCALE
            poses.append(T)
        sure = torch.full((1, count, height, width), 3.0)
        sure[..., :8, :] = -5.0
        return ViewGeometry(torch.tensor(np.stack(points))[None].float(), sure, torch.tensor(np.stack(poses))[None])

    return network, calls


def matcher(perfect, **options) -> LearnedStereo:
    return LearnedStereo("perfect", lambda: perfect[0], LearnedStereoConfig(pixel_limit=PIXELS, **options))


def photo(view, **changes):
    guess = replace(view.intrinsics, fx=400.0, fy=400.0)
    return replace(
        view,
        T_world_camera=np.eye(4),
        depth_m=None,
        pose_known=False,
        **{"intrinsics": guess, "intrinsics_known": False, **changes},
    )


def relative_errors(views, found):
    return np.concatenate([np.abs(b.depth_m / a.depth_m - 1.0).ravel() for a, b in zip(views, found, strict=True)])


def test_posed_views_without_depth_get_it_in_metres(perfect, views):
    result = match_views(matcher(perfect), [replace(view, depth_m=None) for view in views])
    assert result.metric
    assert result.warnings == ()
    assert result.residuals["stereo_scale_m"] == pytest.approx(SCALE, rel=1e-4)
    errors = relative_errors(views, result.views)
    assert np.isfinite(errors).mean() > 0.85
    assert np.nanpercentile(errors, 99) < 0.01
    assert np.nanmedian(errors) < 0.001
    for before, after in zip(views, result.views, strict=True):
        np.testing.assert_array_equal(after.T_world_camera, before.T_world_camera)
        # What the network is not sure of is unknown: the top rows.
        assert not np.isfinite(after.depth_m[:8]).any()
        assert ((after.depth_confidence > 0) == np.isfinite(after.depth_m)).all()


def test_photographs_get_poses_and_focal_lengths(perfect, views):
    unposed = [photo(view) for view in views[:2]]
    result = match_views(matcher(perfect), unposed)
    assert not result.metric
    for before, after in zip(views, result.views, strict=False):
        assert after.intrinsics.fx == pytest.approx(before.intrinsics.fx, rel=0.01)
        assert after.intrinsics.fy == pytest.approx(before.intrinsics.fy, rel=0.01)
    T_found = transforms.inverse(result.views[0].T_world_camera) @ result.views[1].T_world_camera
    T_true = transforms.inverse(views[0].T_world_camera) @ views[1].T_world_camera
    np.testing.assert_allclose(T_found[:3, :3], T_true[:3, :3], atol=1e-5)
    found, true = T_found[:3, 3], T_true[:3, 3]
    np.testing.assert_allclose(found / np.linalg.norm(found), true / np.linalg.norm(true), atol=1e-4)
    # One length tells all others: that of the baseline against the depth.
    ratio = np.linalg.norm(found) / np.linalg.norm(true)
    depth_ratio = np.nanmedian(result.views[0].depth_m / views[0].depth_m)
    assert depth_ratio == pytest.approx(ratio, rel=1e-3)


def test_measured_depth_is_kept_and_lends_its_scale(perfect, views):
    given = [views[0], photo(views[1], intrinsics=views[1].intrinsics, intrinsics_known=True), photo(views[2])]
    result = match_views(matcher(perfect), given)
    assert result.metric
    assert result.residuals["stereo_scale_m"] == pytest.approx(SCALE, rel=2e-3)
    np.testing.assert_allclose(result.views[1].T_world_camera, views[1].T_world_camera, atol=5e-3)
    # The network says nothing about the top rows; the camera does.
    assert np.isfinite(result.views[0].depth_m[3:8]).any()
    replaced = match_views(matcher(perfect, keep_measured=False), given)
    assert not np.isfinite(replaced.views[0].depth_m[:8]).any()


def test_a_calibration_that_is_not_the_images_is_reported(perfect, views):
    wrong = replace(views[0].intrinsics, fx=500.0, fy=500.0)
    result = match_views(matcher(perfect), [replace(views[0], intrinsics=wrong, depth_m=None), *views[1:]])
    assert any("camera info" in text and "view 0" in text for text in result.warnings)


def test_a_scene_is_computed_once_and_shared(perfect, views):
    network, calls = perfect
    calls.clear()
    shared = matcher((network, calls))
    first, again = shared.match(views), shared.match(views)
    assert len(calls) == 1
    assert calls[0][:3] == (1, 3, 3)
    assert all(side % 14 == 0 for side in calls[0][-2:])
    assert calls[0][-1] * calls[0][-2] <= PIXELS
    np.testing.assert_array_equal(first.views[0].depth_m, again.views[0].depth_m)
    shared.match(views[:2])
    assert len(calls) == 2


def test_warnings_of_a_plain_call(perfect, views):
    with pytest.warns(UserWarning, match="up to scale"):
        found = matcher(perfect)([photo(view) for view in views])
    assert len(found) == 3


def broken(value: float):
    def network(images):
        shape = (1, images.shape[1], *images.shape[-2:])
        points = torch.full((*shape, 3), value)
        return ViewGeometry(points, torch.full(shape, -9.0), torch.eye(4).expand(*shape[:2], 4, 4))

    return LearnedStereo("broken", lambda: network, LearnedStereoConfig(pixel_limit=PIXELS))


def test_failures_say_what_to_do(views):
    with pytest.raises(Gena3DError, match="not finite"):
        broken(float("nan")).match(views)
    with pytest.raises(InputError, match="trusted depth"):
        broken(1.0).match([replace(view, depth_m=None) for view in views])
    with pytest.raises(InputError, match="no views"):
        broken(1.0).match([])
    with pytest.raises(InputError, match="pixel_limit"):
        LearnedStereoConfig(pixel_limit=10)


def test_depth_of_another_size_keeps_its_steps():
    depth = np.ones((4, 6), np.float32)
    depth[:, 3:] = 2.0
    depth[0, 0] = np.nan
    large = to_image(depth, Intrinsics(30, 20, 20.0, 20.0, 14.5, 9.5), 0.03)
    assert large.shape == (20, 30)
    assert set(np.unique(large[np.isfinite(large)])) == {1.0, 2.0}
    assert (large[:, 15:] == 2.0).all()
    assert np.isnan(large[:5, :5]).all()


def test_rays_without_a_direction_tell_no_focal_length():
    points = np.zeros((20, 30, 3), np.float32)
    points[..., 2] = 1.0
    assert focal_lengths(points, np.ones((20, 30), bool), Intrinsics(30, 20, 20.0, 20.0, 14.5, 9.5)) is None


@pytest.fixture
def pi3_file(golden_dir, tmp_path):
    """π³ with random weights, in the size of the numerical cases."""
    file = tmp_path / "model.safetensors"
    save_file(load_file(golden_dir / "h_pi3/weights.safetensors"), file)
    constructor = json.loads((golden_dir / "h_pi3/case.json").read_text())["constructor"]
    file.with_suffix(".json").write_text(json.dumps({"name": "Pi3", "args": constructor}))
    return file


def test_pi3_runs_from_images_to_posed_depth(pi3_file, views):
    options = {"checkpoint": str(pi3_file), "pixel_limit": 5000, "min_confidence": 0.0, "edge_ratio": 1e6}
    pi3 = make_stereo_matcher("pi3", **options)
    result = match_views(pi3, [photo(view) for view in views])
    assert not result.metric
    for view in result.views:
        assert view.pose_known
        assert view.depth_m.shape == view.color.shape[:2]
    assert any(np.isfinite(view.depth_m).any() for view in result.views)
    # Whatever the order of the views, their relative poses are the same.
    turned = match_views(make_stereo_matcher("pi3", **options), [photo(view) for view in views[::-1]])
    for i, j in ((0, 1), (0, 2)):
        one = transforms.inverse(result.views[i].T_world_camera) @ result.views[j].T_world_camera
        other = transforms.inverse(turned.views[2 - i].T_world_camera) @ turned.views[2 - j].T_world_camera
        np.testing.assert_allclose(one[:3, :3], other[:3, :3], atol=1e-3)


def test_auto_takes_the_best_at_hand(views, monkeypatch, caplog):
    at_hand = {"depth_camera": None, "plane_sweep": None, "sfm": None}
    without_depth = [replace(view, depth_m=None) for view in views]
    assert choose(views, at_hand) == "depth_camera"
    assert choose(without_depth, at_hand) == "plane_sweep"
    assert choose([photo(view) for view in views], at_hand) == "sfm"
    # Weights that not every use is allowed for come behind what needs none ...
    for given in (without_depth, [photo(view) for view in views], [*views[:2], photo(views[2])]):
        assert choose(given, {**at_hand, "pi3": None}) == choose(given, at_hand)
        assert choose(given, {"depth_camera": None, "vggt": None, **at_hand}) == "vggt"
    # ... and are taken where nothing else serves.
    assert choose([photo(view) for view in views], {"depth_camera": None, "plane_sweep": None, "pi3": None}) == "pi3"
    with pytest.raises(InputError, match=r"view 0.*checkpoint info pi3.*gena3d\[sfm\]"):
        choose([photo(view) for view in views], {"depth_camera": None, "plane_sweep": None})


def test_auto_leaves_out_weights_that_are_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert not {"pi3"} & matchers_at_hand().keys()
    folder = tmp_path / ".cache/gena3d/checkpoints/pi3"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"nothing")
    assert not {"pi3"} & matchers_at_hand().keys()
    with pytest.raises(DataFormatError, match="not a whole safetensors file"):
        make_stereo_matcher("pi3")
    with pytest.raises(InputError, match="pixel_limits"):
        make_stereo_matcher("pi3", pixel_limits=3)
    assert next(iter(LEARNED)) == "pi3x"


def test_order_of_what_is_at_hand_follows_the_licences(monkeypatch):
    folders = {"pi3": "here", "vggt-commercial": "here", "vggt": "here"}
    monkeypatch.setattr("gena3d_core.stereo.choice.present_folder", lambda model: folders.get(model.name))
    monkeypatch.setattr("gena3d_core.stereo.choice.make_stereo_matcher", lambda name, **_: name)
    monkeypatch.setattr("gena3d_core.stereo.choice.find_spec", lambda name: name)
    assert list(matchers_at_hand()) == ["depth_camera", "vggt", "plane_sweep", "sfm", "pi3"]
    del folders["vggt-commercial"]
    assert list(matchers_at_hand()) == ["depth_camera", "plane_sweep", "sfm", "pi3", "vggt"]


class Hearing:
    """A perfect network that keeps what it was told."""

    takes_known = True

    def __init__(self, network):
        self.network, self.told = network, []

    def __call__(self, images, **known):
        self.told.append(known)
        return self.network(images)


def test_a_network_that_takes_what_is_known_is_told(perfect, views):
    network = Hearing(perfect[0])
    given = [views[0], replace(views[1], depth_m=None), photo(views[2])]
    stereo = LearnedStereo("hearing", lambda: network, LearnedStereoConfig(pixel_limit=PIXELS))
    stereo.match(given)
    told = network.told[0]
    assert told["T_world_camera"].isfinite().all(dim=(-1, -2)).tolist() == [[True, True, False]]
    assert told["depth_m"].isfinite().flatten(2).any(dim=2).tolist() == [[True, False, False]]
    assert told["rays"].isfinite().flatten(2).all(dim=2).tolist() == [[True, True, False]]
    height, width = told["depth_m"].shape[-2:]
    # Rays of the outer pixels span what the image spans, but for half a pixel on either side.
    fx, full = views[0].intrinsics.fx, views[0].intrinsics.width
    span = float(told["rays"][0, 0, 0, -1, 0] - told["rays"][0, 0, 0, 0, 0])
    assert span == pytest.approx(full / fx * (width - 1) / width, rel=1e-5)
    assert float(told["rays"][0, 0, 0, 0, 1]) == pytest.approx(-float(told["rays"][0, 0, height - 1, 0, 1]), abs=0.03)
    stereo.match(given)
    assert len(network.told) == 1
    stereo.match([views[0], replace(views[1], depth_m=None), views[2]])
    assert len(network.told) == 2
    silent = LearnedStereo("deaf", lambda: network, LearnedStereoConfig(pixel_limit=PIXELS, use_known=False))
    silent.match(given)
    assert network.told[-1] == {}


def test_a_guess_of_metres_is_taken_and_said(perfect, views):
    guessed = LearnedStereo("hearing", lambda: Hearing(perfect[0]), LearnedStereoConfig(pixel_limit=PIXELS))
    result = guessed.match([photo(view) for view in views])
    assert not result.metric
    assert result.residuals["stereo_scale_m"] == pytest.approx(1.0)
    assert any("own guess of metres" in text for text in result.warnings)


def tiny_pi3x() -> Pi3X:
    encoder = DinoV2Config(img_size=28, embed_dim=32, depth=1, num_heads=2, mask_token=False)
    sizes = {"depth": 4, "heads": 2, "head_width": 16, "head_depth": 1, "head_heads": 2, "camera_width": 8}
    small = {"pose_layers": (1,), "head_channels": (8, 8, 8), "metric_width": 16, "metric_heads": 2}
    model = Pi3X(Pi3XConfig(encoder=encoder, **sizes, **small))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_pi3x_itself_is_told_what_is_known(views):
    options = LearnedStereoConfig(pixel_limit=5000, min_confidence=0.0, edge_ratio=1e6, keep_measured=False)
    network = tiny_pi3x()
    found = {
        name: LearnedStereo("pi3x", lambda: network, replace(options, use_known=told)).match(given)
        for name, told, given in (
            ("posed", True, [replace(view, depth_m=None) for view in views]),
            ("photos", True, [photo(view) for view in views]),
            ("untold", False, [replace(view, depth_m=None) for view in views]),
        )
    }
    for result in found.values():
        assert all(view.pose_known and view.depth_m.shape == view.color.shape[:2] for view in result.views)
        assert any(np.isfinite(view.depth_m).any() for view in result.views)
    assert found["posed"].metric
    assert not found["photos"].metric
    assert any("own guess of metres" in text for text in found["photos"].warnings)
    scales = [found[name].residuals["stereo_scale_m"] for name in ("posed", "untold")]
    assert scales[0] != scales[1]
