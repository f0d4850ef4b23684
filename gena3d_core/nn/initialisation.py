"""Initialisation of the flow models and of the structured-latent networks."""

from __future__ import annotations

from torch import nn

from .blocks import TransformerBlock
from .embeddings import TimestepEmbedder

TIMESTEP_STD = 0.02


def xavier(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear layer inside `module`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def zero(*layers: nn.Module) -> None:
    """Zero every parameter of the layers: a residual branch that starts as nothing."""
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def initialise_transformer(module: nn.Module) -> None:
    """Xavier linears, N(0, 0.02) timestep perceptrons, zero adaLN projections, for everything inside `module`."""
    xavier(module)
    for layer in module.modules():
        if isinstance(layer, TimestepEmbedder):
            for linear in layer.mlp:
                if isinstance(linear, nn.Linear):
                    nn.init.normal_(linear.weight, std=TIMESTEP_STD)
        elif isinstance(layer, TransformerBlock):
            zero(layer.modulations)
