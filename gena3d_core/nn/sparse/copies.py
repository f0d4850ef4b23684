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
    origin     how they came about: one geometry may have parents of both kinds, in different orders
    """

    geometry: Geometry
    parent: Tensor
    origin: str


def subdivided_copies(x: SparseTensor) -> Copies:
    """The cells and parents of `subdivide(x)`."""
    fine = subdivide(x.replace(x.feats[:, :0])).geometry
    return Copies(fine, torch.arange(len(fine), device=x.coords.device) // 8, "subdivided")


def upsampled_copies(like: SparseTensor) -> Copies:
    """The cells and parents of `upsample(x, like)`."""
    return Copies(like.geometry, coarser(like.geometry).parent, "upsampled")


def convolve_copies(conv: SubmanifoldConv3d, x: SparseTensor, copies: Copies) -> SparseTensor:
    """What `conv`, a 3-cube, gives for copies of x (N, C_in) -> (N, C_out) on the finer cells.

    Each parent is multiplied with each of the 27 weights once and the products are summed at the finer cells:
    fewer operations than a product for every finer cell, and what is gathered is C_out wide instead of C_in.
    """
    weight = conv.conv.weight.flatten(1, 3).transpose(0, 1)
    if len(weight) != 27:
        raise InputError("copies are convolved with a 3-cube; a 1-cube may be applied before copying")
    if x.feats.shape[1] != weight.shape[2]:
        raise InputError(f"convolution of {weight.shape[2]} channels got features {tuple(x.feats.shape)}")
    geometry, parents, C_out = copies.geometry, len(x.feats), weight.shape[1]
    rows = geometry.cached(("parents", copies.origin), lambda: _parents_of_neighbours(copies, parents))
    offsets = max(1, min(27, GATHER_BYTES // (parents * C_out * x.feats.element_size())))
    total = conv.conv.bias.to(torch.promote_types(x.feats.dtype, torch.float32))
    for first in range(0, 27, offsets):
        own = weight[first : first + offsets]
        products = F.linear(x.feats, own.flatten(0, 1)).view(parents * len(own), C_out)
        place = rows[:, first : first + offsets] * len(own) + torch.arange(len(own), device=rows.device)
        # Neighbours that are not occupied point behind the products, at a row that the sum leaves out.
        table, nothing = F.pad(products, (0, 0, 0, 1)), len(products)
        total = total + F.embedding_bag(place.clamp(max=nothing), table, mode="sum", padding_idx=nothing)
    return SparseTensor(geometry, total.to(x.feats.dtype))


def _parents_of_neighbours(copies: Copies, parents: int) -> Tensor:
    """(N, 27) int64 parent of each neighbour, `parents` where there is none."""
    return F.pad(copies.parent, (0, 1), value=parents)[neighbour_table(copies.geometry)]
