"""Recording of what modules return on the way, for the `mid.*` of a case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def recorded(points: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """Fills the dict that it yields: 'mid.<name>' -> last output of each module of `points`."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[f"mid.{name}"] = output

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in points.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
