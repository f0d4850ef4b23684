"""Training objective of the sparse-structure VAE: reconstruction of occupancy and divergence of the posterior."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def dice_loss(logits: Tensor, occupancy: Tensor) -> Tensor:
    """1 - (2 Σ p o + 1) / (Σ p + Σ o + 1), p = sigmoid(logits), sums over the whole batch."""
    p, o = torch.sigmoid(logits.float()), occupancy.float()
    return 1.0 - (2.0 * (p * o).sum() + 1.0) / (p.sum() + o.sum() + 1.0)


def cross_entropy_loss(logits: Tensor, occupancy: Tensor) -> Tensor:
    """Mean binary cross-entropy."""
    return F.binary_cross_entropy_with_logits(logits.float(), occupancy.float())


def l1_loss(logits: Tensor, occupancy: Tensor) -> Tensor:
    """Mean |sigmoid(logits) - occupancy|."""
    return (torch.sigmoid(logits.float()) - occupancy.float()).abs().mean()


def kl_divergence(mean: Tensor, logvar: Tensor) -> Tensor:
    """Mean over all latent numbers of the divergence of N(mean, e^logvar) from N(0, 1)."""
    mean, logvar = mean.float(), logvar.float()
    return 0.5 * (mean.square() + logvar.exp() - logvar - 1.0).mean()


RECONSTRUCTION: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float]] = {
    "dice": (dice_loss, 1e-3),
    "bce": (cross_entropy_loss, 1e-6),
    "l1": (l1_loss, 1e-6),
}
"""Name of a reconstruction loss of occupancy -> its function and the weight of the divergence beside it."""


def sparse_structure_vae_loss(
    logits: Tensor,
    occupancy: Tensor,
    mean: Tensor,
    logvar: Tensor,
    *,
    kind: str = "dice",
    kl_weight: float | None = None,
) -> Tensor:
    """Reconstruction plus weighted divergence; kind is a name of `RECONSTRUCTION`, kl_weight None its default.

    logits and occupancy (B, 1, R, R, R), mean and logvar of the posterior.
    """
    if kind not in RECONSTRUCTION:
        raise InputError(f"unknown reconstruction loss '{kind}', one of {', '.join(RECONSTRUCTION)}")
    if logits.shape != occupancy.shape:
        raise InputError(f"logits {tuple(logits.shape)} and occupancy {tuple(occupancy.shape)} must have one shape")
    reconstruction, default_weight = RECONSTRUCTION[kind]
    weight = default_weight if kl_weight is None else kl_weight
    return reconstruction(logits, occupancy) + weight * kl_divergence(mean, logvar)
