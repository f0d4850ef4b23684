"""Several samples of one object: which to show, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.special import expit, logit

from ..errors import DataFormatError, EmptyResultError
from ..types import BoolArray, Float32Array, Mesh

TEMPERATURE = "occupancy_temperature"
"""Entry of a checkpoint's metadata: logits of its decoder divided by this are calibrated."""
CHANCE_CURVE = "occupancy_chance_curve"
"""Entry of a checkpoint's metadata: [slope, intercept] of its `ChanceCurve`."""
LEAST_FILLED = 0.1
"""Voxels with a smaller chance are never filled."""
SUREST = 1e-5
"""Chances nearer to 0 or 1 than this count as this."""
OBSERVED_CONFIDENCE = 0.95
"""Confidence of the surface where it was measured."""
OBSERVED_REACH = 1.5
"""Distance in voxels from the observed ones within which a vertex counts as measured; it fades out over one more."""


@dataclass(frozen=True)
class ChanceCurve:
    """logit p' = slope · logit p + intercept (Platt 1999): the chance p' that a voxel is full, where samples give it p.

    A temperature alone cannot say that all samples leave out the same part: that takes an intercept.
    """

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, probability: np.ndarray) -> Float32Array:
        """Chances of any shape, in [0, 1]."""
        if self == ChanceCurve():
            return np.asarray(probability, dtype=np.float32)
        logits = chance_logits(np.asarray(probability, dtype=np.float32))
        return np.asarray(expit(self.slope * logits + self.intercept), dtype=np.float32)


def chance_logits(probability: np.ndarray) -> np.ndarray:
    """Finite logits of chances in [0, 1], in their precision: none counts as surer than `SUREST`."""
    return np.asarray(logit(np.clip(probability, SUREST, 1.0 - SUREST)))


def chance_curve(metadata: Mapping[str, Any], source: str) -> ChanceCurve:
    """That of a checkpoint (`CHANCE_CURVE` in its metadata, default: chances as they are).

    Raises `DataFormatError` for one that is not two numbers with a positive slope; `source` names the checkpoint.
    """
    given = metadata.get(CHANCE_CURVE)
    if given is None:
        return ChanceCurve()
    numbers = isinstance(given, list) and len(given) == 2 and not any(isinstance(n, bool) for n in given)
    if not numbers or not all(isinstance(n, (int, float)) and np.isfinite(n) for n in given) or given[0] <= 0:
        raise DataFormatError(f"{source}: {CHANCE_CURVE} must be [slope, intercept], slope above 0, got {given!r}")
    return ChanceCurve(float(given[0]), float(given[1]))


def most_typical(occupied: BoolArray) -> int:
    """The sample (of `occupied` (H, R, R, R) bool) that overlaps best with the share of samples that have each voxel.

    Overlap is their soft intersection over union. Raises `EmptyResultError` if every sample is empty.
    """
    if not occupied.any():
        raise EmptyResultError("the generator found no occupied voxel: more views, another seed or another checkpoint")
    flat = occupied.reshape(len(occupied), -1).astype(np.float32)
    frequency = flat.mean(axis=0)
    together, either = np.minimum(flat, frequency).sum(axis=1), np.maximum(flat, frequency).sum(axis=1)
    return int(np.argmax(together / np.maximum(either, 1.0)))


def occupancy_probability(logits: np.ndarray) -> Float32Array:
    """(R, R, R) float32: probability that a voxel is occupied, the mean over the samples (H, R, R, R).

    Logits are calibrated: their sigmoid is the probability that a sample gives (see `calibrated`).
    """
    return np.asarray(expit(logits.astype(np.float32)).mean(axis=0), dtype=np.float32)


def filling_logit(probability: np.ndarray) -> float:
    """Logit of the chance from which on voxels are filled, so that the expected F-measure of the shape is the largest.

    That is half of that measure (Lipton et al. 2014): a shape that nothing is sure about still is as large as it should
    be, where the likelier state of every voxel by itself would be nothing at all. probability (R, R, R), of one object.
    """
    chances = np.sort(probability, axis=None)[::-1].astype(np.float64)
    found = np.cumsum(chances)
    measure = 2.0 * found / (np.arange(1, len(chances) + 1) + found[-1])
    return float(logit(np.clip(measure.max() / 2.0, LEAST_FILLED, 1.0 - SUREST)))


def common_logits(probability: np.ndarray, level: float) -> Float32Array:
    """(R, R, R) of what samples have in common, whose chances these are; positive from the logit `level` on."""
    return np.asarray(chance_logits(probability) - level, dtype=np.float32)


def calibrated(logits: np.ndarray, metadata: Mapping[str, Any], source: str) -> Float32Array:
    """Logits over the temperature that a checkpoint states (`TEMPERATURE` in its metadata, default 1).

    Raises `DataFormatError` for one that is no positive number; `source` names the checkpoint.
    """
    temperature = metadata.get(TEMPERATURE, 1.0)
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)) or not 0 < temperature < np.inf:
        raise DataFormatError(f"{source}: {TEMPERATURE} must be a positive number, got {temperature!r}")
    return np.asarray(logits, dtype=np.float32) / np.float32(temperature)


def with_confidence(mesh: Mesh, probability: np.ndarray, surface: BoolArray | None = None) -> Mesh:
    """The mesh (grid frame) with `vertex_confidence` (V,) in [0, 1]: how sure it is that the surface is there.

    Where samples agree on the surface, one side of it has probability 1 and the other 0: the confidence of what was
    imagined is the largest step of the `probability` (R, R, R) across the voxels around the vertex. Near observed
    voxels (`surface` (R, R, R) bool) it is at least `OBSERVED_CONFIDENCE`: there it was measured.
    """
    R = len(probability)
    padded = np.pad(probability, 1)
    step = ndimage.maximum_filter(padded, size=3) - ndimage.minimum_filter(padded, size=3)
    place = (mesh.vertices.astype(np.float64) + 0.5) * R
    i, j, k = (np.clip(np.floor(place).astype(np.intp), 0, R - 1) + 1).T
    confidence = step[i, j, k]
    if surface is not None and surface.any():
        distance = ndimage.distance_transform_edt(~surface)
        near = ndimage.map_coordinates(distance, place.T - 0.5, order=1, mode="nearest")
        measured = OBSERVED_CONFIDENCE * np.clip(OBSERVED_REACH + 1.0 - near, 0.0, 1.0)
        confidence = np.maximum(confidence, measured)
    return replace(mesh, vertex_confidence=confidence.astype(np.float32))
