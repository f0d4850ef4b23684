import pytest
import torch
import torch.nn.functional as F

from gena3d_core.errors import InputError
from gena3d_core.nn.precision import cast_matrix_layers
from gena3d_core.nn.sparse import SparseResBlock3d, concatenate, downsample, upsample

GRID = (6, 7, 5)


def dense_block(block, x, embedding, dense):
    """The block's formula with torch's dense convolutions, for one already resampled tensor."""
    b, i, j, k = x.coords.long().unbind(1)

    def convolve(layer, feats):
        kernel = layer.conv.weight.movedim(-1, 1)
        return F.conv3d(dense(x.replace(feats), GRID), kernel, layer.conv.bias, padding=1)[b, :, i, j, k]

    scale, shift = block.emb_layers[1](F.silu(embedding))[x.batch_index].chunk(2, dim=1)
    h = F.layer_norm(x.feats, x.feats.shape[1:], block.norm1.weight, block.norm1.bias, 1e-6)
    h = convolve(block.conv1, F.silu(h))
    h = convolve(block.conv2, F.silu(F.layer_norm(h, h.shape[1:], eps=1e-6) * (1 + scale) + shift))
    return h + block.skip_connection(x.feats)


@pytest.mark.parametrize("out_channels", [None, 6])
@pytest.mark.parametrize("resample", [None, "down", "up"])
def test_equals_the_dense_formula(make, dense, out_channels, resample):
    torch.manual_seed(0)
    fine = make(4, grid=GRID)
    block = SparseResBlock3d(4, 8, out_channels, resample=resample)
    embedding = torch.randn(2, 8)
    if resample == "down":
        found, resampled = block(fine, embedding), downsample(fine)
    elif resample == "up":
        coarse = downsample(fine)
        found, resampled = block(coarse, embedding, fine), upsample(coarse, fine)
    else:
        found, resampled = block(fine, embedding), fine
    assert found.geometry is resampled.geometry
    torch.testing.assert_close(found.feats, dense_block(block, resampled, embedding, dense), atol=1e-5, rtol=1e-4)


def test_two_levels_down_and_up(make):
    torch.manual_seed(0)
    x, embedding = make(4, grid=(9, 9, 9)), torch.randn(2, 8)
    down = [SparseResBlock3d(4, 8, resample="down") for _ in range(2)]
    up = [SparseResBlock3d(4, 8, resample="up") for _ in range(2)]
    half = down[0](x, embedding)
    back = up[1](up[0](down[1](half, embedding), embedding, half), embedding, x)
    assert back.geometry is x.geometry
    assert back.feats.isfinite().all()


def test_batched_is_one_by_one(make):
    torch.manual_seed(0)
    block = SparseResBlock3d(4, 8, 6, resample="down")
    parts, embedding = [make(4, batch=1, seed=seed) for seed in range(3)], torch.randn(3, 8)
    alone = [block(part, embedding[n : n + 1]).feats for n, part in enumerate(parts)]
    torch.testing.assert_close(block(concatenate(parts), embedding).feats, torch.cat(alone), atol=1e-5, rtol=1e-4)


def test_gradient_reaches_every_parameter(make):
    block = SparseResBlock3d(4, 8, 6, resample="down")
    block(make(4), torch.randn(2, 8)).feats.square().sum().backward()
    for name, parameter in block.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_published_parameter_names():
    wanted = {"norm1", "conv1.conv", "conv2.conv", "emb_layers.1", "skip_connection"}
    assert {name.rsplit(".", 1)[0] for name in SparseResBlock3d(4, 8, 6).state_dict()} == wanted
    assert {name.rsplit(".", 1)[0] for name in SparseResBlock3d(4, 8).state_dict()} == wanted - {"skip_connection"}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)])
def test_half_precision_is_near(make, dtype, tolerance):
    torch.manual_seed(0)
    block, x, embedding = SparseResBlock3d(16, 8, 12, resample="down"), make(16), torch.randn(2, 8)
    wanted = block(x, embedding).feats
    cast_matrix_layers(block, dtype)
    assert block.norm1.weight.dtype == torch.float32
    found = block(x.replace(x.feats.to(dtype)), embedding.to(dtype)).feats
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, atol=tolerance * float(wanted.detach().abs().max()), rtol=0)


def test_the_finer_cells_are_needed_to_upsample_only(make):
    x, embedding = make(4), torch.randn(2, 8)
    with pytest.raises(InputError, match="`like`"):
        SparseResBlock3d(4, 8, resample="up")(downsample(x), embedding)
    with pytest.raises(InputError, match="`like`"):
        SparseResBlock3d(4, 8)(x, embedding, x)
