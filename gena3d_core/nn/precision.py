"""Half precision as the published networks use it: matrix products in half, norms and gains in float32."""

from __future__ import annotations

import torch
from torch import nn

MATRIX_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d)


def cast_matrix_layers(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast linear and convolution layers (and layers marked by `is_matrix_layer`) inside `module`, nothing else."""
    for layer in module.modules():
        if isinstance(layer, MATRIX_LAYERS) or getattr(layer, "is_matrix_layer", False):
            layer.to(dtype)


def matrix_dtype(module: nn.Module) -> torch.dtype:
    """The dtype that the matrix layers of `module` compute in; float32 if there are none."""
    for layer in module.modules():
        if isinstance(layer, MATRIX_LAYERS) or getattr(layer, "is_matrix_layer", False):
            return next(layer.parameters()).dtype
    return torch.float32
