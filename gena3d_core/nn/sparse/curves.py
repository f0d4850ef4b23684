"""Space-filling curves: places of grid cells along a line that stays near to them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def morton_code(cells: Tensor, bits: int) -> Tensor:
    """Place along the Morton curve: the bits of the coordinates interleaved, first axis most significant.

    cells (N, 3) int64 below 2^bits -> (N,) int64.
    """
    code = torch.zeros_like(cells[:, 0])
    for bit in range(bits - 1, -1, -1):
        for axis in range(3):
            code = code << 1 | cells[:, axis] >> bit & 1
    return code


def hilbert_code(cells: Tensor, bits: int) -> Tensor:
    """Place along the Hilbert curve, whose consecutive cells are neighbours (Skilling 2004, "Programming the Hilbert
    curve"): the coordinates are rotated level by level and then Gray-decoded.

    cells (N, 3) int64 below 2^bits -> (N,) int64.
    """
    axes = list(cells.unbind(dim=1))
    for bit in range(bits - 1, 0, -1):
        low = (1 << bit) - 1
        for n in range(3):
            upper = (axes[n] >> bit & 1).bool()
            # Upper half: mirror the first axis; lower half: exchange it with this one.
            exchange = (axes[0] ^ axes[n]) & low
            axes[0], axes[n] = _turn(axes[0], axes[n], upper, exchange, low, n)
    for n in range(1, 3):
        axes[n] = axes[n] ^ axes[n - 1]
    flip = torch.zeros_like(axes[0])
    for bit in range(bits - 1, 0, -1):
        flip = torch.where((axes[2] >> bit & 1).bool(), flip ^ ((1 << bit) - 1), flip)
    return morton_code(torch.stack([axis ^ flip for axis in axes], dim=1), bits)


def _turn(first: Tensor, other: Tensor, upper: Tensor, exchange: Tensor, low: int, axis: int) -> tuple[Tensor, Tensor]:
    turned = torch.where(upper, first ^ low, first ^ exchange)
    return turned, turned if axis == 0 else torch.where(upper, other, other ^ exchange)


CURVES: dict[str, Callable[[Tensor, int], Tensor]] = {"hilbert": hilbert_code, "morton": morton_code}
