import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.sparse import SparseTensor, sample_windows, serialised_windows, shifted_windows, windows
from gena3d_core.nn.sparse.curves import CURVES, hilbert_code
from gena3d_core.nn.sparse.windows import pack_windows


def rows_by_window(packed):
    """Window -> its rows as the buckets hold them, padding left out."""
    found = {}
    for bucket in packed.buckets:
        bias = torch.zeros_like(bucket.rows) if bucket.key_bias is None else bucket.key_bias
        for rows, own in zip(bucket.rows, bias, strict=True):
            assert own[0] == 0
            members = rows[own == 0].tolist()
            found[int(packed.index[members[0]])] = members
    return found


def check_packing(packed):
    windows_found = rows_by_window(packed)
    assert sorted(windows_found) == list(range(int(packed.index.max()) + 1))
    for window, members in windows_found.items():
        assert members == torch.nonzero(packed.index == window).flatten().tolist()
    flat = torch.cat([bucket.rows.flatten() for bucket in packed.buckets])
    assert torch.equal(flat[packed.place], torch.arange(len(packed.index)))


@settings(deadline=None, max_examples=30)
@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), exact=st.booleans(), seed=st.integers(0, 10**6))
def test_packing_holds_every_row_once(sizes, exact, seed):
    index = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    index = index[torch.randperm(len(index), generator=torch.Generator().manual_seed(seed))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "EXACT_BUCKETS", 64 if exact else 0)
        packed = pack_windows(index)
    check_packing(packed)
    if exact:
        assert all(bucket.key_bias is None for bucket in packed.buckets)
    else:
        held = sum(bucket.rows.numel() for bucket in packed.buckets)
        assert held <= len(index) * windows.BUCKET_GROWTH + windows.SHORTEST_BUCKET * len(sizes)


def test_many_sizes_share_buckets():
    index = torch.repeat_interleave(torch.arange(200), torch.arange(1, 201))
    packed = pack_windows(index)
    check_packing(packed)
    assert len(packed.buckets) < 25


@settings(deadline=None, max_examples=30)
@given(window=st.integers(1, 5), shift=st.integers(0, 5), fill=st.floats(0, 1), seed=st.integers(0, 10**6))
def test_shifted_windows_are_cubes(make, window, shift, fill, seed):
    x = make(1, fill=fill, seed=seed)
    packed = shifted_windows(x.geometry, window, shift)
    check_packing(packed)
    cubes = [
        (b, (i + shift) // window, (j + shift) // window, (k + shift) // window) for b, i, j, k in x.coords.tolist()
    ]
    number = {cube: n for n, cube in enumerate(sorted(set(cubes)))}
    assert packed.index.tolist() == [number[cube] for cube in cubes]


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("shift", [0, 3])
def test_serialised_windows_are_runs_along_the_curve(make, curve, shift):
    x = make(1, grid=(8, 8, 8), batch=3)
    packed = serialised_windows(x.geometry, 7, shift=shift, curve=curve)
    check_packing(packed)
    codes = CURVES[curve](x.coords[:, 1:].long(), 3)
    wanted, first = torch.empty(len(codes), dtype=torch.int64), 0
    for b in range(3):
        rows = torch.nonzero(x.batch_index == b).flatten()
        rows = rows[codes[rows].argsort()]
        run = (torch.arange(len(rows)) + shift) // 7
        wanted[rows] = run + first
        first += int(run[-1]) + 1
    assert torch.equal(packed.index, wanted)


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("curve", CURVES)
def test_curves_visit_every_cell_once(curve, bits):
    axis = torch.arange(2**bits)
    cells = torch.cartesian_prod(axis, axis, axis)
    codes = CURVES[curve](cells, bits)
    assert torch.equal(codes.sort().values, torch.arange(8**bits))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_hilbert_curve_goes_from_neighbour_to_neighbour(bits):
    axis = torch.arange(2**bits)
    cells = torch.cartesian_prod(axis, axis, axis)
    way = cells[hilbert_code(cells, bits).argsort()]
    assert ((way[1:] - way[:-1]).abs().sum(1) == 1).all()


def test_windows_are_made_once_per_partition(make):
    geometry = make(1).geometry
    assert shifted_windows(geometry, 4, 2) is shifted_windows(geometry, 4, 2)
    assert shifted_windows(geometry, 4, 2) is not shifted_windows(geometry, 4, 0)
    assert serialised_windows(geometry, 4) is serialised_windows(geometry, 4)
    assert serialised_windows(geometry, 4) is not serialised_windows(geometry, 4, curve="morton")


def test_one_window_for_each_sample(make):
    x = make(1, batch=3)
    assert torch.equal(sample_windows(x.geometry).index, x.batch_index)


def test_impossible_windows_are_refused(make):
    geometry = make(1).geometry
    with pytest.raises(InputError, match="size of at least 1"):
        shifted_windows(geometry, 0)
    with pytest.raises(InputError, match="shift in"):
        serialised_windows(geometry, 4, shift=4)
    with pytest.raises(InputError, match="unknown curve"):
        serialised_windows(geometry, 4, curve="peano")
    far = SparseTensor.create(torch.tensor([[0, 2**21, 0, 0]]), torch.zeros(1, 1))
    with pytest.raises(InputError, match="too large"):
        serialised_windows(far.geometry, 4)
