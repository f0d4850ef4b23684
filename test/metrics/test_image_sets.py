"""Distances between sets of features, and networks loaded from files, with small random ones."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from scipy import linalg
from torch import nn

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.metrics import image_networks as networks
from gena3d_core.metrics.image_sets import (
    ImageNetworks,
    cosine_similarity,
    frechet_distance,
    gaussian_distance,
    kernel_distance,
    picture_figures,
    set_figures,
)


def test_equal_sets_are_no_distance_apart(rng):
    features = rng.normal(size=(200, 8))
    assert frechet_distance(features, features) == pytest.approx(0.0, abs=1e-6)
    assert frechet_distance(features, features + 2.0) == pytest.approx(8 * 4.0, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_gaussian_distance_is_the_formula(seed, size):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, size, size))
    mu1, mu2 = rng.normal(size=(2, size))
    cov1, cov2 = a @ a.T + 0.1 * np.eye(size), b @ b.T + 0.1 * np.eye(size)
    root = linalg.sqrtm(cov1 @ cov2).real
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root)
    assert gaussian_distance(mu1, cov1, mu2, cov2) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_gaussian_distance_of_diagonals():
    assert gaussian_distance(np.zeros(2), np.diag([4.0, 9.0]), np.ones(2), np.diag([1.0, 1.0])) == pytest.approx(
        2.0 + (2 - 1) ** 2 + (3 - 1) ** 2
    )


def test_kernel_distance_is_unbiased_and_sees_a_shift(rng):
    one, other = rng.normal(size=(2, 400, 6))
    assert abs(kernel_distance(one, other)) < 0.05
    assert kernel_distance(one, other + 1.0) > 1.0
    x, y = rng.normal(size=(2, 5, 3))

    def k(a, b):
        return (a @ b / 3 + 1) ** 3

    pairs = [(i, j) for i in range(5) for j in range(5)]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs if i != j) / 20
    across = sum(k(x[i], y[j]) for i, j in pairs) / 25
    assert kernel_distance(x, y) == pytest.approx(within - 2 * across)
    assert kernel_distance(one, other + 1.0, subsets=20, size=100) == pytest.approx(
        kernel_distance(one, other + 1.0), rel=0.2
    )


def test_features_that_cannot_be_compared():
    with pytest.raises(InputError, match="shape"):
        frechet_distance(np.zeros((3, 2)), np.zeros((3, 4)))
    with pytest.raises(InputError, match="two or more"):
        kernel_distance(np.zeros((1, 2)), np.zeros((3, 2)))
    with pytest.raises(InputError, match="pairs"):
        cosine_similarity(np.zeros((2, 3)), np.zeros((3, 3)))
    assert cosine_similarity(np.eye(3), np.diag([2.0, -1.0, 0.0])).tolist() == [1.0, -1.0, 0.0]


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 7, stride=16)

    def forward(self, x):
        return self.layer(x)


class StyleFeatures(Features):
    def forward(self, img, return_features: bool = False):
        assert img.dtype == torch.uint8
        assert return_features
        return self.layer(img.float()).mean(dim=[2, 3])


class Clip(Features):
    @torch.jit.export
    def encode_image(self, image):
        return self.layer(image).mean(dim=[2, 3])


def scripted(tmp_path, module, name="net.pt"):
    path = tmp_path / name
    torch.jit.script(module.eval()).save(str(path))
    return path


@pytest.fixture
def pictures(rng):
    return rng.integers(0, 256, (8, 64, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize("kind", [Features, StyleFeatures])
def test_inception_from_a_file(tmp_path, pictures, kind):
    torch.manual_seed(0)
    features = networks.load_inception(scripted(tmp_path, kind()))
    assert features(pictures).shape == (8, 6)
    assert features(np.concatenate([pictures] * 5)).shape == (40, 6)
    assert not np.allclose(features(pictures), features(255 - pictures))


def test_clip_from_a_file(tmp_path, pictures):
    torch.manual_seed(0)
    module = Clip()
    embed = networks.load_clip(scripted(tmp_path, module))
    mean, std = (np.array(v).reshape(1, 3, 1, 1) for v in (networks.CLIP_MEAN, networks.CLIP_STD))
    images = (networks.to_tensor(pictures, 224).numpy() - mean) / std
    expected = module.encode_image(torch.from_numpy(images).float()).detach().numpy()
    assert embed(pictures) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataFormatError, match="encode_image"):
        networks.load_clip(scripted(tmp_path, Features(), "other.pt"))


def lpips_folder(tmp_path, channels=(2, 3, 4, 5, 6)):
    """VGG-16's layout with few channels."""
    torch.manual_seed(0)
    layers = {0: 0, 2: 0, 5: 1, 7: 1, 10: 2, 12: 2, 14: 2, 17: 3, 19: 3, 21: 3, 24: 4, 26: 4, 28: 4}
    weights, incoming = {}, 3
    for number, depth in layers.items():
        weights[f"features.{number}.weight"] = torch.randn(channels[depth], incoming, 3, 3)
        weights[f"features.{number}.bias"] = torch.randn(channels[depth])
        incoming = channels[depth]
    save_file(weights, tmp_path / "backbone.safetensors")
    linear = {f"lin{k}.model.1.weight": torch.rand(1, c, 1, 1) for k, c in enumerate(channels)}
    save_file(linear, tmp_path / "linear.safetensors")
    return tmp_path, weights, linear


