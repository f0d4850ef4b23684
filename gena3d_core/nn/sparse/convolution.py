"""Sub-manifold convolution: output only at occupied cells, zero for missing neighbours (Graham et al. 2018)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import InputError
from .tensor import Geometry, SparseTensor

CENTRE = 13
"""Of the 27 offsets (a, b, d) - 1 of a 3-cube in raster order, the cell itself; 26 - n is opposite to n."""

GATHER_BYTES = 2**28
"""Largest block of gathered neighbours that is held at a time."""


class Pairs(NamedTuple):
    """Rows whose cells are neighbours along one offset: cell of `neighbour` = cell of `row` + offset."""

    row: Tensor
    neighbour: Tensor


def neighbour_pairs(geometry: Geometry) -> tuple[Pairs, ...]:
    """Pairs of the offsets 0 to 12; those of 26 - n are the same ones exchanged. Made once."""
    return geometry.cached("neighbour_pairs", lambda: _neighbour_pairs(geometry))


def neighbour_table(geometry: Geometry) -> Tensor:
    """(N, 27) int64 row of each neighbour, N where there is none. Made once."""
    return geometry.cached("neighbour_table", lambda: _neighbour_table(geometry))


def _neighbour_pairs(geometry: Geometry) -> tuple[Pairs, ...]:
    keys, order, (_, stride_i, stride_j, _) = geometry.sorted_keys
    last = len(keys) - 1
    found = []
    for line in range(5):
        # The three cells of a line follow one another in the sorted keys: one search serves them all.
        wanted = keys + ((line // 3 - 1) * stride_i + (line % 3 - 1) * stride_j - 1)
        place = torch.searchsorted(keys, wanted)
        for step in range(min(3, CENTRE - 3 * line)):
            hit = keys[place.clamp(max=last)] == wanted + step
            rows = torch.nonzero(hit).flatten()
            found.append(Pairs(order[rows], order[place[rows]]))
            place = place + hit
    return tuple(found)


def _neighbour_table(geometry: Geometry) -> Tensor:
    count = len(geometry)
    table = torch.full((count, 27), count, device=geometry.coords.device)
    table[:, CENTRE] = torch.arange(count, device=table.device)
    for n, (row, neighbour) in enumerate(neighbour_pairs(geometry)):
        table[row, n] = neighbour
        table[neighbour, 26 - n] = row
    return table


def convolve_by_offset(feats: Tensor, geometry: Geometry, weight: Tensor, bias: Tensor) -> Tensor:
    """One product per offset over the pairs that exist, summed in float32 at least: fewest operations.

    feats (N, C_in), weight (C_out, 27, C_in), bias (C_out,) -> (N, C_out).
    """
    sums = torch.promote_types(feats.dtype, torch.float32)
    out = F.linear(feats, weight[:, CENTRE], bias).to(sums)
    for n, (row, neighbour) in enumerate(neighbour_pairs(geometry)):
        if len(row):
            out = out.index_add_(0, row, F.linear(feats.index_select(0, neighbour), weight[:, n]).to(sums))
            out = out.index_add_(0, neighbour, F.linear(feats.index_select(0, row), weight[:, 26 - n]).to(sums))
    return out.to(feats.dtype)


def convolve_gathered(feats: Tensor, geometry: Geometry, weight: Tensor, bias: Tensor) -> Tensor:
    """One product over all gathered neighbours, zeros included, in blocks of rows: fewest kernels.

    Arguments and result as `convolve_by_offset`.
    """
    padded = F.pad(feats, (0, 0, 0, 1))
    rows = max(1, GATHER_BYTES // (27 * feats.shape[1] * feats.element_size()))
    flat = weight.flatten(1)
    blocks = [
        F.linear(padded.index_select(0, block.flatten()).unflatten(0, (-1, 27)).flatten(1), flat, bias)
        for block in neighbour_table(geometry).split(rows)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


class SparseKernel(nn.Module):
    """Weight (C_out, k, k, k, C_in) and bias of a sparse convolution, named as the published checkpoints do."""

    is_matrix_layer = True

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, kernel, kernel, kernel, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        # The initialisation of torch's dense convolutions.
        bound = 1 / math.sqrt(in_channels * kernel**3)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)


class SubmanifoldConv3d(nn.Module):
    """y[p] = b + Σ_o W[:, o] · x[p + o] over the occupied cells around p: cross-correlation, 3-cube or 1-cube.

    spconv_layout: the 1-cube's weight memory is read as (C_in, C_out) instead of (C_out, C_in), as spconv 2 does
    (its issue 450); published weights, trained that way, need it. It has no effect on the 3-cube.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, *, spconv_layout: bool = True) -> None:
        super().__init__()
        if kernel not in (1, 3):
            raise InputError(f"a sub-manifold convolution has kernel 1 or 3, got {kernel}")
        self.spconv_layout = spconv_layout
        self.conv = SparseKernel(in_channels, out_channels, kernel)

    def forward(self, x: SparseTensor) -> SparseTensor:
        """Features (N, C_in) -> (N, C_out) on the same cells; same dtype as the weight."""
        weight, bias = self.conv.weight, self.conv.bias
        out_channels, kernel, in_channels = weight.shape[0], weight.shape[1], weight.shape[-1]
        if x.feats.shape[1] != in_channels:
            raise InputError(f"convolution of {in_channels} channels got features {tuple(x.feats.shape)}")
        if kernel == 1:
            flat = weight.flatten()
            matrix = flat.view(in_channels, out_channels).t() if self.spconv_layout else flat.view(out_channels, -1)
            return x.replace(F.linear(x.feats, matrix, bias))
        # Accelerators would wait for 80 small kernels; a processor pays for every product with a zero instead.
        convolve = convolve_by_offset if x.feats.device.type == "cpu" else convolve_gathered
        return x.replace(convolve(x.feats, x.geometry, weight.flatten(1, 3), bias))
