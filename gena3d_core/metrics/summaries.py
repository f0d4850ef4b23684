"""Means over what is known, their errors, and cells of tables."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

CONFIDENCE = 1.96
"""Standard errors to either side of a mean in which the true one lies with 95 %."""


def known_mean(values: np.ndarray) -> float:
    """Mean of the finite values (N,); NaN without any."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def standard_error(values: np.ndarray) -> float:
    """Standard error of the mean of the finite values (N,); NaN for less than two."""
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1) / np.sqrt(len(known))) if len(known) > 1 else float("nan")


def finite_or_none(value: Any) -> Any:
    """None instead of a number that JSON cannot say; anything else as it is."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def cell(value: float | None, factor: float, digits: int, error: float | None = None) -> str:
    """A number of a table, with half of its 95 % interval where its standard error is known; a dash if it is not."""
    if value is None:
        return "–"
    spread = "" if error is None else f" ± {CONFIDENCE * factor * error:.{digits}f}"
    return f"{factor * value:.{digits}f}{spread}"
