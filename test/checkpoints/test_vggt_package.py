"""VGGT through its authors' package: conventions by construction, what is read of the weights, clear refusals."""

import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation
from torch import nn

from gena3d_core.checkpoints.scene_geometry import checked_scene_geometry
from gena3d_core.checkpoints.vggt_package import view_geometry
from gena3d_core.errors import DataFormatError, MissingDependencyError
from gena3d_core.stereo import make_stereo_matcher

SIZE = (28, 42)
FOCAL = (30.0, 31.0)


def cameras(count: int) -> torch.Tensor:
    """(1, count, 4, 4) camera to world."""
    T = torch.eye(4).repeat(1, count, 1, 1)
    T[0, :, :3, :3] = torch.tensor(Rotation.random(count, random_state=3).as_matrix(), dtype=torch.float32)
    T[0, :, :3, 3] = torch.arange(3.0 * count).view(count, 3)
    return T


class TinyVggt(nn.Module):
    """Has the package's interface, and says of every scene the same: a slope in front of known cameras."""

    def __init__(self):
        super().__init__()
        self.aggregator, self.camera_head, self.depth_head = nn.Linear(2, 2), nn.Linear(2, 3), nn.Linear(2, 1)
        self.point_head, self.track_head = nn.Linear(9, 9), nn.Linear(9, 9)

    def forward(self, images):
        count, height, width = images.shape[1], *images.shape[-2:]
        depth = (1.0 + torch.arange(width) / width).expand(1, count, height, width)
        return {
            "pose_enc": torch.zeros(1, count, 9),
            "depth": depth[..., None],
            "depth_conf": torch.full((1, count, height, width), 1.0 + 3.0),
        }


def decoded(pose_enc, size):
    count = pose_enc.shape[1]
    K = torch.eye(3).repeat(1, count, 1, 1)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2] = *FOCAL, size[1] / 2, size[0] / 2
    return torch.linalg.inv(cameras(count))[..., :3, :], K


@pytest.fixture
def package(monkeypatch):
    modules = {name: ModuleType(name) for name in ("vggt", "vggt.models", "vggt.models.vggt", "vggt.utils")}
    modules["vggt.utils.pose_enc"] = pose_enc = ModuleType("vggt.utils.pose_enc")
    modules["vggt.models.vggt"].VGGT = TinyVggt
    pose_enc.pose_encoding_to_extri_intri = decoded
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    find_spec = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: name == "vggt" or find_spec(name, *rest))


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(TinyVggt().state_dict(), file)
    return file


def test_images_become_points_in_the_frames_of_the_cameras(package, weights):
    geometry = checked_scene_geometry("vggt", weights)()
    found = geometry(torch.rand(1, 3, 3, *SIZE))
    torch.testing.assert_close(found.T_world_camera, cameras(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.confidence, torch.full((1, 3, *SIZE), 0.75))
    x, y, z = found.local_points[0, 0, 4, 9]
    assert z == pytest.approx(1.0 + 9 / SIZE[1])
    assert x / z == pytest.approx((9.5 - SIZE[1] / 2) / FOCAL[0])
    assert y / z == pytest.approx((4.5 - SIZE[0] / 2) / FOCAL[1])
    world = cameras(3)[0, 1, :3, :3] @ found.local_points[0, 1, 4, 9] + cameras(3)[0, 1, :3, 3]
    torch.testing.assert_close(found.points[0, 1, 4, 9], world)
    assert geometry.network.point_head is geometry.network.track_head is None


def test_certainty_of_one_is_none_at_all():
    one = torch.ones(1, 1, 2, 2)
    found = view_geometry(one, one, torch.eye(4)[None, None, :3], torch.eye(3)[None, None])
    assert (found.confidence < 1e-5).all()
    assert torch.isfinite(found.confidence_logit).all()


def test_as_a_stereo_matcher(package, weights):
    matcher = make_stereo_matcher("vggt", checkpoint=str(weights))
    assert matcher.name == "vggt"


def test_without_the_package_the_pip_line_is_said(weights, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    with pytest.raises(MissingDependencyError, match=r"pip install git\+https://github.com/facebookresearch/vggt"):
        make_stereo_matcher("vggt", checkpoint=str(weights))


def test_absent_damaged_and_foreign_weights(package, weights, nowhere, tmp_path):
    with pytest.raises(DataFormatError, match="hf download facebook/VGGT-1B"):
        checked_scene_geometry("vggt")
    with pytest.raises(DataFormatError, match="no such file"):
        checked_scene_geometry("vggt", tmp_path / "absent.safetensors")
    foreign = tmp_path / "foreign.safetensors"
    save_file({"aggregator.x": torch.ones(1), "camera_head.x": torch.ones(1)}, foreign)
    with pytest.raises(DataFormatError, match="no depth_head"):
        checked_scene_geometry("vggt", foreign)
    save_file({f"{part}.x": torch.ones(1) for part in ("aggregator", "camera_head", "depth_head")}, foreign)
    with pytest.raises(DataFormatError, match="no weights of VGGT"):
        checked_scene_geometry("vggt", foreign)()
    half = tmp_path / "half.safetensors"
    half.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataFormatError, match="safetensors"):
        checked_scene_geometry("vggt", half)
    folder = tmp_path / "nowhere/.cache/gena3d/checkpoints/vggt"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(weights.read_bytes())
    with pytest.raises(DataFormatError, match="bytes instead of 5026367224"):
        checked_scene_geometry("vggt")
    broken = TinyVggt().state_dict()
    broken["depth_head.bias"][:] = torch.nan
    save_file(broken, foreign)
    with pytest.raises(DataFormatError, match="NaN or infinity"):
        checked_scene_geometry("vggt", foreign)()
