"""Partitions of the occupied cells into windows that attend within themselves.

A partition says which window each row belongs to; packing it for attention sorts the windows by size into buckets, so
that little or nothing is padded however unequal they are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from .curves import CURVES
from .tensor import PADDING_BIAS, Geometry, flat_keys

EXACT_BUCKETS = 64
"""Up to this many different sizes each gets a bucket of its own, without padding."""

BUCKET_GROWTH = 1.25
"""With more sizes than that, lengths of adjoining buckets differ by this factor at most: this bounds the padding."""

SHORTEST_BUCKET = 8


@dataclass(frozen=True, eq=False)
class Bucket:
    """W windows of about the same size, padded to L rows.

    rows      (W, L) int64; padding repeats the window's first row
    key_bias  (W, L) 0 for rows and `PADDING_BIAS` for padding; None if nothing is padded
    """

    rows: Tensor
    key_bias: Tensor | None


@dataclass(frozen=True, eq=False)
class Windows:
    """A partition of the rows of a sparse tensor, packed for attention.

    index     (N,) int64 window of each row, numbered in increasing order of (batch, window)
    buckets   all windows, by size
    place     (N,) int64: where each row is found in the concatenation of the buckets' flattened rows
    """

    index: Tensor
    buckets: tuple[Bucket, ...]
    place: Tensor


def shifted_windows(geometry: Geometry, window: int, shift: int = 0) -> Windows:
    """Cubes of `window` cells: window index = floor((coordinate + shift) / window) on each axis. Made once.

    No wrap-around: windows at the border of the grid hold fewer cells.
    """
    if window < 1 or shift < 0:
        raise InputError(f"windows need a size of at least 1 and a shift of at least 0, got {window} and {shift}")

    def make() -> Windows:
        cells = geometry.coords.clone()
        cells[:, 1:] = (cells[:, 1:] + shift) // window
        return pack_windows(torch.unique(flat_keys(cells)[0], return_inverse=True)[1])

    return geometry.cached(("shifted_windows", window, shift), make)


def sample_windows(geometry: Geometry) -> Windows:
    """One window for each sample: full attention. Made once."""
    return geometry.cached("sample_windows", lambda: pack_windows(geometry.batch_index))


def serialised_windows(geometry: Geometry, length: int, *, shift: int = 0, curve: str = "hilbert") -> Windows:
    """Runs of `length` cells along a space-filling curve through each sample's grid (Point Transformer V3). Made once.

    shift: the first run ends after length - shift cells, so that layers with different shifts mix neighbouring runs;
    the last run holds what is left. curve: a name of `CURVES`.
    """
    if length < 1 or not 0 <= shift < length:
        raise InputError(f"runs need a length of at least 1 and a shift in [0, length), got {length} and {shift}")
    if curve not in CURVES:
        raise InputError(f"unknown curve '{curve}', one of {', '.join(CURVES)}")

    def make() -> Windows:
        cells = geometry.coords[:, 1:].long()
        bits = max(1, int(cells.max()).bit_length())
        if 3 * bits + geometry.batch.bit_length() > 62:
            raise InputError(f"a grid of 2^{bits} cells along an axis is too large to be ordered along a curve")
        code = CURVES[curve](cells, bits) + (geometry.batch_index << (3 * bits))
        order = code.argsort()
        # Sorted rows keep the order of samples, so a sorted row's place in its sample is that of the unsorted one.
        run = (geometry.position + shift) // length
        new = (run[1:] != run[:-1]) | (geometry.batch_index[1:] != geometry.batch_index[:-1])
        index = torch.empty_like(order)
        index[order] = F.pad(new.cumsum(0), (1, 0))
        return pack_windows(index)

    return geometry.cached(("serialised_windows", length, shift, curve), make)


def pack_windows(index: Tensor) -> Windows:
    """Buckets of the windows `index` (N,) names, numbered from 0 without gaps."""
    sizes = torch.bincount(index)
    order = index.argsort(stable=True)
    starts = sizes.cumsum(0) - sizes
    lengths = torch.unique(sizes)
    if len(lengths) > EXACT_BUCKETS:
        lengths = _bucket_lengths(int(lengths[-1])).to(index.device)
    bucket_of = torch.searchsorted(lengths, sizes)
    position = torch.empty_like(index)
    position[order] = torch.arange(len(index), device=index.device) - starts[index[order]]
    buckets: list[Bucket] = []
    place = torch.empty_like(index)
    first = 0
    for bucket in torch.unique(bucket_of).tolist():
        windows = torch.nonzero(bucket_of == bucket).flatten()
        own, length = sizes[windows], int(sizes[windows].max())
        column = torch.arange(length, device=index.device)
        padding = column >= own[:, None]
        rows = order[starts[windows, None] + column.expand_as(padding).masked_fill(padding, 0)]
        buckets.append(Bucket(rows, padding.float() * PADDING_BIAS if bool(padding.any()) else None))
        place[rows[~padding]] = first + torch.nonzero(~padding.flatten()).flatten()
        first += rows.numel()
    return Windows(index, tuple(buckets), place)


def _bucket_lengths(longest: int) -> Tensor:
    lengths = [min(SHORTEST_BUCKET, longest)]
    while lengths[-1] < longest:
        lengths.append(min(longest, max(lengths[-1] + 1, int(lengths[-1] * BUCKET_GROWTH))))
    return torch.tensor(lengths)
