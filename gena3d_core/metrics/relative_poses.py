"""How well estimated cameras agree with known ones, pair by pair: neither needs the other's frame or unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..types import Float64Array

MIN_BASELINE = 1e-9
"""Pairs of cameras nearer together tell no direction."""


@dataclass(frozen=True, eq=False)
class RelativePoseErrors:
    """Of the P pairs of V cameras, first one before the second.

    rotation_deg   (P,) angle between the estimated and the known relative rotation
    direction_deg  (P,) angle between the estimated and the known direction from the first to the second camera, seen
                   from the first; NaN for pairs at one place
    """

    rotation_deg: Float64Array
    direction_deg: Float64Array


def relative_pose_errors(T_estimate_camera: np.ndarray, T_world_camera: np.ndarray) -> RelativePoseErrors:
    """Errors of estimated cameras (V, 4, 4) against known ones (V, 4, 4), in frames and units of their own.

    Raises `InputError` for fewer than 2 cameras or arrays that do not fit.
    """
    estimated, known = np.asarray(T_estimate_camera, np.float64), np.asarray(T_world_camera, np.float64)
    if estimated.shape != known.shape or estimated.ndim != 3 or len(known) < 2:
        raise InputError(f"poses must be (V, 4, 4) in both frames, V >= 2, got {estimated.shape} and {known.shape}")
    first, second = np.triu_indices(len(known), k=1)
    turns, ways = zip(*(_relative(T, first, second) for T in (estimated, known)), strict=True)
    cosine = (np.einsum("pij,pij->p", *turns) - 1.0) / 2.0
    lengths = [np.linalg.norm(way, axis=1) for way in ways]
    with np.errstate(invalid="ignore", divide="ignore"):
        along = np.einsum("pi,pi->p", *ways) / (lengths[0] * lengths[1])
    along[np.minimum(*lengths) < MIN_BASELINE] = np.nan
    return RelativePoseErrors(_degrees(cosine), _degrees(along))


def _relative(T: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[Float64Array, Float64Array]:
    """Rotations (P, 3, 3) and translations (P, 3) of the second camera in the first one's frame."""
    inverse = np.swapaxes(T[first, :3, :3], 1, 2)
    return inverse @ T[second, :3, :3], np.einsum("pij,pj->pi", inverse, T[second, :3, 3] - T[first, :3, 3])


def _degrees(cosine: np.ndarray) -> Float64Array:
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
