"""Known shapes, made ready to be compared with partial clouds by the thousand: samples, and who is nearest where."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ..errors import InputError
from ..geometry.mesh import sample_surface
from ..io.object_dataset import ObjectDataset
from ..types import Float64Array, Mesh

SAMPLES = 1024
YAWS = 16
FIELD = 32
FIELD_SIDE = 1.3
"""The field of nearest samples spans [-0.65, 0.65]^3."""


@dataclass(frozen=True, eq=False)
class ShapeLibrary:
    """N shapes in [-0.5, 0.5]^3, z up.

    ids      (N,) names; load(number) reads the mesh of one
    samples  (N, P, 3) float32 points spread over the surfaces
    nearest  (N, F^3) int16: for each cell of the field, about the nearest sample
    boxes    (N, YAWS, 2, 3) float64: lowest and highest corner of each shape, turned about z by `yaw_rotations`
    """

    ids: tuple[str, ...]
    load: Callable[[int], Mesh]
    samples: Tensor
    nearest: Tensor
    boxes: Float64Array

    def nearest_points(self, shape: Tensor, points: Tensor) -> Tensor:
        """(C, M, 3) samples of the shapes `shape` (C,) nearest to points (C, M, 3) of their frames, to about a cell."""
        cell = ((points / FIELD_SIDE + 0.5) * FIELD).clamp(0, FIELD - 1).long()
        flat = (cell[..., 0] * FIELD + cell[..., 1]) * FIELD + cell[..., 2]
        index = self.nearest.reshape(-1)[shape[:, None] * FIELD**3 + flat].long()
        return self.samples.reshape(-1, 3)[shape[:, None] * self.samples.shape[1] + index]


def build_library(ids: Iterable[str], load: Callable[[int], Mesh], seed: int = 0) -> ShapeLibrary:
    """Library of the shapes that `load(number)` gives, in the order of `ids`. Raises `InputError` if there are none."""
    ids = tuple(ids)
    if not ids:
        raise InputError("a library of shapes needs at least one shape")
    samples = np.empty((len(ids), SAMPLES, 3), dtype=np.float32)
    nearest = np.empty((len(ids), FIELD**3), dtype=np.int16)
    boxes = np.empty((len(ids), YAWS, 2, 3))
    for number in range(len(ids)):
        samples[number] = sample_surface(load(number), SAMPLES, np.random.default_rng((seed, number)))[0]
        nearest[number] = _nearest_field(samples[number])
        turned = samples[number] @ yaw_rotations().transpose(0, 2, 1)
        boxes[number] = np.stack([turned.min(axis=1), turned.max(axis=1)], axis=1)
    return ShapeLibrary(ids, load, torch.from_numpy(samples), torch.from_numpy(nearest), boxes)


def yaw_rotations() -> Float64Array:
    """(YAWS, 3, 3) rotations about z in equal steps."""
    yaw = np.arange(YAWS) * (2.0 * np.pi / YAWS)
    R = np.tile(np.eye(3), (YAWS, 1, 1))
    R[:, 0, 0] = R[:, 1, 1] = np.cos(yaw)
    R[:, 1, 0] = np.sin(yaw)
    R[:, 0, 1] = -R[:, 1, 0]
    return R


def open_library(directory: str | Path, split: str | None = "train") -> ShapeLibrary:
    """Library of one split of a folder of objects (None: all of it). Raises `DataFormatError`, `InputError`."""
    dataset = ObjectDataset.open(directory)
    # Neighbours in a shard are read together.
    entries = sorted(dataset.select(split), key=lambda entry: (entry.shard, entry.index))
    return build_library([entry.id for entry in entries], lambda number: dataset.load(entries[number]))


def _nearest_field(points: np.ndarray) -> np.ndarray:
    """(F^3,) int16 sample in the occupied cell nearest to each cell."""
    cell = np.clip((points / FIELD_SIDE + 0.5) * FIELD, 0, FIELD - 1).astype(np.intp)
    owner = np.full((FIELD,) * 3, -1, dtype=np.int16)
    owner[tuple(cell.T)] = np.arange(len(points), dtype=np.int16)
    index = ndimage.distance_transform_edt(owner < 0, return_distances=False, return_indices=True)
    return np.asarray(owner[tuple(index)].reshape(-1))
