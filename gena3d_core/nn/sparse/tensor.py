"""Sparse voxel tensors: features of the occupied cells of a batch of grids."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ...errors import InputError
from ..attention import PADDING_BIAS

Table = TypeVar("Table")

KEY_LIMIT = 2**62


class SortedKeys(NamedTuple):
    """Cells as one integer each, in increasing order.

    keys      (N,) int64, see `flat_keys`
    order     (N,) int64: row of each key
    strides   steps of the key along batch, i, j, k
    """

    keys: Tensor
    order: Tensor
    strides: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Geometry:
    """Which cells are occupied; shared by all tensors that live on them.

    coords   (N, 4) int32 rows (batch, i, j, k), not negative, no cell twice; rows of a sample contiguous, samples in
             order, none empty; rows of a sample in any order. `SparseTensor.create` checks this.
    batch    number of samples B
    tables   what layers derived from the coordinates alone, see `cached`
    """

    coords: Tensor
    batch: int
    tables: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def cached(self, key: Hashable, make: Callable[[], Table]) -> Table:
        """The table kept under `key`, made at the first call: every layer and sampling step then shares it."""
        if key not in self.tables:
            self.tables[key] = make()
        return self.tables[key]

    def __len__(self) -> int:
        return len(self.coords)

    @cached_property
    def batch_index(self) -> Tensor:
        """(N,) int64 sample of each row."""
        return self.coords[:, 0].long()

    @cached_property
    def counts(self) -> Tensor:
        """(B,) int64 number of rows of each sample."""
        return torch.bincount(self.batch_index, minlength=self.batch)

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """`counts` as Python integers."""
        return tuple(self.counts.tolist())

    @cached_property
    def starts(self) -> Tensor:
        """(B,) int64 first row of each sample."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def position(self) -> Tensor:
        """(N,) int64 place of each row inside its sample."""
        return torch.arange(len(self), device=self.coords.device) - self.starts[self.batch_index]

    @cached_property
    def sorted_keys(self) -> SortedKeys:
        """The cells in lexicographic order."""
        keys, strides = flat_keys(self.coords)
        return SortedKeys(*keys.sort(), strides)


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features (N, C) of the cells of `geometry`, in its row order."""

    geometry: Geometry
    feats: Tensor

    @staticmethod
    def create(coords: Tensor, feats: Tensor, batch: int | None = None) -> SparseTensor:
        """Checked tensor of cells `coords` (N, 4), integer rows (batch, i, j, k), with features (N, C).

        batch: number of samples, the last sample's index plus one if not given. Raises `InputError` for wrong
        shapes, coordinates that are negative or doubled, rows out of the order of samples, and samples without cells.
        """
        if coords.ndim != 2 or coords.shape[1] != 4 or coords.is_floating_point() or coords.dtype == torch.bool:
            raise InputError(f"coords must be integers (N, 4), got {coords.dtype} {tuple(coords.shape)}")
        if not len(coords):
            raise InputError("a sparse tensor needs at least one occupied cell, got none")
        _check_cells(coords, batch)
        geometry = Geometry(coords.int().contiguous(), int(coords[-1, 0]) + 1 if batch is None else batch)
        keys = geometry.sorted_keys.keys
        if bool((keys[1:] == keys[:-1]).any()):
            doubled = int((keys[1:] == keys[:-1]).sum())
            raise InputError(f"coords: {doubled} of {len(keys)} rows repeat a cell: list each cell once")
        return SparseTensor(geometry, feats).replace(feats)

    @property
    def coords(self) -> Tensor:
        """(N, 4) int32 rows (batch, i, j, k)."""
        return self.geometry.coords

    @property
    def batch(self) -> int:
        """Number of samples B."""
        return self.geometry.batch

    @property
    def counts(self) -> Tensor:
        """(B,) int64 number of rows of each sample."""
        return self.geometry.counts

    @property
    def batch_index(self) -> Tensor:
        """(N,) int64 sample of each row."""
        return self.geometry.batch_index

    def replace(self, feats: Tensor) -> SparseTensor:
        """Other features (N, C') on the same cells; tables made for the cells stay."""
        if feats.ndim != 2 or len(feats) != len(self.geometry):
            raise InputError(f"feats must be ({len(self.geometry)}, C), got {tuple(feats.shape)}")
        return SparseTensor(self.geometry, feats)

    def per_row(self, vectors: Tensor) -> Tensor:
        """(B, C) vectors of the samples -> (N, C): each row gets its sample's."""
        if self.batch == 1:
            return vectors.expand(len(self.geometry), -1)
        return vectors[self.batch_index]

    def samples(self) -> tuple[Tensor, ...]:
        """Features of each sample (n_b, C)."""
        return self.feats.split(self.geometry.sizes)

    def to(self, device: torch.device | str) -> SparseTensor:
        """The same on `device`; itself if it is there already."""
        if self.feats.device == torch.device(device):
            return self
        return SparseTensor(Geometry(self.coords.to(device), self.batch), self.feats.to(device))


def flat_keys(coords: Tensor) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Cells (N, 4) as one int64 each, lexicographic in (batch, i, j, k), and the steps of the key along these.

    A margin of one cell on every side keeps neighbours beyond the border from being taken for cells of the next line.
    Raises `InputError` if the grid is too large for 64 bits.
    """
    top = [int(extent) for extent in coords.amax(dim=0).tolist()]
    stride_i, stride_j = (top[2] + 3) * (top[3] + 3), top[3] + 3
    stride_b = (top[1] + 3) * stride_i
    if stride_b * (top[0] + 1) >= KEY_LIMIT:
        raise InputError(f"a grid of {top[1] + 1} x {top[2] + 1} x {top[3] + 1} cells is too large")
    cells = coords.long()
    keys = cells[:, 0] * stride_b + (cells[:, 1] + 1) * stride_i + (cells[:, 2] + 1) * stride_j + cells[:, 3] + 1
    return keys, (stride_b, stride_i, stride_j, 1)


def concatenate(tensors: list[SparseTensor]) -> SparseTensor:
    """One batch of all samples of the tensors, in their order."""
    if not tensors:
        raise InputError("nothing to concatenate: give at least one sparse tensor")
    coords, first = [], 0
    for x in tensors:
        coords.append(x.coords + x.coords.new_tensor([first, 0, 0, 0]))
        first += x.batch
    return SparseTensor(Geometry(torch.cat(coords), first), torch.cat([x.feats for x in tensors]))


def repeat_samples(x: SparseTensor, times: int) -> SparseTensor:
    """All samples of `x`, `times` over: (times · B) samples, as one guided pass needs them. The cells are kept."""
    if times == 1:
        return x
    geometry = x.geometry.cached(("repeat", times), lambda: concatenate([x] * times).geometry)
    return SparseTensor(geometry, x.feats.repeat(times, 1))


def to_padded(x: SparseTensor) -> tuple[Tensor, Tensor | None]:
    """Rows of each sample, padded with zeros to the longest: (B, Nmax, C), and the bias (B, Nmax) of attention keys.

    The bias is 0 for rows and `PADDING_BIAS` for padding; None if no sample is padded.
    """
    geometry = x.geometry
    longest = max(geometry.sizes)
    if min(geometry.sizes) == longest:
        return x.feats.unflatten(0, (x.batch, longest)), None
    padded = x.feats.new_zeros(x.batch, longest, x.feats.shape[1])
    bias = geometry.cached("padding_bias", lambda: _padding_bias(geometry, longest))
    return padded.index_put((geometry.batch_index, geometry.position), x.feats), bias


def from_padded(padded: Tensor, like: SparseTensor) -> SparseTensor:
    """Rows of `padded` (B, Nmax, C) that are not padding, on the cells of `like`; inverse of `to_padded`."""
    geometry = like.geometry
    if padded.shape[:2] != (like.batch, max(geometry.sizes)):
        raise InputError(f"padded must be ({like.batch}, {max(geometry.sizes)}, C), got {tuple(padded.shape)}")
    if min(geometry.sizes) == padded.shape[1]:
        return like.replace(padded.flatten(0, 1))
    return like.replace(padded[geometry.batch_index, geometry.position])


def _padding_bias(geometry: Geometry, longest: int) -> Tensor:
    place = torch.arange(longest, device=geometry.coords.device)
    return (place >= geometry.counts[:, None]).float() * PADDING_BIAS


def _check_cells(coords: Tensor, batch: int | None) -> None:
    low = coords.amin(dim=0).tolist()
    if min(low) < 0:
        raise InputError(f"coords must not be negative, smallest (batch, i, j, k) is {tuple(low)}")
    samples = coords[:, 0].long()
    if bool((samples[1:] < samples[:-1]).any()):
        raise InputError("coords: rows of one sample must be contiguous and samples in order: sort by the first column")
    count = int(samples[-1]) + 1
    if batch is not None and count > batch:
        raise InputError(f"coords name sample {count - 1}, but the batch has {batch}")
    empty = torch.nonzero(torch.bincount(samples, minlength=batch or count) == 0).flatten().tolist()
    if empty:
        raise InputError(f"samples {empty} of the batch have no occupied cell: leave them out")
