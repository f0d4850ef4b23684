import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.sparse import SparseTensor, concatenate, downsample, subdivide, upsample
from gena3d_core.nn.sparse.resampling import coarser


def by_parent(x):
    """Parent cell -> features of its children, the slow way."""
    found = {}
    for (b, i, j, k), feature in zip(x.coords.tolist(), x.feats, strict=True):
        found.setdefault((b, i // 2, j // 2, k // 2), []).append(feature)
    return found


@settings(deadline=None, max_examples=30)
@given(fill=st.floats(0, 1), seed=st.integers(0, 10**6), counts_zero=st.booleans())
def test_mean_of_the_children_in_lexicographic_order(make, fill, seed, counts_zero):
    x = make(3, fill=fill, seed=seed)
    packed = downsample(x, counts_zero=counts_zero)
    families = by_parent(x)
    assert [tuple(row) for row in packed.coords.tolist()] == sorted(families)
    wanted = torch.stack([sum(families[p]) / (len(families[p]) + counts_zero) for p in sorted(families)])
    torch.testing.assert_close(packed.feats, wanted)


@settings(deadline=None, max_examples=30)
@given(fill=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_upsampling_copies_the_parents_row_by_row(make, fill, seed):
    x = make(3, fill=fill, seed=seed)
    packed = downsample(x)
    back = upsample(packed, x)
    assert back.geometry is x.geometry
    at = {tuple(row): feature for row, feature in zip(packed.coords.tolist(), packed.feats, strict=True)}
    for (b, i, j, k), feature in zip(x.coords.tolist(), back.feats, strict=True):
        assert torch.equal(feature, at[(b, i // 2, j // 2, k // 2)])


def test_three_levels_and_back(make):
    levels = [make(3, grid=(16, 16, 16), fill=0.1)]
    for _ in range(3):
        levels.append(downsample(levels[-1]))
    x = levels[-1]
    for finer in reversed(levels[:-1]):
        x = upsample(x, finer)
    assert x.geometry is levels[0].geometry
    at = {tuple(row): feature for row, feature in zip(levels[3].coords.tolist(), levels[3].feats, strict=True)}
    for (b, i, j, k), feature in zip(x.coords.tolist(), x.feats, strict=True):
        assert torch.equal(feature, at[(b, i // 8, j // 8, k // 8)])


def test_subdivision_then_mean_is_the_identity(make):
    x = make(3)
    split = subdivide(x)
    offsets = split.coords.unflatten(0, (-1, 8)) - (x.coords * torch.tensor([1, 2, 2, 2]))[:, None]
    bits = [[0, a, b, d] for a in (0, 1) for b in (0, 1) for d in (0, 1)]
    assert (offsets == torch.tensor(bits)).all()
    assert split.coords.dtype == torch.int32
    assert torch.equal(split.feats.unflatten(0, (-1, 8)), x.feats[:, None].expand(-1, 8, -1))
    packed = downsample(split, counts_zero=False)
    order = x.geometry.sorted_keys.order
    assert torch.equal(packed.coords, x.coords[order])
    torch.testing.assert_close(packed.feats, x.feats[order])
    assert len(SparseTensor.create(split.coords, split.feats).feats) == 8 * len(x.feats)


def test_links_are_made_once(make):
    x = make(3)
    assert downsample(x).geometry is downsample(x.replace(x.feats * 2)).geometry is coarser(x.geometry).geometry
    assert subdivide(x).geometry is subdivide(x).geometry


def test_batched_is_one_by_one(make):
    parts = [make(3, batch=1, seed=seed) for seed in range(3)]
    both = downsample(concatenate(parts))
    assert both.batch == 3
    torch.testing.assert_close(both.feats, torch.cat([downsample(p).feats for p in parts]))


def test_single_voxel():
    x = SparseTensor.create(torch.tensor([[0, 5, 6, 7]]), torch.tensor([[2.0]]))
    assert downsample(x).coords.tolist() == [[0, 2, 3, 3]]
    assert float(downsample(x).feats) == 1.0
    assert float(downsample(x, counts_zero=False).feats) == 2.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_in_single(make, dtype):
    x = make(3, fill=1.0)
    found = downsample(x.replace(x.feats.to(dtype)))
    assert found.feats.dtype == dtype
    assert torch.equal(found.feats, downsample(x.replace(x.feats.to(dtype).float())).feats.to(dtype))


def test_gradient(make):
    x = make(2, grid=(3, 3, 3), dtype=torch.float64)
    feats = x.feats.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: upsample(downsample(x.replace(f)), x).feats, feats)


def test_returning_to_other_cells_is_refused(make):
    packed = downsample(make(3, seed=1))
    with pytest.raises(InputError, match="not the parents"):
        upsample(packed, make(3, seed=2))


def test_returning_to_equal_cells_is_fine(make):
    x, twin = make(3), make(3)
    assert torch.equal(upsample(downsample(x), twin).feats, upsample(downsample(x), x).feats)
