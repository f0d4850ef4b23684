import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.precision import cast_matrix_layers, matrix_dtype
from gena3d_core.nn.sparse import SparseTensor, SubmanifoldConv3d, concatenate, convolution
from gena3d_core.nn.sparse.convolution import neighbour_pairs, neighbour_table, sum_by_offset, sum_gathered

GRID = (6, 7, 5)
METHODS = [sum_by_offset, sum_gathered]


@pytest.fixture(params=METHODS)
def method(request, monkeypatch):
    """Both ways to sum, whatever the device."""
    monkeypatch.setattr(convolution, "_neighbour_sum", request.param)
    return request.param


def dense_convolution(x, weight, bias, dense):
    """torch's own 3-D convolution of the dense grid, read at the occupied cells."""
    out = F.conv3d(dense(x, GRID), weight.movedim(-1, 1), bias, padding=1)
    b, i, j, k = x.coords.long().unbind(1)
    return out[b, :, i, j, k]


@pytest.mark.usefixtures("method")
@pytest.mark.parametrize("fill", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("block_rows", [7, convolution.BLOCK_ROWS])
def test_equals_dense_convolution_and_its_gradient(make, dense, fill, block_rows, monkeypatch):
    monkeypatch.setattr(convolution, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(convolution, "GATHER_BYTES", 27 * 4 * 8 * block_rows)
    torch.manual_seed(0)
    x, layer = make(4, grid=GRID, fill=fill, dtype=torch.float64), SubmanifoldConv3d(4, 6).double()
    parameters = [layer.conv.weight, layer.conv.bias]
    gradients = []
    for convolve in (lambda x: layer(x).feats, lambda x: dense_convolution(x, *parameters, dense)):
        feats = x.feats.clone().requires_grad_()
        found = convolve(x.replace(feats))
        cotangent = torch.arange(found.numel()).view_as(found).cos()
        gradients.append([found, *torch.autograd.grad((found * cotangent).sum(), [feats, *parameters])])
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_only_the_gradients_asked_for_are_made(make):
    x, layer = make(4), SubmanifoldConv3d(4, 6)
    feats = x.feats.clone().requires_grad_()
    layer.requires_grad_(False)
    layer(x.replace(feats)).feats.sum().backward()
    assert feats.grad is not None
    assert layer.conv.weight.grad is None
    layer.requires_grad_(True)
    layer(x).feats.sum().backward()
    assert layer.conv.weight.grad is not None


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_order_of_rows_does_not_matter(make, data):
    x = make(3, batch=1, fill=data.draw(st.floats(0, 0.6)), seed=data.draw(st.integers(0, 10**6)))
    order = torch.tensor(data.draw(st.permutations(range(len(x.feats)))))
    torch.manual_seed(0)
    layer = SubmanifoldConv3d(3, 2)
    permuted = SparseTensor.create(x.coords[order], x.feats[order])
    torch.testing.assert_close(layer(permuted).feats, layer(x).feats[order])


def test_translation_does_not_matter(make):
    x = make(3, batch=1)
    layer = SubmanifoldConv3d(3, 2)
    moved = SparseTensor.create(x.coords + torch.tensor([0, 900, 1, 70]), x.feats)
    torch.testing.assert_close(layer(moved).feats, layer(x).feats)


def test_samples_do_not_see_one_another(make):
    parts = [make(3, batch=1, seed=seed) for seed in range(3)]
    layer = SubmanifoldConv3d(3, 2)
    alone = torch.cat([layer(part).feats for part in parts])
    torch.testing.assert_close(layer(concatenate(parts)).feats, alone)


@pytest.mark.parametrize(
    "cells", [[[0, 0, 0, 4], [0, 0, 1, 0]], [[0, 0, 4, 4], [0, 1, 0, 0]], [[0, 3, 4, 4], [1, 0, 0, 0]]]
)
def test_neighbours_end_at_the_border(cells):
    """Cells that follow one another in the raster, though they lie at opposite ends of lines, planes or samples."""
    x = SparseTensor.create(torch.tensor(cells), torch.zeros(2, 1))
    assert neighbour_pairs(x.geometry) == {}
    assert (neighbour_table(x.geometry)[:, 13] == torch.arange(2)).all()


def test_single_voxel_sees_itself():
    layer = SubmanifoldConv3d(3, 2)
    x = SparseTensor.create(torch.tensor([[0, 5, 6, 7]]), torch.randn(1, 3))
    wanted = F.linear(x.feats, layer.conv.weight[:, 1, 1, 1], layer.conv.bias)
    torch.testing.assert_close(layer(x).feats, wanted)


def test_neighbours_are_found_once(make):
    x = make(3)
    assert neighbour_pairs(x.geometry) is neighbour_pairs(x.replace(x.feats * 2).geometry)
    assert neighbour_table(x.geometry) is neighbour_table(x.geometry)


def test_one_cube_reads_its_memory_as_asked(make):
    x = make(3)
    published, plain = (SubmanifoldConv3d(3, 2, kernel=1, spconv_layout=option) for option in (True, False))
    plain.load_state_dict(published.state_dict())
    memory = published.conv.weight.detach().flatten()
    bias = published.conv.bias
    torch.testing.assert_close(published(x).feats, x.feats @ memory.view(3, 2) + bias)
    torch.testing.assert_close(plain(x).feats, x.feats @ memory.view(2, 3).t() + bias)
    assert not torch.allclose(published(x).feats, plain(x).feats)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.usefixtures("method")
def test_half_precision_is_near(make, dtype, tolerance):
    torch.manual_seed(0)
    x, layer = make(16), SubmanifoldConv3d(16, 8)
    wanted = layer(x).feats
    found = layer.to(dtype)(x.replace(x.feats.to(dtype))).feats
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, atol=tolerance * float(wanted.detach().abs().max()), rtol=0)


def test_precision_of_the_model_reaches_it():
    block = torch.nn.Sequential(SubmanifoldConv3d(3, 2), torch.nn.LayerNorm(2))
    cast_matrix_layers(block, torch.bfloat16)
    assert block[0].conv.weight.dtype == matrix_dtype(block) == torch.bfloat16
    assert block[1].weight.dtype == torch.float32


def test_wrong_sizes_are_refused(make):
    with pytest.raises(InputError, match="kernel 1 or 3"):
        SubmanifoldConv3d(3, 2, kernel=5)
    with pytest.raises(InputError, match="of 4 channels"):
        SubmanifoldConv3d(4, 2)(make(3))
