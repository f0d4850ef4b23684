"""Rotary position embedding (Su et al. 2021) of tokens that lie in a plane."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class PlanarRotation:
    """Turns queries and keys by their positions, so that their products depend on differences of positions only.

    The first half of a head's channels is turned by the row, the second by the column. Inside a half, channel i and
    the one a quarter of the head further on make a pair, turned by position · base^(-i / pairs).

    cos, sin  (N, 1, 2, D / 4) float32: token, any head, row and column, pair
    """

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """x (B, N, H, D) -> same shape and dtype, computed in float32 (float64 stays)."""
        if x.ndim != 4 or (x.shape[1], x.shape[3]) != (len(self.cos), 4 * self.cos.shape[-1]):
            raise InputError(
                f"a rotation of {len(self.cos)} tokens with heads {4 * self.cos.shape[-1]} wide "
                f"does not fit (B, N, H, D) {tuple(x.shape)}"
            )
        first, second = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(-1, (2, 2, -1)).unbind(-2)
        turned = [first * self.cos - second * self.sin, first * self.sin + second * self.cos]
        return torch.stack(turned, dim=-2).flatten(-3).to(x.dtype)

    def repeated(self, count: int) -> PlanarRotation:
        """For `count` times the tokens, one copy after the other (views in one stream)."""
        return PlanarRotation(self.cos.repeat(count, 1, 1, 1), self.sin.repeat(count, 1, 1, 1))


def planar_rotation(positions: Tensor, head_width: int, base: float = 100.0) -> PlanarRotation:
    """The rotation of tokens at positions (N, 2), row and column; (0, 0) is not turned.

    base: the slowest pair turns almost `base` times more slowly than the fastest, which turns by one radian a step.
    Raises `InputError` unless head_width is a multiple of 4.
    """
    if head_width % 4:
        raise InputError(f"a planar rotation needs heads whose width is a multiple of 4, got {head_width}")
    if positions.ndim != 2 or positions.shape[1] != 2:
        raise InputError(f"positions must be (N, 2), got {tuple(positions.shape)}")
    pairs = head_width // 4
    exponents = -torch.arange(pairs, dtype=torch.float32, device=positions.device) / pairs
    angles = (positions.float()[:, :, None] * base**exponents)[:, None]
    return PlanarRotation(angles.cos(), angles.sin())
