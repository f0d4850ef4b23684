"""Exponential moving average of parameters."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class ParameterAverage:
    """average ← d · average + (1 - d) · parameters, d = min(decay, (1 + n) / (10 + n)) at update n.

    The smaller decay of the first updates forgets the random start. Buffers are taken as they are at the end.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.average = {name: p.detach().clone() for name, p in self._own(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the parameters of `module`, after each step of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        own = self._own(module)
        torch._foreach_lerp_(list(self.average.values()), [own[name].detach() for name in self.average], 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchange average and parameters; a second call undoes it."""
        for name, parameter in self._own(module).items():
            kept = parameter.detach().clone()
            parameter.copy_(self.average[name])
            self.average[name].copy_(kept)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Tensors by parameter name, and the number of updates under 'updates'."""
        return {"updates": self.updates, **self.average}

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Inverse of `state_dict`."""
        self.updates = int(state["updates"])
        for name, average in self.average.items():
            average.copy_(torch.as_tensor(state[name]))

    def _own(self, module: nn.Module) -> dict[str, Tensor]:
        own = dict(module.named_parameters())
        return {name: own[name] for name in self.names}
