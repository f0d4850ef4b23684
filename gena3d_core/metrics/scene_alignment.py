"""Alignment of a predicted scene, or of one object, with the truth by FilterReg (SceneGen 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..errors import InputError
from ..geometry.filter_registration import CloudFit, FilterRegConfig, filter_register
from ..geometry.similarity_fit import fit_similarity, upright_rotation, yaw_rotations
from ..types import Float64Array

Alignment = Literal["none", "rigid", "similarity"]
"""none: both are in one frame; rigid: metric scenes; similarity: relative scenes, whose scale is theirs."""
ALIGNMENTS: tuple[Alignment, ...] = ("none", "rigid", "similarity")
YAWS = 8
"""Start headings; FilterReg itself bridges half the angle between two of them with ease."""


def align_clouds(
    predicted: np.ndarray,
    truth: np.ndarray,
    kind: Alignment,
    *,
    matched: tuple[np.ndarray, np.ndarray] | None = None,
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
    seed: int = 0,
) -> CloudFit | None:
    """Transform that lays predicted surface points (N, 3) on true ones (M, 3); None for kind 'none'.

    Starts: as they lie; centred, brought to one size and turned about `up` (unit) by every eighth of a turn; and, where
    three or more objects are known by their ids, laid on each other's middles `matched` ((K, 3), (K, 3)).
    """
    if kind not in ALIGNMENTS:
        raise InputError(f"unknown alignment '{kind}', one of {', '.join(ALIGNMENTS)}")
    if kind == "none":
        return None
    scaled = kind == "similarity"
    starts = [np.eye(4)[None], centred_starts(predicted, truth, scaled=scaled, up=up)]
    if matched is not None and len(matched[0]) >= 3:
        source, target = (np.asarray(points, dtype=np.float64)[None] for points in matched)
        if np.ptp(source, axis=1).max() > 1e-9 and np.ptp(target, axis=1).max() > 1e-9:
            starts.append(fit_similarity(source, target, np.ones(source.shape[:2]), upright=False, scaled=scaled))
    return filter_register(
        predicted, truth, starts=np.concatenate(starts), config=FilterRegConfig(scaled=scaled), seed=seed
    )


def centred_starts(
    predicted: np.ndarray,
    truth: np.ndarray,
    *,
    scaled: bool,
    up: Sequence[float] | np.ndarray = (0.0, 0.0, 1.0),
    yaws: int = YAWS,
) -> Float64Array:
    """(yaws, 4, 4): means on each other, root mean square radii alike if `scaled`, every heading about `up`."""
    source, target = (np.asarray(points, dtype=np.float64) for points in (predicted, truth))
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    spread = float(((source - source_mean) ** 2).sum(axis=1).mean())
    if not spread > 0:
        raise InputError("alignment needs predicted points that are not all the same")
    scale = float(np.sqrt(((target - target_mean) ** 2).sum(axis=1).mean() / spread)) if scaled else 1.0
    axes = upright_rotation(np.asarray(up, dtype=np.float64))
    turns = axes @ yaw_rotations(np.arange(yaws) * (2.0 * np.pi / yaws)) @ axes.T
    S = np.tile(np.eye(4), (yaws, 1, 1))
    S[:, :3, :3] = scale * turns
    S[:, :3, 3] = target_mean - np.einsum("cij,j->ci", S[:, :3, :3], source_mean)
    return S
