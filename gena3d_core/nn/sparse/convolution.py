"""Sub-manifold convolution: output only at occupied cells, zero for missing neighbours (Graham et al. 2018)."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ...errors import InputError
from .tensor import Geometry, SparseTensor

CENTRE = 13
"""Of the 27 offsets (a, b, d) - 1 of a 3-cube in raster order, the cell itself; 26 - n is opposite to n."""

BLOCK_ROWS = 2048
"""Rows summed at a time on a processor: few enough for its cache."""

GATHER_BYTES = 2**28
"""Largest block of gathered neighbours that an accelerator holds at a time."""


class Pairs(NamedTuple):
    """Cells that are neighbours along one offset, cell of `neighbour` = cell of `row` + offset, both ascending.

    row, neighbour   (P,) int64 places in the lexicographic order of the cells
    cuts             first pair of each block of `BLOCK_ROWS` rows, then P
    """

    row: Tensor
    neighbour: Tensor
    cuts: tuple[int, ...]


def neighbour_pairs(geometry: Geometry) -> dict[int, Pairs]:
    """Offset -> its pairs, for all offsets that have any, except the cell itself. Made once."""
    return geometry.cached(("neighbour_pairs", BLOCK_ROWS), lambda: _neighbour_pairs(geometry))


def neighbour_table(geometry: Geometry) -> Tensor:
    """(N, 27) int64 row of each neighbour, N where there is none. Made once."""
    return geometry.cached("neighbour_table", lambda: _neighbour_table(geometry))


def _neighbour_pairs(geometry: Geometry) -> dict[int, Pairs]:
    keys, _, (_, stride_i, stride_j, _) = geometry.sorted_keys
    blocks = torch.arange(0, len(keys) + BLOCK_ROWS, BLOCK_ROWS, device=keys.device)
    found = {}
    for line in range(5):
        # The three cells of a line follow one another in the sorted keys: one search serves them all.
        wanted = keys + ((line // 3 - 1) * stride_i + (line % 3 - 1) * stride_j - 1)
        place = torch.searchsorted(keys, wanted)
        for step in range(min(3, CENTRE - 3 * line)):
            hit = keys[place.clamp(max=len(keys) - 1)] == wanted + step
            row = torch.nonzero(hit).flatten()
            if len(row):
                ends, n = (row, place[row]), 3 * line + step
                # Keys along an offset ascend together, so the exchanged pairs of the opposite offset are sorted too.
                for offset, (start, end) in ((n, ends), (26 - n, ends[::-1])):
                    found[offset] = Pairs(start, end, tuple(torch.searchsorted(start, blocks).tolist()))
            place = place + hit
    return found


def _neighbour_table(geometry: Geometry) -> Tensor:
    count, order = len(geometry), geometry.sorted_keys.order
    table = torch.full((count, 27), count, device=order.device)
    table[:, CENTRE] = torch.arange(count, device=order.device)
    for n, pairs in neighbour_pairs(geometry).items():
        table[order[pairs.row], n] = order[pairs.neighbour]
    return table


def sum_by_offset(feats: Tensor, geometry: Geometry, weight: Tensor) -> Tensor:
    """Σ_o W[:, o] · feats[p + o], one product per offset over the pairs that exist, in float32 at least: the fewest
    operations.

    feats (N, C_in), weight (C_out, 27, C_in) -> (N, C_out).
    """
    sums = torch.promote_types(feats.dtype, torch.float32)
    pairs, ordered = neighbour_pairs(geometry), feats.index_select(0, geometry.sorted_keys.order)
    out = feats.new_empty(len(feats), len(weight))
    for block, start in enumerate(range(0, len(feats), BLOCK_ROWS)):
        own = slice(start, start + BLOCK_ROWS)
        total = F.linear(ordered[own], weight[:, CENTRE]).to(sums)
        for n, (row, neighbour, cuts) in pairs.items():
            low, high = cuts[block], cuts[block + 1]
            if high > low:
                terms = F.linear(ordered.index_select(0, neighbour[low:high]), weight[:, n])
                total.index_add_(0, row[low:high] - start, terms.to(sums))
        out[geometry.sorted_keys.order[own]] = total.to(out.dtype)
    return out


def sum_gathered(feats: Tensor, geometry: Geometry, weight: Tensor) -> Tensor:
    """The same sum as one product over all gathered neighbours, zeros included, in large blocks: the fewest kernels."""
    padded = F.pad(feats, (0, 0, 0, 1))
    rows = max(1, GATHER_BYTES // (27 * feats.shape[1] * feats.element_size()))
    blocks = [
        F.linear(padded.index_select(0, block.flatten()).unflatten(0, (-1, 27)).flatten(1), weight.flatten(1))
        for block in neighbour_table(geometry).split(rows)
    ]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


class NeighbourSum(torch.autograd.Function):
    """`sum_by_offset` or `sum_gathered`, whichever suits the device.

    Its own backward keeps nothing but features and weight for training, where autograd would keep every gathered copy.
    """

    @staticmethod
    def forward(ctx: Any, feats: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.geometry = geometry
        return _neighbour_sum(feats, geometry, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        feats, weight = ctx.saved_tensors
        grad_feats = grad_weight = None
        if ctx.needs_input_grad[0]:
            # What row p gave to its neighbour at offset o comes back to it: the sum over opposite offsets.
            grad_feats = _neighbour_sum(grad, ctx.geometry, weight.flip(1).transpose(0, 2))
        if ctx.needs_input_grad[1]:
            order = ctx.geometry.sorted_keys.order
            grad, feats = grad.index_select(0, order), feats.index_select(0, order)
            grad_weight = torch.zeros_like(weight)
            grad_weight[:, CENTRE] = grad.t() @ feats
            for n, pairs in neighbour_pairs(ctx.geometry).items():
                grad_weight[:, n] = grad.index_select(0, pairs.row).t() @ feats.index_select(0, pairs.neighbour)
        return grad_feats, grad_weight, None


def _neighbour_sum(feats: Tensor, geometry: Geometry, weight: Tensor) -> Tensor:
    # Accelerators would wait for 80 small kernels; a processor pays for every product with a zero instead.
    return (sum_by_offset if feats.device.type == "cpu" else sum_gathered)(feats, geometry, weight)


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
        return x.replace(NeighbourSum.apply(x.feats, weight.flatten(1, 3), x.geometry) + bias)
