"""Coarser and finer grids: packing by two, its inverse, and subdivision into eight."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from .tensor import Geometry, SparseTensor, flat_keys


class Coarser(NamedTuple):
    """The grid of half the resolution.

    geometry   its M occupied cells, in lexicographic order
    parent     (N,) int64: coarse row of each fine row
    children   (M, 8) int64: fine rows of each coarse row, N where there is none
    family     (M, 1) float32 number of children
    """

    geometry: Geometry
    parent: Tensor
    children: Tensor
    family: Tensor


def coarser(fine: Geometry) -> Coarser:
    """The coarser grid of `fine` and how the two are linked, made once."""
    return fine.cached("coarser", lambda: _coarser(fine))


def _coarser(fine: Geometry) -> Coarser:
    halved = fine.coords.clone()
    halved[:, 1:] = halved[:, 1:] >> 1
    _, parent, family = torch.unique(flat_keys(halved)[0], return_inverse=True, return_counts=True)
    coords = halved.new_empty(len(family), 4)
    coords[parent] = halved
    octant = ((fine.coords[:, 1:] & 1) << fine.coords.new_tensor([2, 1, 0])).sum(dim=1)
    children = torch.full((len(coords), 8), len(fine), device=coords.device)
    children[parent, octant] = torch.arange(len(fine), device=coords.device)
    return Coarser(Geometry(coords, fine.batch), parent, children, family.float()[:, None])


def downsample(x: SparseTensor, *, counts_zero: bool = True) -> SparseTensor:
    """Cells of half the resolution; features are the mean of their children.

    counts_zero: divide by n + 1 instead of n, as the published networks do: their mean counts the zero that the sum
    starts with, and their weights expect it.
    """
    coarse = coarser(x.geometry)
    # A gather with a row of zeros for missing children keeps the sum's order fixed, which scattering does not.
    rows = F.pad(x.feats, (0, 0, 0, 1)).index_select(0, coarse.children.flatten()).unflatten(0, (-1, 8))
    # Half-precision sums in float32.
    sums = rows.to(torch.promote_types(rows.dtype, torch.float32)).sum(dim=1)
    mean = sums / (coarse.family + int(counts_zero))
    return SparseTensor(coarse.geometry, mean.to(x.feats.dtype))


def upsample(x: SparseTensor, like: SparseTensor) -> SparseTensor:
    """Features of the parents in the cells of `like`, whose `downsample` has the cells of `x`, in its row order.

    Levels nest: each call names the finer tensor that it returns to. Raises `InputError` for other cells.
    """
    coarse = coarser(like.geometry)
    if coarse.geometry is not x.geometry and not torch.equal(coarse.geometry.coords, x.coords):
        raise InputError(
            f"upsample: the {len(x.coords)} cells of x are not the parents of the {len(like.coords)} cells of `like`, "
            f"which has {len(coarse.geometry)} parents: give the tensor that x was downsampled from"
        )
    return SparseTensor(like.geometry, x.feats.index_select(0, coarse.parent))


def subdivide(x: SparseTensor) -> SparseTensor:
    """Each cell split into its eight, the feature copied.

    Children of a cell are adjacent rows, in the order (0,0,0), (0,0,1), (0,1,0), ... (1,1,1) of their offsets.
    """
    fine = x.geometry.cached("subdivided", lambda: _subdivided(x.geometry))
    return SparseTensor(fine, x.feats.repeat_interleave(8, dim=0, output_size=8 * len(x.feats)))


def _subdivided(coarse: Geometry) -> Geometry:
    bits = torch.arange(2, dtype=torch.int32, device=coarse.coords.device)
    offsets = F.pad(torch.cartesian_prod(bits, bits, bits), (1, 0))
    corner = coarse.coords * coarse.coords.new_tensor([1, 2, 2, 2])
    return Geometry((corner[:, None] + offsets).flatten(0, 1), coarse.batch)
