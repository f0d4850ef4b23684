"""Sub-manifold convolution of copied features: after subdivision or upsampling, cells of one parent hold the same."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import InputError
from .convolution import GATHER_BYTES, SubmanifoldConv3d, neighbour_table
from .resampling import coarser, subdivide
from .tensor import Geometry, SparseTensor


class Copies(NamedTuple):
    """Finer cells that hold what their parents hold.

    geometry   the N finer cells
    parent     (N,) int64 row of each cell's parent
    """

    geometry: Geometry
    parent: Tensor


def subdivided_copies(x: SparseTensor) -> Copies:
    """The cells and parents of `subdivide(x)`."""
    fine = subdivide(x.replace(x.feats[:, :0])).geometry
    return Copies(fine, torch.arange(len(fine), device=x.coords.device) // 8)


def upsampled_copies(like: SparseTensor) -> Copies:
    """The cells and parents of `upsample(x, like)`."""
    return Copies(like.geometry, coarser(like.geometry).parent)


def convolve_copies(conv: SubmanifoldConv3d, x: SparseTensor, copies: Copies) -> SparseTensor:
    """What `conv`, a 3-cube, gives for copies of x (N, C_in) -> (N, C_out) on the finer cells.

    Each parent is multiplied with each of the 27 weights once and the products are summed at the finer cells:
    fewer operations than a product for every finer cell, and only C_out numbers wide.
    """
    weight, bias = conv.conv.weight.flatten(1, 3), conv.conv.bias
    if weight.shape[1] != 27:
        raise InputError("copies are convolved with a 3-cube; a 1-cube may be applied before copying")
    if x.feats.shape[1] != weight.shape[2]:
        raise InputError(f"convolution of {weight.shape[2]} channels got features {tuple(x.feats.shape)}")
    parents, geometry = len(x.feats), copies.geometry
    rows = geometry.cached("parents_of_neighbours", lambda: _parents_of_neighbours(copies, parents))
    total: Tensor | None = None
    held = x.feats.element_size() * parents * weight.shape[0]
    for offsets in torch.arange(27, device=rows.device).split(max(1, GATHER_BYTES // held)):
        count = len(offsets)
        products = F.linear(x.feats, weight[:, offsets].transpose(0, 1).flatten(0, 1)).view(parents * count, -1)
        place = rows[:, offsets] * count + torch.arange(count, device=rows.device)
        missing = parents * count
        # The sum skips rows of the padding index: neighbours that are not occupied.
        part = F.embedding_bag(place.clamp(max=missing), F.pad(products, (0, 0, 0, 1)), mode="sum", padding_idx=missing)
        wide = part.to(torch.promote_types(part.dtype, torch.float32))
        total = wide + bias if total is None else total + wide
    assert total is not None
    return SparseTensor(geometry, total.to(x.feats.dtype))


def _parents_of_neighbours(copies: Copies, parents: int) -> Tensor:
    """(N, 27) int64 parent of each neighbour, `parents` where there is none."""
    return F.pad(copies.parent, (0, 1), value=parents)[neighbour_table(copies.geometry)]
