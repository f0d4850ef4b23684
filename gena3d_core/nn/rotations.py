"""Rotations in torch, differentiable."""

from __future__ import annotations

import torch
from torch import Tensor


def quaternion_matrices(quat_wxyz: Tensor) -> Tensor:
    """Unit quaternions (..., 4), w first -> rotation matrices (..., 3, 3)."""
    w, x, y, z = quat_wxyz.unbind(dim=-1)
    entries = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))
