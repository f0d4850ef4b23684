"""Noise by seed: the same for an object whatever the device and whoever shares its batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError


def object_seed(seed: int, object_id: str | int, hypothesis: int = 0, purpose: str = "") -> int:
    """Seed of one object's noise, the same in every process and on every machine, in [0, 2^63).

    purpose tells apart the draws of one hypothesis (such as the two stages).
    """
    text = json.dumps([int(seed), str(object_id), int(hypothesis), purpose])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def draw_noise(
    seeds: Sequence[int],
    shape: Sequence[int],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(len(seeds), *shape) of standard normal numbers, entry b from seeds[b] alone.

    Drawn in float32 on the CPU, so that neither the device nor the other objects of the batch change a result.
    """
    return torch.stack([_normal(seed, tuple(shape)) for seed in seeds]).to(device=device, dtype=dtype)


def draw_sparse_noise(
    seeds: Sequence[int],
    counts: Sequence[int],
    channels: int,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(sum of counts, channels): counts[b] rows from seeds[b] alone, samples in order (see `draw_noise`)."""
    if len(seeds) != len(counts):
        raise InputError(f"one seed per sample: got {len(seeds)} seeds for {len(counts)} samples")
    rows = [_normal(seed, (int(count), channels)) for seed, count in zip(seeds, counts, strict=True)]
    return torch.cat(rows).to(device=device, dtype=dtype)


def _normal(seed: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed)))
