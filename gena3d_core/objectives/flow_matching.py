"""Training objective of flow matching (Lipman et al. 2023).

Flow time t is 1 at the noise and 0 at the data. t has one entry per sample of a dense batch (B, ...), or one per row
of sparse features (N, C): give t[batch_index] there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..sampling import SIGMA_MIN, estimate_x0


def sampled_times(
    count: int,
    *,
    mean: float = 1.0,
    std: float = 1.0,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """(count,) logit-normal flow times: sigmoid of N(mean, std²), as TRELLIS draws them."""
    return logit_normal(torch.randn(count, generator=generator, device=device), mean, std)


def logit_normal(normal: Tensor, mean: float = 1.0, std: float = 1.0) -> Tensor:
    """sigmoid(mean + std · normal)."""
    return torch.sigmoid(mean + std * normal)


def noise_level(t: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """σ + (1 - σ) t: how much noise x_t holds."""
    return sigma_min + (1.0 - sigma_min) * t


def interpolate(x0: Tensor, noise: Tensor, t: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """x_t = (1 - t) x0 + (σ + (1 - σ) t) ε. Amodal3R trains with sigma_min 0."""
    t = _per_sample(t, x0)
    return (1.0 - t) * x0 + noise_level(t, sigma_min) * noise


def velocity_target(x0: Tensor, noise: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """dx_t/dt = (1 - σ) ε - x0."""
    return (1.0 - sigma_min) * noise - x0


def estimated_x0(x_t: Tensor, velocity: Tensor, t: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """The data as a predicted velocity sees them (SceneGen's collision term decodes it)."""
    return estimate_x0(x_t, velocity, _per_sample(t, x_t), sigma_min)


def remove_noise(x_t: Tensor, noise: Tensor, t: Tensor, sigma_min: float = SIGMA_MIN) -> Tensor:
    """Inverse of `interpolate` for known noise and t < 1."""
    t = _per_sample(t, x_t)
    return (x_t - noise_level(t, sigma_min) * noise) / (1.0 - t)


def velocity_loss(velocity: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all numbers; of sparse features, all rows of all samples weigh the same."""
    return F.mse_loss(velocity.float(), target.float())


def _per_sample(t: Tensor, like: Tensor) -> Tensor:
    """t (B,) with as many trailing axes as `like` (B, ...) has."""
    if t.shape != like.shape[:1]:
        raise InputError(f"t must have one entry for each of the {len(like)} samples, got {tuple(t.shape)}")
    return t.reshape(-1, *[1] * (like.ndim - 1))
