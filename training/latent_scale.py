"""Latents of variance 1 by scaling the weights of the VAE, so that whoever uses it need not know of any scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def scaled_vae(encoder: Any, decoder: Any, inputs: Iterable[Tensor], device: torch.device) -> tuple[Any, Any, float]:
    """Copies of encoder and decoder with latents divided by their standard deviation over `inputs`, and that scale.

    inputs are batches (B, 1, R, R, R). One scale for all channels: channels that carry little stay small, and a
    shift could not be undone exactly at the decoder's zero padding.
    """
    means = torch.cat([encoder(batch.to(device)).mean.float().cpu() for batch in inputs])
    scale = float((means - means.mean(dim=(0, 2, 3, 4), keepdim=True)).square().mean().sqrt())
    if not (math.isfinite(scale) and scale > 1e-6):
        scale = 1.0  # a VAE that ignores its input, at the start of training
    encoder, decoder = deepcopy(encoder), deepcopy(decoder)
    last = encoder.out_layer[-1]
    half = last.out_channels // 2
    last.weight[:half] /= scale
    last.bias[:half] /= scale
    last.bias[half:] -= 2.0 * math.log(scale)
    decoder.input_layer.weight *= scale
    return encoder, decoder, scale
