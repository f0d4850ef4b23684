"""Structured-latent VAE: windows of the trunk, encoder, decoders."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gena3d_core.errors import InputError
from gena3d_core.models.structured_latent_decoders import (
    GaussianDecoderConfig,
    StructuredLatentGaussianDecoder,
    StructuredLatentMeshDecoder,
    StructuredLatentRadianceFieldDecoder,
    hammersley,
)
from gena3d_core.models.structured_latent_vae import (
    StructuredLatentEncoder,
    StructuredLatentVAEConfig,
    VoxelTransformer,
)
from gena3d_core.nn.sparse import SparseTensor, concatenate

CONFIG = StructuredLatentVAEConfig(
    resolution=16, model_channels=32, latent_channels=4, num_blocks=2, in_channels=6, num_heads=4, window_size=4
)
MESH_CONFIG = replace(CONFIG, model_channels=256, num_blocks=1, mlp_ratio=1.0)


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module.eval()


def sample_of(cells: int, channels: int, seed: int, resolution: int = 16) -> SparseTensor:
    g = torch.Generator().manual_seed(seed)
    flat = torch.randperm(resolution**3, generator=g)[:cells]
    ijk = torch.stack([flat // resolution**2, flat // resolution % resolution, flat % resolution], dim=-1)
    coords = torch.cat([torch.zeros(cells, 1, dtype=torch.long), ijk], dim=-1).int()
    return SparseTensor.create(coords, torch.randn(cells, channels, generator=g))


def reach_of(network: VoxelTransformer, x: SparseTensor) -> Tensor:
    """(N, N) bool: whether a change of the input in one row changes the output in another."""
    rows = []
    base = network(x).feats
    for i in range(len(x.feats)):
        feats = x.feats.clone()
        feats[i] += 1.0
        rows.append(((network(x.replace(feats)).feats - base).abs() > 1e-6).any(dim=1))
    return torch.stack(rows)


@torch.no_grad()
@pytest.mark.parametrize(("attn_mode", "window", "blocks"), [("swin", 4, 1), ("swin", 5, 2), ("full", 4, 1)])
def test_voxels_see_their_window_and_no_others(attn_mode, window, blocks):
    config = replace(CONFIG, num_blocks=blocks, attn_mode=attn_mode, window_size=window)
    network = randomised(VoxelTransformer(config, 4, 4))
    x = concatenate([sample_of(30, 4, 1), sample_of(20, 4, 2)])
    cell = x.coords.clone()
    seen = torch.eye(50, dtype=torch.bool)
    for block in range(blocks):
        shift = window // 2 if block % 2 else 0
        cell[:, 1:] = 0 if attn_mode == "full" else (x.coords[:, 1:] + shift) // window
        together = (cell[:, None] == cell[None]).all(dim=-1)
        seen = (seen.float() @ together.float()) > 0
    assert torch.equal(reach_of(network, x), seen)


@torch.no_grad()
def test_encoder_gives_the_posterior_of_each_sample():
    encoder = randomised(StructuredLatentEncoder(replace(CONFIG, qk_rms_norm=True)))
    parts = [sample_of(30, 6, 1), sample_of(50, 6, 2)]
    posterior = encoder(concatenate(parts))
    noise = torch.randn(80, 4)
    expected = posterior.mean.feats + posterior.logvar.feats.exp().sqrt() * noise
    torch.testing.assert_close(posterior.sample(noise).feats, expected)
    alone = encoder(parts[1])
    torch.testing.assert_close(posterior.mean.samples()[1], alone.mean.feats, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("use_color", [False, True])
def test_mesh_decoder_describes_every_voxel_of_the_fine_grid(use_color):
    decoder = randomised(StructuredLatentMeshDecoder(MESH_CONFIG, use_color=use_color))
    parts = [sample_of(6, 4, 1), sample_of(9, 4, 2)]
    found = decoder(concatenate(parts))
    assert found.feats.shape == (64 * 15, 101 if use_color else 53)
    assert decoder.fine_resolution == 64
    parents, counts = torch.unique(
        torch.cat([found.coords[:, :1], found.coords[:, 1:] // 4], 1), dim=0, return_counts=True
    )
    assert (counts == 64).all()
    assert torch.equal(parents, torch.unique(concatenate(parts).coords, dim=0))
    torch.testing.assert_close(found.samples()[1], decoder(parts[1]).feats, rtol=1e-3, atol=1e-3)


def test_fresh_decoders_start_at_nothing_and_learn():
    torch.manual_seed(0)
    x = sample_of(6, 4, 1)
    for decoder in (
        StructuredLatentMeshDecoder(MESH_CONFIG, use_color=True),
        StructuredLatentGaussianDecoder(CONFIG, GaussianDecoderConfig(4)),
        StructuredLatentRadianceFieldDecoder(CONFIG, rank=2, dim=3),
    ):
        decoder.initialise()
        features = decoder.network(x) if decoder.network.out_layer is not None else decoder(x)
        assert not features.feats.any()
        randomised(decoder)
        features = decoder.network(x) if decoder.network.out_layer is not None else decoder(x)
        features.feats.square().mean().backward()
        assert [n for n, p in decoder.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_gaussians_stay_around_their_voxel():
    config = GaussianDecoderConfig(5, voxel_size=1.25, lr={"rotation": 0.1})
    decoder = randomised(StructuredLatentGaussianDecoder(CONFIG, config))
    parts = [sample_of(30, 4, 1), sample_of(50, 4, 2)]
    found = decoder(concatenate(parts))
    assert [len(g) for g in found] == [150, 250]
    for own, part in zip(found, parts, strict=True):
        centre = (part.coords[:, None, 1:] + 0.5) / 16 - 0.5
        apart = (own.xyz.unflatten(0, (-1, 5)) - centre).abs()
        assert apart.max() <= 0.5 * 1.25 / 16 + 1e-6
        assert apart.max() > 0.3 / 16
    torch.testing.assert_close(found[1].covariance6, decoder(parts[1])[0].covariance6, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def test_untrained_gaussians_are_spread_inside_the_voxel():
    torch.manual_seed(0)
    decoder = StructuredLatentGaussianDecoder(CONFIG, GaussianDecoderConfig(8, voxel_size=1.5))
    decoder.initialise()
    x = sample_of(3, 4, 1)
    own = decoder(x)[0]
    offset = own.xyz.unflatten(0, (-1, 8)) - ((x.coords[:, None, 1:] + 0.5) / 16 - 0.5)
    torch.testing.assert_close(offset, ((hammersley(8) - 0.5) / 16).expand(3, 8, 3), rtol=0, atol=1e-6)
    plain = StructuredLatentGaussianDecoder(CONFIG, GaussianDecoderConfig(8, perturb_offset=False))
    plain.initialise()
    assert torch.allclose(plain(x)[0].xyz.unflatten(0, (-1, 8)), (x.coords[:, None, 1:] + 0.5) / 16 - 0.5)


@torch.no_grad()
def test_radiance_fields_are_cut_from_the_features_in_order():
    decoder = randomised(StructuredLatentRadianceFieldDecoder(CONFIG, rank=3, dim=5))
    x = concatenate([sample_of(10, 4, 1), sample_of(7, 4, 2)])
    raw, found = decoder.network(x).feats, decoder(x)
    assert [len(f) for f in found] == [10, 7]
    second = found[1]
    torch.testing.assert_close(second.trivec.flatten(1), raw[10:, :45] + 1)
    torch.testing.assert_close(second.density, raw[10:, 45:48])
    torch.testing.assert_close(second.features_dc.flatten(1), raw[10:, 48:])
    assert second.features_dc.shape == (7, 3, 1, 3)
    torch.testing.assert_close(second.voxel_size, torch.full((7, 1), 1 / 16))
    assert bool(((second.position - (x.coords[10:, 1:] + 0.5) / 16).abs() < 1e-7).all())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    decoder, x = randomised(StructuredLatentMeshDecoder(MESH_CONFIG)), sample_of(6, 4, 1)
    for parameter in decoder.parameters():
        parameter.mul_(0.2)
    exact = decoder(x).feats
    decoder.set_precision(dtype)
    half = decoder(x).feats
    assert half.dtype == torch.float32
    assert (half - exact).abs().mean() < 0.05 * exact.abs().mean()


@given(st.integers(1, 200))
@settings(max_examples=25, deadline=None)
def test_hammersley_points_fill_every_slab(count):
    points = hammersley(count)
    assert points.shape == (count, 3)
    assert bool(((points >= 0) & (points < 1)).all())
    for axis, base in ((0, 1), (1, 2), (2, 3)):
        # Points of the first b^k indices fall into b^k different slabs of equal width.
        slabs = count if base == 1 else base ** int(torch.tensor(float(count)).log() / torch.tensor(float(base)).log())
        cells = (points[:slabs, axis] * slabs + 1e-4).floor()
        assert len(cells.unique()) == slabs


def test_wrong_sizes_are_named():
    with pytest.raises(InputError, match="shift_order"):
        replace(CONFIG, attn_mode="shift_order")
    with pytest.raises(InputError, match="window_size"):
        replace(CONFIG, window_size=0)
    with pytest.raises(InputError, match="heads"):
        replace(CONFIG, num_heads=5)
    with pytest.raises(InputError, match="in_channels"):
        StructuredLatentEncoder(replace(CONFIG, in_channels=None))
    with pytest.raises(InputError, match="multiples of 32"):
        StructuredLatentMeshDecoder(CONFIG)
    with pytest.raises(InputError, match="6 channels, got 4"):
        StructuredLatentEncoder(CONFIG)(sample_of(5, 4, 0))