def test_lpips_from_weights_is_the_formula(tmp_path, pictures):
    folder, weights, linear = lpips_folder(tmp_path)
    distance = networks.load_lpips(folder)
    assert distance(pictures, pictures) == pytest.approx(np.zeros(8))
    other = np.roll(pictures, 1, axis=0)
    modules = []
    for number in range(30):
        if f"features.{number}.weight" in weights:
            w = weights[f"features.{number}.weight"]
            conv = nn.Conv2d(w.shape[1], w.shape[0], 3, padding=1)
            conv.load_state_dict({"weight": w, "bias": weights[f"features.{number}.bias"]})
            modules.append(conv)
        else:
            modules.append(nn.MaxPool2d(2) if number in networks.VGG_POOLS else nn.ReLU())
    shift, scale = (torch.tensor(v).view(1, 3, 1, 1) for v in (networks.LPIPS_SHIFT, networks.LPIPS_SCALE))
    total = torch.zeros(8)
    with torch.no_grad():
        x, y = ((2 * networks.to_tensor(p) - 1 - shift) / scale for p in (pictures, other))
        depth = 0
        for number, module in enumerate(modules):
            if number in networks.VGG_POOLS or number == 29:
                if number == 29:
                    x, y = module(x), module(y)
                a, b = (v / (v.norm(dim=1, keepdim=True) + 1e-10) for v in (x, y))
                total += (((a - b) ** 2) * linear[f"lin{depth}.model.1.weight"]).sum(1).mean((1, 2))
                depth += 1
            x, y = (x, y) if number == 29 else (module(x), module(y))
    assert distance(pictures, other) == pytest.approx(total.numpy(), rel=1e-4)


def test_lpips_says_what_is_missing(tmp_path):
    with pytest.raises(DataFormatError, match=r"backbone\.safetensors"):
        networks.load_lpips(tmp_path)
    folder, _, linear = lpips_folder(tmp_path)
    linear["lin2.model.1.weight"] = torch.rand(1, 9, 1, 1)
    save_file(linear, folder / "linear.safetensors")
    with pytest.raises(DataFormatError, match="linear layers"):
        networks.load_lpips(folder)
    save_file({"lin0.model.1.weight": torch.rand(1, 2, 1, 1)}, folder / "linear.safetensors")
    with pytest.raises(DataFormatError, match="lin4"):
        networks.load_lpips(folder)


def test_files_that_are_no_networks(tmp_path):
    with pytest.raises(DataFormatError, match="no such file"):
        networks.load_inception(tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("not a network")
    with pytest.raises(DataFormatError, match="TorchScript"):
        networks.load_inception(tmp_path / "text.pt")
    with pytest.raises(DataFormatError, match="no such folder"):
        networks.load_judge(tmp_path / "absent")
    with pytest.raises(InputError, match="unknown"):
        networks.load_networks({"vgg": tmp_path})


@pytest.mark.parametrize(
    ("answer", "score"), [('{"score": 73}', 73.0), ('Well: ```json\n{"score": 0}\n``` indeed', 0.0)]
)
def test_the_judges_answer(answer, score):
    assert networks.parse_score(answer) == score


@pytest.mark.parametrize("answer", ["", "eighty", '{"score": 101}', '{"score": true}', "[1]", '{"value": 3}'])
def test_answers_without_score(answer):
    with pytest.raises(InputError, match="score"):
        networks.parse_score(answer)


def test_figures_of_objects_together(pictures, rng):
    asked = []

    def ask(prompt, shown):
        asked.append((prompt, len(shown)))
        return json.dumps({"score": 40 if len(asked) == 1 else 60})

    def embed(images):
        return images.reshape(len(images), -1)[:, :5].astype(np.float64)

    made = ImageNetworks(
        embed, embed, lambda a, b: np.abs(a.astype(float) - b).mean((1, 2, 3)), networks.LanguageJudge(ask)
    )
    figures = [picture_figures(p, pictures, made) for p in (pictures, 255 - pictures)]
    assert figures[0].lpips == 0.0
    assert figures[0].clip == pytest.approx(1.0)
    together = set_figures(figures)
    assert set(together) == {"fid", "kid", "clip", "lpips", "pcs"}
    assert together["pcs"] == 50.0
    assert together["lpips"] == pytest.approx(figures[1].lpips / 2)
    assert [count for _, count in asked] == [8, 8]
    assert set_figures([picture_figures(pictures, pictures, ImageNetworks())]) == {}
