"""Entries packed by the row that they serve, against loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gena3d_core.errors import InputError
from gena3d_core.nn.packing import pack


@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 2**31 - 1), st.booleans())
@settings(max_examples=60, deadline=None)
def test_sums_and_tables_of_any_counts_in_any_order(counts: list[int], seed: int, shuffled: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    if shuffled:
        owner = owner[torch.randperm(len(owner), generator=generator)]
    x = torch.randn(len(owner), 3, 2, generator=generator, dtype=torch.float64)
    packing = pack(owner, len(counts))
    assert packing.most == max(counts)
    rows = torch.arange(len(counts), dtype=torch.float64)[:, None] * torch.ones(2, dtype=torch.float64)
    assert torch.equal(packing.spread(rows)[:, 0], owner.double())
    table, total = packing.table(x, fill=-7.0), packing.sum(x)
    for row in range(len(counts)):
        own = x[owner == row]
        assert torch.equal(table[row, : len(own)], own)
        assert bool((table[row, len(own) :] == -7.0).all())
        torch.testing.assert_close(total[row], own.sum(0))


def test_even_counts_in_order_need_no_table() -> None:
    assert pack(torch.tensor([0, 0, 1, 1]), 2).places is None
    assert pack(torch.tensor([0, 1, 0, 1]), 2).places is not None
    assert pack(torch.tensor([0, 0, 1]), 2).places is not None


def test_gradients_of_spread_and_sum() -> None:
    for owner in ([0, 0, 1, 1], [1, 0, 0]):
        packing = pack(torch.tensor(owner), 2)
        x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
        y = torch.randn(len(owner), 3, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(packing.spread, [x])
        assert torch.autograd.gradcheck(packing.sum, [y])


def test_sums_of_many_half_precision_entries_keep_the_small_ones() -> None:
    x = torch.cat([torch.tensor([256.0]), torch.full((19,), 0.5)]).to(torch.bfloat16)[:, None]
    assert float(pack(torch.zeros(20, dtype=torch.int64), 1).sum(x)[0, 0]) == pytest.approx(265.5, abs=1.0)


def test_errors() -> None:
    with pytest.raises(InputError, match=r"rows \[1\] have no entry"):
        pack(torch.tensor([0, 2]), 3)
    for owner in ([0, 3], [-1, 0]):
        with pytest.raises(InputError, match=r"must lie in 0\.\.2"):
            pack(torch.tensor(owner), 3)
    with pytest.raises(InputError, match="no entry"):
        pack(torch.zeros(0, dtype=torch.int64), 1)
    with pytest.raises(InputError, match=r"\(P,\)"):
        pack(torch.zeros(2, 2, dtype=torch.int64), 1)
