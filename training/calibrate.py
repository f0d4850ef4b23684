"""Temperature of the decoder's logits, so that the share of samples that fill a voxel is the chance that it is full.

A generator that has learned its training objects by heart is too sure of new ones: one number, fitted on held-out
objects of the training split (Guo et al. 2017), makes up for most of it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from gena3d_core.errors import InputError

from .datasets import ExampleRef, evenly, open_split
from .objectives_flow import FlowTask, true_occupancy
from .recipes.settings import FlowRecipe

EXAMPLES, HYPOTHESES = 32, 4
SAMPLED_AT_ONCE = 8
LOWEST, HIGHEST = 0.5, 32.0
"""Temperatures that are considered."""
UNCERTAIN = -8.0
"""Voxels whose logit is below this in every sample are empty for sure, and would only drown the others."""


def occupancy_temperature(recipe: FlowRecipe, checkpoint: Path, device: torch.device) -> float:
    """Temperature for the result of `recipe` in the folder `checkpoint`."""
    task = FlowTask(recipe, open_split(recipe), device)
    task.load(checkpoint)
    examples = evenly(task.split.held_out, EXAMPLES)
    parts = [_uncertain(task, examples[i : i + SAMPLED_AT_ONCE]) for i in range(0, len(examples), SAMPLED_AT_ONCE)]
    logits, truth = (torch.cat(values) for values in zip(*parts, strict=True))
    return fit_temperature(logits, truth)


def fit_temperature(logits: Tensor, truth: Tensor) -> float:
    """T that makes the mean of sigmoid(logits / T) over the samples most likely.

    logits (V, H) of V voxels in H samples, truth (V,) chance in [0, 1] that they are full. Raises `InputError` for
    none.
    """
    if not len(logits):
        raise InputError("no voxel is uncertain: there is nothing to calibrate")

    def surprise(log_temperature: float) -> float:
        chance = torch.sigmoid(logits / float(torch.tensor(log_temperature).exp())).mean(dim=1)
        return float(F.binary_cross_entropy(chance.clamp(1e-6, 1 - 1e-6), truth))

    limits = tuple(float(torch.tensor(value).log()) for value in (LOWEST, HIGHEST))
    return float(torch.tensor(minimize_scalar(surprise, bounds=limits, method="bounded").x).exp())


def _uncertain(task: FlowTask, examples: list[ExampleRef]) -> tuple[Tensor, Tensor]:
    logits = task.sample(examples, HYPOTHESES).movedim(1, -1)
    truth = true_occupancy(examples)
    open_to_doubt = (logits > UNCERTAIN).any(dim=-1)
    return logits[open_to_doubt], truth[open_to_doubt]
