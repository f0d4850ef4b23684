"""How far a run is, and its learning rate."""

from __future__ import annotations

import math

from .recipes.settings import Recipe


def progress(recipe: Recipe, step: int, elapsed_s: float, steps_per_epoch: float) -> float:
    """Done share of the run: that of the limit which is nearest; 1 or more at the end."""
    shares = [
        step / recipe.max_steps if recipe.max_steps else 0.0,
        step / (recipe.epochs * steps_per_epoch) if recipe.epochs else 0.0,
        elapsed_s / (3600.0 * recipe.hours) if recipe.hours else 0.0,
    ]
    return max(shares)


def learning_rate(recipe: Recipe, step: int, done: float) -> float:
    """Linear warm-up, then a half cosine over the done share of the run down to `final_rate` of the peak."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps) if recipe.warmup_steps else 1.0
    low = recipe.final_rate
    return recipe.learning_rate * warm * (low + (1.0 - low) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done))))
