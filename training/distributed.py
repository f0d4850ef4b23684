"""Processes under torchrun; a plain start is one process."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gena3d_core.device import default_device
from gena3d_core.errors import InputError


@dataclass(frozen=True)
class Processes:
    """Number of this process, and how many there are."""

    rank: int = 0
    count: int = 1

    def wrapped(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network with gradients averaged over all processes."""
        if self.count == 1:
            return network
        ids = None if device.type == "cpu" else [device.index]
        # A batch in which nobody has a cloud does not use the attention to it.
        return nn.parallel.DistributedDataParallel(network, device_ids=ids, find_unused_parameters=True)

    def without_sync(self, network: Any) -> AbstractContextManager[None]:
        """Inside, gradients are summed up but not exchanged."""
        return nullcontext() if self.count == 1 else network.no_sync()

    def agree(self, stopped: float, *first: float) -> tuple[float, ...]:
        """`stopped` if it is so anywhere, and the first process's values, in every process."""
        if self.count == 1:
            return (stopped, *first)
        values = torch.tensor([stopped, *(first if self.rank == 0 else [-1.0] * len(first))], dtype=torch.float64)
        values = values.to(default_device() if dist.get_backend() != "gloo" else "cpu")
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        return tuple(values.tolist())

    def barrier(self) -> None:
        """Wait for all."""
        if self.count > 1:
            dist.barrier()


SINGLE = Processes()


def chosen_device(name: str) -> torch.device:
    """'auto' takes the accelerator, if there is one. Raises `InputError` for an unknown device."""
    try:
        return torch.device(default_device() if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}': {error}") from error


def join_processes(device: str, batch: int) -> tuple[Processes, torch.device]:
    """The processes of this run and the device of this one; 'auto' takes the accelerator, if there is one.

    Raises `InputError` if the batch cannot be shared out, or for an unknown device.
    """
    target = chosen_device(device)
    if not dist.is_torchelastic_launched():
        return SINGLE, target
    if target.type != "cpu":
        target = torch.device(target.type, dist.get_node_local_rank())
        torch.accelerator.set_device_index(target.index)
    dist.init_process_group(dist.get_default_backend_for_device(target))
    processes = Processes(dist.get_rank(), dist.get_world_size())
    if batch % processes.count:
        raise InputError(f"batch {batch} cannot be shared out over {processes.count} processes")
    return processes, target
