"""Torch devices of whatever make: which there are, and their memory."""

from __future__ import annotations

import gc

import torch


def default_device() -> str:
    """The accelerator of this machine as torch names it, 'cpu' where there is none."""
    if torch.accelerator.is_available():
        accelerator = torch.accelerator.current_accelerator()
        if accelerator is not None:
            return accelerator.type
    return "cpu"


def device_names() -> list[str]:
    """What torch can compute on, in words: 'cpu', then the name of every accelerator."""
    kind = default_device()
    if kind == "cpu":
        return ["cpu"]
    module = torch.get_device_module(kind)
    describe = getattr(module, "get_device_name", lambda index: f"{kind}:{index}")
    return ["cpu", *(describe(index) for index in range(torch.accelerator.device_count()))]


def memory_bytes(device: str) -> dict[str, int]:
    """'allocated', 'reserved', 'free', 'total' bytes of an accelerator; empty where it is none or does not say."""
    if torch.device(device).type == "cpu" or default_device() == "cpu":
        return {}
    module = torch.get_device_module(device)
    if not hasattr(module, "mem_get_info"):
        return {}
    free, total = module.mem_get_info(device)
    return {
        "allocated": module.memory_allocated(device),
        "reserved": module.memory_reserved(device),
        "free": free,
        "total": total,
    }


def release_cached_memory() -> None:
    """Give memory that torch keeps for tensors which are gone back to the accelerator."""
    gc.collect()
    kind = default_device()
    empty = None if kind == "cpu" else getattr(torch.get_device_module(kind), "empty_cache", None)
    if empty is not None:
        empty()
