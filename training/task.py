"""What the loop trains: a network that gives its loss, batches for it, and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from gena3d_core.checkpoints.bundle import ModelBundle
from gena3d_core.types import UInt8Array

from .datasets import Batch


class Loss(NamedTuple):
    """What is minimised, and the parts that the log shows, without gradients."""

    total: Tensor
    parts: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Metrics of held-out examples; of two evaluations that with the higher score is better; picture (H, W, 3)."""

    metrics: Mapping[str, float]
    score: float
    picture: UInt8Array


class Examples(Protocol):
    """A split of a data set, as far as the loop is concerned."""

    @property
    def train(self) -> Sized: ...


class Task(Protocol):
    """network is called with a batch and gives a `Loss`; everything random of a step comes from the batch's rng."""

    network: Any

    @property
    def split(self) -> Examples:
        """What there is to train on."""
        ...

    def batch(self, indices: Sequence[int], rng: np.random.Generator) -> Batch:
        """Batch of the training examples `indices`, on the CPU."""
        ...

    def evaluate(self) -> Evaluation:
        """Of the network as it is."""
        ...

    def bundle(self, metadata: dict[str, Any]) -> ModelBundle:
        """A checkpoint of the network as it is."""
        ...
