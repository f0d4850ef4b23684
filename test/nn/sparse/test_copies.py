"""Convolution of copied features against copying first."""

import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.nn.sparse import SparseTensor, SubmanifoldConv3d, concatenate, downsample, subdivide, upsample
from gena3d_core.nn.sparse import copies as module
from gena3d_core.nn.sparse.copies import convolve_copies, subdivided_copies, upsampled_copies


def sample_of(cells: int, channels: int, seed: int, side: int = 7) -> SparseTensor:
    g = torch.Generator().manual_seed(seed)
    flat = torch.randperm(side**3, generator=g)[:cells]
    ijk = torch.stack([flat // side**2, flat // side % side, flat % side], dim=-1)
    coords = torch.cat([torch.zeros(cells, 1, dtype=torch.long), ijk], dim=-1)
    return SparseTensor.create(coords, torch.randn(cells, channels, generator=g))


@pytest.mark.parametrize("held_bytes", [1, 30_000, 2**28])
def test_subdivided_and_upsampled_cells_of_one_geometry(monkeypatch, held_bytes):
    monkeypatch.setattr(module, "GATHER_BYTES", held_bytes)
    torch.manual_seed(0)
    conv = SubmanifoldConv3d(6, 5)
    x = concatenate([sample_of(40, 6, 1), sample_of(90, 6, 2)])
    fine = subdivide(x)
    torch.testing.assert_close(convolve_copies(conv, x, subdivided_copies(x)).feats, conv(fine).feats)
    # The same cells again, whose parents now come in lexicographic order.
    parents = downsample(fine.replace(torch.randn(len(fine.coords), 6)))
    wanted = conv(upsample(parents, fine)).feats
    torch.testing.assert_close(convolve_copies(conv, parents, upsampled_copies(fine)).feats, wanted)


def test_gradients_are_those_of_copying_first():
    torch.manual_seed(0)
    conv, x = SubmanifoldConv3d(3, 4), sample_of(30, 3, 1)
    found = []
    for fused in (True, False):
        conv.zero_grad()
        feats = x.feats.clone().requires_grad_()
        h = x.replace(feats)
        out = convolve_copies(conv, h, subdivided_copies(h)) if fused else conv(subdivide(h))
        out.feats.square().sum().backward()
        found.append((feats.grad, conv.conv.weight.grad.clone(), conv.conv.bias.grad.clone()))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision(dtype, error):
    torch.manual_seed(0)
    conv, x = SubmanifoldConv3d(8, 8), sample_of(60, 8, 1)
    exact = conv(subdivide(x)).feats
    conv.to(dtype)
    half = convolve_copies(conv, x.replace(x.feats.to(dtype)), subdivided_copies(x)).feats
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < error * exact.abs().max()


def test_what_does_not_fit_is_named():
    x = sample_of(10, 4, 0)
    with pytest.raises(InputError, match="3-cube"):
        convolve_copies(SubmanifoldConv3d(4, 4, 1), x, subdivided_copies(x))
    with pytest.raises(InputError, match="5 channels"):
        convolve_copies(SubmanifoldConv3d(5, 4), x, subdivided_copies(x))
