"""The feed-forward U-Net: shapes, reach, precision, refusals."""

from __future__ import annotations

import pytest
import torch

from gena3d_core.checkpoints.presets import UNETS, random_bundle, random_unet
from gena3d_core.errors import InputError
from gena3d_core.models.completion_unet import CompletionUNet, CompletionUNetConfig

SMALL = CompletionUNetConfig(16, (8, 12, 16), patch_size=2)


def cloud(batch, side=16, seed=0):
    return (torch.rand(batch, 1, side, side, side, generator=torch.Generator().manual_seed(seed)) < 0.1).float()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return CompletionUNet(SMALL).eval()


@pytest.mark.parametrize("channels", [(8,), (8, 12), (8, 12, 16)])
@torch.no_grad()
def test_every_depth_gives_logits_of_each_voxel_and_rows_stand_alone(channels):
    torch.manual_seed(0)
    network = CompletionUNet(CompletionUNetConfig(16, channels, patch_size=2)).eval()
    x = cloud(3)
    logits = network(x)
    assert logits.shape == x.shape
    assert logits.dtype == torch.float32
    torch.testing.assert_close(network(x[1:2]), logits[1:2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_one_voxel_reaches_the_opposite_corner(network):
    x = torch.zeros(1, 1, 16, 16, 16)
    moved = x.clone()
    moved[0, 0, 0, 0, 0] = 1.0
    change = (network(moved) - network(x)).abs()[0, 0]
    assert change[-1, -1, -1] > 0


@torch.no_grad()
def test_the_finest_level_reaches_the_result_beside_the_coarser_ones(network):
    network.initialise()  # residual blocks are nothing: only the first and the last convolution mix cells
    for rise in network.blocks["rise"]:
        rise.conv.weight.zero_()
        rise.conv.bias.zero_()
    x = cloud(1)
    moved = x.clone()
    moved[0, 0, 8, 8, 8] = 1.0 - moved[0, 0, 8, 8, 8]
    change = (network(moved) - network(x)).abs()[0, 0]
    assert change[8, 8, 8] > 1e-4
    assert change[0, 0, 0] == 0  # what comes over the skip alone is local


def test_training_reaches_every_parameter(network):
    network.initialise()
    x = cloud(2)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2)
    for _ in range(2):  # second convolutions of residual blocks start as nothing and hold back the first
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(x), x).backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@torch.no_grad()
def test_half_precision_of_the_blocks_only(network):
    x = cloud(2)
    wanted = network(x)
    network.set_precision(torch.bfloat16)
    assert network.input_layer.weight.dtype == network.out_layer.weight.dtype == torch.float32
    assert network.blocks["middle"][0].conv1.weight.dtype == torch.bfloat16
    found = network(x)
    assert found.dtype == torch.float32
    assert 0 < (found - wanted).abs().max() < 0.1 * wanted.abs().max()


def test_what_it_refuses(network):
    with pytest.raises(InputError, match=r"\(B, 1, 16, 16, 16\), got \(1, 1, 8, 8, 8\)"):
        network(cloud(1, 8))
    with pytest.raises(InputError, match="multiple of 16"):
        CompletionUNet(CompletionUNetConfig(24, (4, 4, 4)))
    with pytest.raises(InputError, match="width"):
        CompletionUNet(CompletionUNetConfig(16, ()))
    with pytest.raises(InputError, match="size 'huge', one of tiny, edge"):
        random_unet("huge")


def test_the_edge_size_is_that_of_the_edge_model():
    with torch.device("meta"):
        ours = sum(p.numel() for p in CompletionUNet(UNETS["edge"]).parameters())
    theirs = sum(p.numel() for m in random_bundle("edge").modules.values() for p in m.parameters())
    assert ours <= 16e6
    assert ours == pytest.approx(theirs, rel=0.1)
