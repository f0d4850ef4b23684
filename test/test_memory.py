"""Chunking to a memory budget."""

from __future__ import annotations

import pytest

from gena3d_core.errors import InputError, MemoryBudgetError
from gena3d_core.memory import chunk_rows, in_chunks, parse_bytes


@pytest.mark.parametrize(
    ("text", "size"), [("6GB", 6 * 2**30), ("512 mb", 2**29), ("1.5G", 3 * 2**29), ("2GiB", 2**31), ("4096", 4096)]
)
def test_amounts_of_memory(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GB", "0", "3XB", "nan"])
def test_nonsense_is_no_amount_of_memory(text):
    with pytest.raises(InputError, match="6GB"):
        parse_bytes(text)


def test_rows_that_fit_a_budget():
    assert chunk_rows(10, 100.0, None) == 10
    assert chunk_rows(10, 100.0, 350) == 3
    assert chunk_rows(2, 100.0, 350) == 2
    with pytest.raises(MemoryBudgetError, match="--max-memory"):
        chunk_rows(10, 100.0, 99)


def test_a_chunk_that_runs_out_of_memory_is_halved():
    tried = []

    def work(start, stop):
        tried.append((start, stop))
        if stop - start > 2:
            raise RuntimeError("the device is out of memory. Tried to allocate 2 GiB")
        return list(range(start, stop))

    assert [row for part in in_chunks(7, 7, work) for row in part] == list(range(7))
    assert tried == [(0, 7), (0, 3), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]


def test_a_single_object_that_does_not_fit_is_an_error():
    def work(start, stop):
        raise MemoryError("no")

    with pytest.raises(MemoryBudgetError, match="single object"):
        in_chunks(4, 4, work)


def test_other_errors_pass_unchanged():
    def work(start, stop):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        in_chunks(4, 4, work)
