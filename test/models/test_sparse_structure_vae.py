"""Sparse-structure VAE: shapes, the published formulas written out, precision, published parameters."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gena3d_core.checkpoints.cases.sparse_structure import occupied_comparison
from gena3d_core.checkpoints.golden import Tolerance, compare_case, read_case
from gena3d_core.checkpoints.key_maps import rename
from gena3d_core.checkpoints.load import check_keys
from gena3d_core.checkpoints.published import build_published
from gena3d_core.errors import InputError
from gena3d_core.models.sparse_structure_vae import (
    Posterior,
    ResidualBlock,
    SparseStructureDecoder,
    SparseStructureDecoderConfig,
    SparseStructureEncoder,
    SparseStructureEncoderConfig,
    deal_to_children,
    gather_cubes,
    occupied_voxels,
)
from gena3d_core.objectives import sparse_structure_vae_loss

ENCODER = SparseStructureEncoderConfig(1, 4, 1, (4, 8, 12), 1)
DECODER = SparseStructureDecoderConfig(1, 4, 1, (12, 8, 4), 1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def encoder() -> SparseStructureEncoder:
    torch.manual_seed(0)
    return SparseStructureEncoder(ENCODER).eval()


@pytest.fixture
def decoder() -> SparseStructureDecoder:
    torch.manual_seed(1)
    return SparseStructureDecoder(DECODER).eval()


def occupancy(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.8).float()


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("batch", [1, 3])
def test_grids_shrink_four_times_and_grow_back(
    encoder: SparseStructureEncoder, decoder: SparseStructureDecoder, size: int, batch: int
) -> None:
    posterior = encoder(occupancy(batch, 1, size, size, size))
    assert posterior.mean.shape == posterior.logvar.shape == (batch, 4, size // 4, size // 4, size // 4)
    logits = decoder(posterior.mean)
    assert logits.shape == (batch, 1, size, size, size)
    assert logits.is_contiguous()


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    shape = (1, -1, 1, 1, 1)
    return (x - mean) / torch.sqrt(var + 1e-5) * weight.reshape(shape) + bias.reshape(shape)


def written_out(state: dict[str, Tensor], x: Tensor, parts: list[str], change: str) -> Tensor:
    """The network from its formulas in float64; parts are residual blocks or, after 'change:', changes of level."""

    def conv(x: Tensor, name: str, **kind: int) -> Tensor:
        return F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], **kind)

    def activated(x: Tensor, name: str) -> Tensor:
        h = channel_norm(x, state[f"{name}.weight"], state[f"{name}.bias"])
        return h * torch.sigmoid(h)

    x = conv(x, "input_layer", padding=1)
    for part in parts:
        name = part.removeprefix("change:")
        if name == part:
            h = conv(activated(x, f"{name}.norm1"), f"{name}.conv1", padding=1)
            x = x + conv(activated(h, f"{name}.norm2"), f"{name}.conv2", padding=1)
        elif change == "down":
            x = conv(x, f"{name}.conv", stride=2)
        else:
            h = conv(x, f"{name}.conv", padding=1)
            x = torch.zeros(len(h), h.shape[1] // 8, *(2 * side for side in h.shape[2:]), dtype=h.dtype)
            for a, b, d in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist():
                x[:, :, a::2, b::2, d::2] = h[:, (a * 2 + b) * 2 + d :: 8]
    return conv(activated(x, "out_layer.0"), "out_layer.2", padding=1)


def test_networks_equal_their_formulas(encoder: SparseStructureEncoder, decoder: SparseStructureDecoder) -> None:
    for network in (encoder, decoder):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    x, z = occupancy(2, 1, 8, 8, 8), torch.randn(2, 4, 2, 2, 2)
    down = ["blocks.0", "change:blocks.1", "blocks.2", "change:blocks.3", "blocks.4", "middle_block.0"]
    wanted = written_out({k: v.double() for k, v in encoder.state_dict().items()}, x.double(), down, "down")
    torch.testing.assert_close(torch.cat(encoder(x), dim=1).double(), wanted, atol=1e-5, rtol=1e-5)
    up = ["middle_block.0", "blocks.0", "change:blocks.1", "blocks.2", "change:blocks.3", "blocks.4"]
    wanted = written_out({k: v.double() for k, v in decoder.state_dict().items()}, z.double(), up, "up")
    torch.testing.assert_close(decoder(z).double(), wanted, atol=1e-5, rtol=1e-5)


def test_channels_go_to_the_children_in_order() -> None:
    x = torch.arange(16.0).reshape(1, 16, 1, 1, 1)
    assert torch.equal(deal_to_children(x), torch.arange(16.0).reshape(1, 2, 2, 2, 2))


@pytest.mark.parametrize("side", [1, 2, 4])
def test_cubes_become_channels_and_voxels_again(side: int) -> None:
    x = torch.randn(2, 3, 8, 4, 8)
    cubes = gather_cubes(x, side)
    assert cubes.shape == (2, 3 * side**3, 8 // side, 4 // side, 8 // side)
    assert torch.equal(cubes[1, 2 * side**3 :, 0, 0, 1].flatten(), x[1, 2, :side, :side, side : 2 * side].flatten())
    assert torch.equal(deal_to_children(cubes, side), x)


def test_patches_divide_the_resolution_of_both_networks() -> None:
    encoder = SparseStructureEncoder(replace(ENCODER, channels=(8, 12), patch_size=4)).eval()
    decoder = SparseStructureDecoder(replace(DECODER, channels=(12, 8), patch_size=4)).eval()
    assert encoder.config.scale == decoder.config.scale == 8
    mean = encoder(occupancy(2, 1, 16, 16, 16)).mean
    assert mean.shape == (2, 4, 2, 2, 2)
    assert decoder(mean).shape == (2, 1, 16, 16, 16)
    with pytest.raises(InputError, match="multiple of 8"):
        encoder(torch.zeros(1, 1, 12, 12, 12))


def test_batched_equals_one_by_one(encoder: SparseStructureEncoder, decoder: SparseStructureDecoder) -> None:
    x = occupancy(3, 1, 8, 8, 8)
    together = encoder(x).mean
    apart = torch.cat([encoder(x[i : i + 1]).mean for i in range(3)])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoder(together), torch.cat([decoder(z[None]) for z in together]), atol=1e-5, rtol=1e-5)


def test_posterior_samples_by_reparametrisation() -> None:
    posterior = Posterior(torch.full((2,), 3.0), torch.log(torch.tensor([4.0, 0.25])))
    torch.testing.assert_close(posterior.sample(torch.tensor([1.0, -1.0])), torch.tensor([5.0, 2.5]))


def test_occupied_voxels_are_listed_in_row_major_order() -> None:
    logits = -torch.ones(2, 1, 3, 3, 3)
    rows = torch.tensor([[0, 0, 2, 1], [0, 1, 0, 0], [1, 0, 0, 2], [1, 2, 2, 2]], dtype=torch.int32)
    logits[rows[:, 0].long(), 0, rows[:, 1].long(), rows[:, 2].long(), rows[:, 3].long()] = 0.1
    logits[0, 0, 0, 0, 0] = 0  # the threshold itself is empty
    found = occupied_voxels(logits)
    assert torch.equal(found, rows)
    assert found.dtype == torch.int32
    assert found.is_contiguous()


def test_fresh_residual_blocks_do_nothing(encoder: SparseStructureEncoder) -> None:
    encoder.initialise()
    x = torch.randn(1, 4, 8, 8, 8)
    block = encoder.blocks[0]
    assert isinstance(block, ResidualBlock)
    assert torch.equal(block(x), x)
    assert bool((block.conv1.weight != 0).any())
    assert bool((block.norm1.weight == 1).all())


# Layer norms over 4 channels amplify rounding; networks of real width stay under 0.01 in bfloat16.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.06), (torch.float16, 0.01)])
def test_half_precision_is_in_the_blocks_only(
    encoder: SparseStructureEncoder, decoder: SparseStructureDecoder, dtype: torch.dtype, tolerance: float
) -> None:
    x = occupancy(1, 1, 8, 8, 8)
    with torch.no_grad():
        wanted = encoder(x)
        logits = decoder(wanted.mean)
    for network in (encoder, decoder):
        network.requires_grad_(False).set_precision(dtype)
        halves = {name for name, p in network.named_parameters() if p.dtype == dtype}
        assert halves == {
            name for name, _ in network.named_parameters() if "blocks" in name or "middle" in name if "conv" in name
        }
    found = encoder(x)
    assert found.mean.dtype == torch.float32
    for ours, exact in ((found.mean, wanted.mean), (decoder(wanted.mean), logits)):
        assert float((ours - exact).norm() / exact.norm()) < tolerance


def test_group_norm_concerns_the_output_layer_only() -> None:
    config = SparseStructureEncoderConfig(1, 4, 1, (8, 64), 1, norm_type="group")
    encoder = SparseStructureEncoder(config)
    kinds = [type(m).__name__ for m in encoder.modules() if "Norm" in type(m).__name__]
    assert kinds.count("ChannelGroupNorm32") == 1
    norm = encoder.out_layer[0]
    assert isinstance(norm, torch.nn.GroupNorm)
    assert (norm.num_groups, norm.eps) == (32, 1e-5)
    assert encoder(occupancy(1, 1, 4, 4, 4)).mean.shape == (1, 4, 2, 2, 2)
    with pytest.raises(InputError, match="multiple of 32"):
        SparseStructureEncoder(SparseStructureEncoderConfig(1, 4, 1, (8, 12), 1, norm_type="group"))


def test_bad_shapes_are_named(encoder: SparseStructureEncoder, decoder: SparseStructureDecoder) -> None:
    with pytest.raises(InputError, match="multiple of 4"):
        encoder(torch.zeros(1, 1, 6, 6, 6))
    with pytest.raises(InputError, match=r"\(B, 1, R, R, R\)"):
        encoder(torch.zeros(1, 8, 8, 8))
    with pytest.raises(InputError, match=r"\(B, 4, r, r, r\)"):
        decoder(torch.zeros(1, 8, 4, 4, 4))
    with pytest.raises(InputError, match="channels"):
        SparseStructureEncoder(SparseStructureEncoderConfig(1, 4, 1, ()))


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    torch.manual_seed(0)
    encoder, decoder = SparseStructureEncoder(ENCODER), SparseStructureDecoder(DECODER)
    encoder.initialise()
    decoder.initialise()
    grid = torch.arange(8)
    ball = (torch.cartesian_prod(grid, grid, grid) - 3.5).norm(dim=1).reshape(1, 1, 8, 8, 8).lt(3).float()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-2)
    history = []
    for _ in range(25):
        posterior = encoder(ball)
        logits = decoder(posterior.sample(torch.randn_like(posterior.mean)))
        loss = sparse_structure_vae_loss(logits, ball, *posterior)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(float(loss))
    assert history[-1] < 0.4 * history[0]
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in parameters)


@pytest.mark.parametrize("file", ["trellis_ss_enc_conv3d_16l8_fp16.json", "trellis_ss_dec_conv3d_16l8_fp16.json"])
def test_published_parameters_have_our_names_shapes_and_types(keys_dir: Path, file: str) -> None:
    published = json.loads((keys_dir / file).read_text())
    with torch.device("meta"):
        module, key_map = build_published(published["class"], published["constructor"])
    tensors = {
        name: torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
        for name, (shape, dtype) in published["tensors"].items()
    }
    renamed = rename(tensors, key_map)
    check_keys(module, {name: tuple(tensor.shape) for name, tensor in renamed.items()}, file)
    assert {k: v.dtype for k, v in module.state_dict().items()} == {k: v.dtype for k, v in renamed.items()}
    assert sum(p.numel() for p in module.parameters()) == published["n_parameters"]


def test_published_numbers(golden_dir: Path) -> None:
    from gena3d_core.checkpoints.cases import runner_for

    case = read_case(golden_dir / "b_ss_vae")
    runner = runner_for(case)
    assert runner is not None
    found = compare_case(case, runner(case))
    assert {name for name, difference in found.items() if not difference.ok} == set()


def test_voxel_lists_may_differ_at_the_threshold_only() -> None:
    logits = torch.tensor([[1.0, 5e-5], [-5e-5, -1.0]]).reshape(1, 1, 1, 2, 2)
    compare, tolerance = occupied_comparison(logits), Tolerance(1e-4, 0.0)
    theirs = occupied_voxels(logits)
    assert theirs.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1]]
    flipped = theirs[:1]
    both = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.int32)
    for ours in (theirs, flipped, both):
        assert compare(ours, theirs, tolerance).ok
    assert compare(both, theirs, tolerance).max_abs == pytest.approx(5e-5)
    wrong = torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]], dtype=torch.int32)
    for ours in (theirs[1:], wrong, torch.cat([theirs, wrong[1:]]), theirs.clone().fill_(9), theirs[:, :3], theirs[:0]):
        assert not compare(ours, theirs, tolerance).ok
    difference = compare(wrong, theirs, tolerance)
    assert difference.max_abs == 1.0
    rows = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.int32)
    sure = torch.ones(1, 1, 1, 2, 2)
    assert not occupied_comparison(sure)(rows, rows.flip(0), tolerance).ok
