"""Several context entries (views) per row of the stream, a different number in each row, without a loop over them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Packing:
    """Which row each of P packed entries serves.

    owner    (P,) int64: row of each entry
    rows     number of rows
    most     largest number of entries of one row
    places   (P,) int64: place of each entry in a (rows · most) table; None where every row has `most` entries, in
             order, so that the entries are that table
    """

    owner: Tensor
    rows: int
    most: int
    places: Tensor | None

    def spread(self, x: Tensor) -> Tensor:
        """(rows, ...) -> (P, ...): each entry gets what its row has."""
        if self.places is None:
            return x[:, None].expand(self.rows, self.most, *x.shape[1:]).flatten(0, 1)
        return x[self.owner]

    def table(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """(P, ...) -> (rows, most, ...), a row's entries in their order, `fill` where a row has fewer."""
        if self.places is not None:
            empty = x.new_full((self.rows * self.most, *x.shape[1:]), fill)
            x = empty.index_copy(0, self.places, x)
        return x.unflatten(0, (self.rows, self.most))

    def sum(self, x: Tensor) -> Tensor:
        """(P, ...) -> (rows, ...): sums over each row's entries, in a fixed order, accumulated in float32 at least."""
        return self.table(x).sum(dim=1)


def pack(owner: Tensor, rows: int) -> Packing:
    """The `Packing` of entries in any order; `InputError` if a row has none, or if an owner is not a row."""
    if owner.ndim != 1:
        raise InputError(f"owner must be (P,), got {tuple(owner.shape)}")
    if len(owner) and (int(owner.min()) < 0 or int(owner.max()) >= rows):
        raise InputError(f"owner must lie in 0..{rows - 1}, got {int(owner.min())}..{int(owner.max())}")
    counts = torch.bincount(owner, minlength=rows)
    if not bool((counts > 0).all()):
        raise InputError(f"rows {torch.nonzero(counts == 0).flatten().tolist()} have no entry (view)")
    most = int(counts.max())
    order = torch.argsort(owner, stable=True)
    starts = torch.cumsum(counts, 0) - counts
    places = torch.empty_like(owner)
    places[order] = owner[order] * most + torch.arange(len(owner), device=owner.device) - starts[owner[order]]
    even = torch.equal(places, torch.arange(rows * most, device=owner.device))
    return Packing(owner, rows, most, None if even else places)
