"""Points, confidence and cameras from tokens."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.models.geometry.heads import CameraHead, PixelHead, TokenDecoder, nearest_rotation
from gena3d_core.models.geometry.views import token_positions
from gena3d_core.nn.rotary import planar_rotation


def drawn(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def random_rotations(count: int, seed: int) -> torch.Tensor:
    basis, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=torch.Generator().manual_seed(seed)).double())
    return basis * torch.linalg.det(basis)[:, None, None]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_nearest_rotation_is_one_and_none_is_nearer(seed: int) -> None:
    matrix = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(seed)).double()
    found = nearest_rotation(matrix)
    torch.testing.assert_close(found @ found.mT, torch.eye(3).double().expand(4, 3, 3), atol=1e-9, rtol=0)
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(4).double(), atol=1e-9, rtol=0)
    rows = matrix / matrix.norm(dim=-1, keepdim=True)
    apart = (found - rows).flatten(1).norm(dim=-1)
    others = (random_rotations(200, seed)[None] - rows[:, None]).flatten(2).norm(dim=-1)
    assert (apart[:, None] <= others + 1e-9).all()


def test_a_rotation_with_scaled_rows_comes_back() -> None:
    rotations = random_rotations(5, 1)
    scaled = rotations * torch.tensor([0.1, 3.0, 20.0])[:, None]
    torch.testing.assert_close(nearest_rotation(scaled), rotations, atol=1e-9, rtol=0)
    assert nearest_rotation(rotations.bfloat16()).dtype == torch.float32


def test_pixels_of_a_token_lie_in_its_patch() -> None:
    head = PixelHead(4, 2, 3)
    with torch.no_grad():
        head.proj.weight.zero_()
        head.proj.bias.copy_(torch.arange(18.0))
        head.proj.weight[:, 0] = 100.0
    tokens = torch.zeros(1, 1, 6, 4)
    tokens[..., 0] = torch.arange(6.0)
    found = head(tokens, 2, 3)
    assert found.shape == (1, 1, 6, 9, 2)
    for y in range(6):
        for x in range(9):
            token = y // 3 * 3 + x // 3
            expected = [100.0 * token + 9 * c + y % 3 * 3 + x % 3 for c in range(2)]
            assert found[0, 0, y, x].tolist() == expected


def test_camera_head_from_its_definition() -> None:
    head = drawn(CameraHead(6))
    assert isinstance(head, CameraHead)
    x = torch.randn(2, 3, 5, 6)
    state = head.state_dict()

    def linear(h: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(h, state[f"{name}.weight"], state[f"{name}.bias"])

    h = x
    for unit in range(2):
        inner = h
        for layer in (0, 2, 4):
            inner = linear(inner, f"units.{unit}.layers.{layer}").relu()
        h = h + inner
    h = h.mean(dim=2)
    for layer in (0, 2):
        h = linear(h, f"perceptron.{layer}").relu()
    with torch.no_grad():
        pose = head(x)
    torch.testing.assert_close(pose[..., :3, 3], linear(h, "translation"))
    torch.testing.assert_close(pose[..., :3, :3], nearest_rotation(linear(h, "rotation").reshape(2, 3, 3, 3)))
    assert pose[..., 3, :].tolist() == [[[0, 0, 0, 1]] * 3] * 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoders_keep_views_apart(dtype: torch.dtype) -> None:
    decoder = drawn(TokenDecoder(10, 16, 6, 2, 2)).to(dtype)
    x = torch.randn(1, 3, 2 + 6, 10).to(dtype)
    rotation = planar_rotation(token_positions(2, 2, 3), 8)
    with torch.no_grad():
        together, alone = decoder(x, rotation), decoder(x[:, 1:2], rotation)
    assert together.shape == (1, 3, 8, 6)
    torch.testing.assert_close(together[:, 1:2], alone)
