import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.sparse import Geometry, SparseTensor, concatenate, from_padded, repeat_samples, to_padded
from gena3d_core.nn.sparse.tensor import PADDING_BIAS


def create(rows, batch=None):
    coords = torch.tensor(rows)
    return SparseTensor.create(coords, torch.zeros(len(coords), 3), batch)


def test_counts_and_indices(make):
    x = make(4, batch=3)
    assert x.batch == 3
    assert x.counts.sum() == len(x.feats)
    assert torch.equal(torch.repeat_interleave(torch.arange(3), x.counts), x.batch_index)
    assert [len(s) for s in x.samples()] == x.counts.tolist()
    assert torch.equal(torch.cat(x.samples()), x.feats)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0, 1, -1, 0]], "negative"),
        ([[0, 1, 1, 1], [0, 2, 1, 1], [0, 1, 1, 1]], "repeat a cell"),
        ([[1, 0, 0, 0], [0, 0, 0, 0]], "contiguous"),
        ([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]], "contiguous"),
        ([[0, 0, 0, 0], [2, 0, 0, 0]], r"samples \[1\] .* no occupied cell"),
        ([[0, 0, 0]], "must be integers"),
        ([[0.0, 0, 0, 0]], "must be integers"),
        ([[0, 2**30, 2**30, 2**30]], "too large"),
    ],
)
def test_bad_coordinates_are_refused(rows, message):
    with pytest.raises(InputError, match=message):
        create(rows)


def test_batch_must_fit():
    with pytest.raises(InputError, match="name sample 1"):
        create([[0, 0, 0, 0], [1, 0, 0, 0]], batch=1)
    with pytest.raises(InputError, match=r"samples \[1, 2\]"):
        create([[0, 0, 0, 0]], batch=3)
    with pytest.raises(InputError, match="at least one"):
        SparseTensor.create(torch.zeros(0, 4, dtype=torch.int32), torch.zeros(0, 3))


def test_features_must_fit(make):
    x = make(4)
    with pytest.raises(InputError, match="feats must be"):
        x.replace(x.feats[:-1])
    with pytest.raises(InputError, match="feats must be"):
        SparseTensor.create(x.coords, x.feats[:, 0])


def test_replace_keeps_tables(make):
    x = make(4)
    made = []
    for tensor in (x, x.replace(x.feats[:, :2])):
        tensor.geometry.cached("table", lambda: made.append(1))
    assert made == [1]


def test_no_dtype_or_row_order_is_imposed(make):
    x = make(4, dtype=torch.float64)
    assert x.feats.dtype == torch.float64
    assert x.coords.dtype == torch.int32
    assert SparseTensor.create(x.coords.long(), x.feats).coords.dtype == torch.int32


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), channels=st.integers(1, 5))
def test_padding_and_back(sizes, channels):
    coords = torch.cat([torch.tensor([[b, 0, 0, n] for n in range(size)]) for b, size in enumerate(sizes)])
    x = SparseTensor.create(coords, torch.randn(len(coords), channels))
    padded, bias = to_padded(x)
    assert padded.shape == (len(sizes), max(sizes), channels)
    assert torch.equal(from_padded(padded, x).feats, x.feats)
    if len(set(sizes)) == 1:
        assert bias is None
    else:
        assert bias is not None
        assert ((bias == 0).sum(1) == torch.tensor(sizes)).all()
        assert (padded[bias < 0] == 0).all()
        assert (bias[bias < 0] == PADDING_BIAS).all()


def test_padded_of_other_shape_is_refused(make):
    x = make(4)
    padded, _ = to_padded(x)
    with pytest.raises(InputError, match="padded must be"):
        from_padded(padded[:, :-1], x)


def test_per_row_vectors(make):
    x = make(4, batch=3)
    vectors = torch.randn(3, 6)
    assert torch.equal(x.per_row(vectors), torch.repeat_interleave(vectors, x.counts, dim=0))
    one = make(4, batch=1)
    assert torch.equal(one.per_row(vectors[:1]), vectors[:1].expand(len(one.feats), 6))


def test_concatenate_and_repeat(make):
    a, b = make(4, batch=2, seed=1), make(4, batch=1, seed=2)
    both = concatenate([a, b])
    assert both.batch == 3
    checked = SparseTensor.create(both.coords, both.feats)
    assert torch.equal(checked.counts, torch.cat([a.counts, b.counts]))
    assert torch.equal(both.samples()[2], b.feats)
    twice = repeat_samples(a, 2)
    assert torch.equal(twice.coords, concatenate([a, a]).coords)
    assert torch.equal(twice.feats, torch.cat([a.feats, a.feats]))
    assert repeat_samples(a.replace(a.feats * 2), 2).geometry is twice.geometry
    assert repeat_samples(a, 1) is a
    with pytest.raises(InputError, match="nothing to concatenate"):
        concatenate([])


def test_geometries_are_their_own_key(make):
    x = make(2)
    assert x.geometry != Geometry(x.coords, x.batch)
    assert x.to("cpu") is x
