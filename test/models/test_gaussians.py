"""Gaussians: activations against the formulas, covariances, the PLY file."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.models.gaussians import (
    PLY_PROPERTIES,
    SCALING_ACTIVATIONS,
    GaussianActivation,
    Gaussians,
)
from gena3d_core.nn.rotations import quaternion_matrices


def random_gaussians(count: int, seed: int, activation: GaussianActivation | None = None) -> Gaussians:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=g)

    return Gaussians(
        torch.rand(count, 3, generator=g), draw(1, 3), draw(3), draw(4), draw(1), activation or GaussianActivation()
    )


def read_ply(data: bytes) -> np.ndarray:
    header, _, body = data.partition(b"end_header\n")
    lines = header.decode("ascii").split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    names = [line.split()[2] for line in lines if line.startswith("property float")]
    count = next(int(line.split()[2]) for line in lines if line.startswith("element vertex"))
    table = np.frombuffer(body, dtype=[(name, "<f4") for name in names])
    assert len(table) == count
    return table


@pytest.mark.parametrize("name", SCALING_ACTIVATIONS)
def test_raw_zero_is_the_bias(name):
    activation = GaussianActivation(name, scaling_bias=0.02, opacity_bias=0.3, kernel_3d=0.015)
    zeros = Gaussians(
        torch.zeros(2, 3), torch.zeros(2, 1, 3), torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2, 1), activation
    )
    torch.testing.assert_close(zeros.scaling, torch.full((2, 3), 0.025))
    torch.testing.assert_close(zeros.opacity, torch.full((2, 1), 0.3))
    torch.testing.assert_close(zeros.quat_wxyz, torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4))
    torch.testing.assert_close(zeros.xyz, torch.full((2, 3), -0.5))
    torch.testing.assert_close(zeros.colors, torch.full((2, 3), 0.5))


def test_scales_never_fall_below_the_kernel():
    activation = GaussianActivation(kernel_3d=0.01)
    gaussians = random_gaussians(50, 0, activation)
    gaussians.raw_scaling[:] = -30.0
    assert bool((gaussians.scaling >= 0.01).all())


@given(seed=st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_covariance_has_the_scales_as_axes(seed):
    gaussians = random_gaussians(5, seed)
    xx, xy, xz, yy, yz, zz = gaussians.covariance6.double().unbind(-1)
    covariance = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).unflatten(-1, (3, 3))
    axes = quaternion_matrices(gaussians.quat_wxyz.double())
    torch.testing.assert_close(axes @ axes.transpose(1, 2), torch.eye(3).double().expand(5, 3, 3), rtol=0, atol=1e-6)
    assert bool((torch.linalg.det(axes) > 0.999).all())
    inner = axes.transpose(1, 2) @ covariance @ axes
    expected = torch.diag_embed(gaussians.scaling.double().square())
    torch.testing.assert_close(inner, expected, rtol=1e-4, atol=1e-6)


def test_quaternion_matrix_of_a_known_turn():
    half = math.sqrt(0.5)
    turn = quaternion_matrices(torch.tensor([half, 0.0, 0.0, half]))  # a quarter about z: x -> y
    torch.testing.assert_close(turn @ torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 1, 0]), rtol=0, atol=1e-6)


def test_ply_holds_what_renderers_expect():
    gaussians = random_gaussians(7, 3)
    table = read_ply(gaussians.ply_bytes())
    assert table.dtype.names == PLY_PROPERTIES
    for column, axis in zip(gaussians.xyz.T, "xyz", strict=True):
        np.testing.assert_array_equal(table[axis], column.numpy())
        assert not table[f"n{axis}"].any()
    np.testing.assert_allclose(1 / (1 + np.exp(-table["opacity"])), gaussians.opacity[:, 0], rtol=1e-5)
    for i in range(3):
        np.testing.assert_allclose(np.exp(table[f"scale_{i}"]), gaussians.scaling[:, i], rtol=1e-5)
        np.testing.assert_array_equal(table[f"f_dc_{i}"], gaussians.features_dc[:, 0, i])
    for i in range(4):
        np.testing.assert_array_equal(table[f"rot_{i}"], gaussians.quat_wxyz[:, i])


def test_ply_with_y_up_turns_centres_and_axes_together():
    gaussians = random_gaussians(6, 4)
    table = read_ply(gaussians.ply_bytes("y_up"))
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    xyz = np.stack([table[axis] for axis in "xyz"], axis=-1)
    np.testing.assert_allclose(xyz, gaussians.xyz @ turn.T, atol=1e-7)
    quat = torch.from_numpy(np.stack([table[f"rot_{i}"] for i in range(4)], axis=-1).copy())
    wanted = turn @ quaternion_matrices(gaussians.quat_wxyz)
    torch.testing.assert_close(quaternion_matrices(quat), wanted, rtol=0, atol=1e-5)


def test_a_saturated_opacity_stays_finite_in_the_file():
    gaussians = random_gaussians(3, 5)
    gaussians.raw_opacity[:] = 60.0
    assert np.isfinite(read_ply(gaussians.ply_bytes())["opacity"]).all()


def test_wrong_options_are_named():
    with pytest.raises(InputError, match="relu"):
        GaussianActivation("relu")
    with pytest.raises(InputError, match="opacity_bias"):
        GaussianActivation(opacity_bias=1.0)
    with pytest.raises(InputError, match="x_up"):
        random_gaussians(1, 0).ply_bytes("x_up")  # type: ignore[arg-type]
