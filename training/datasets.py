"""Shards to batches: the examples of a step depend on its number and the seed alone, so that runs resume exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gena3d_core.errors import InputError

from .recipes.settings import Recipe
from .shards import Shard, iterate_examples, open_shards
from .symmetries import transformed_crops, transformed_grids

PROCEDURAL = "procedural"
"""Category of procedural shapes in folders of meshes, and how the ids of `training.shapes` begin."""
THIN_SHARES = (0.1, 0.75)
"""A part is thin where the fullest voxel of a 3 x 3 x 3 neighbourhood is filled by a share between these."""


@dataclass(frozen=True)
class ExampleRef:
    """Where an example lies, and what it shows."""

    shard: Shard
    row: int
    object_id: str
    category: str

    @property
    def procedural(self) -> bool:
        """Whether it shows a made-up shape, not an everyday object."""
        return self.category == PROCEDURAL or self.object_id.startswith(f"{PROCEDURAL}_")

    @property
    def views(self) -> slice:
        """Its rows of the shard's crops."""
        return slice(int(self.shard.view_offsets[self.row]), int(self.shard.view_offsets[self.row + 1]))


@dataclass(frozen=True)
class Split:
    """Examples to train on and, of other objects, to evaluate on."""

    train: list[ExampleRef]
    held_out: list[ExampleRef]


BatchT = TypeVar("BatchT", bound="Batch")


@dataclass(frozen=True)
class Batch:
    """Tensors of a step; every field goes to the device."""

    def to(self: BatchT, device: torch.device) -> BatchT:
        """The same on `device`."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})


@dataclass(frozen=True)
class StructureBatch(Batch):
    """occupancy (B, 1, R, R, R) float32 in [0, 1]: objects, and partial clouds where is_cloud (B,) bool."""

    occupancy: Tensor
    is_cloud: Tensor


@dataclass(frozen=True)
class ViewBatch(Batch):
    """crops (P, 5, S, S) uint8, owner (P,) int64 ascending, visibility (P,) float32."""

    crops: Tensor
    owner: Tensor
    visibility: Tensor


def open_split(recipe: Recipe) -> Split:
    """The examples of the recipe's shards; objects go to either side by a hash of their id.

    `overfit_one` gives one example on both sides. Raises `DataFormatError` without shards, `InputError` without
    objects to train on.
    """
    examples = [
        ExampleRef(shard, row, str(shard.info[row].get("object", "")), str(shard.info[row].get("category", "")))
        for shard, row in iterate_examples(open_shards(Path(recipe.data)))
    ]
    if recipe.overfit_one:
        return Split(examples[:1], examples[:1])
    chosen = {name for name in {e.object_id for e in examples} if is_held_out(name, recipe.held_out)}
    train = [e for e in examples if e.object_id not in chosen]
    if not train:
        raise InputError(f"{recipe.data}: all {len(examples)} examples are held out: render more objects")
    held_out = [e for e in examples if e.object_id in chosen] or train
    everyday = [e for e in train if not e.procedural]
    return Split(train + everyday * (recipe.repeat_everyday - 1), evenly(held_out, recipe.evaluate_count))


def is_held_out(object_id: str, share: float) -> bool:
    """Whether a hash of the id puts the object among the held-out `share`."""
    digest = hashlib.blake2b(object_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def evenly(examples: Sequence[ExampleRef], count: int) -> list[ExampleRef]:
    """At most `count` of them, evenly spaced."""
    if len(examples) <= count:
        return list(examples)
    return [examples[i * len(examples) // count] for i in range(count)]


def batch_indices(count: int, batch: int, number: int, seed: int) -> list[int]:
    """Indices below `count` of batch `number`: a fresh permutation in each epoch, batches run across epochs."""
    positions = range(number * batch, (number + 1) * batch)
    return [int(_permutation(count, position // count, seed)[position % count]) for position in positions]


@lru_cache(maxsize=4)
def _permutation(count: int, epoch: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def structure_batch(examples: Sequence[ExampleRef], is_cloud: np.ndarray, variants: Sequence[int]) -> StructureBatch:
    """Occupancy of the examples, each in one of the upright symmetries; is_cloud (B,) takes the partial cloud."""
    grids = [
        e.shard.clouds(e.row).astype(np.float32) if cloud else e.shard.occupancy[e.row].astype(np.float32) / 255.0
        for e, cloud in zip(examples, is_cloud, strict=True)
    ]
    turned = [transformed_grids(grid, variant) for grid, variant in zip(grids, variants, strict=True)]
    occupancy = torch.from_numpy(np.stack([np.ascontiguousarray(grid) for grid in turned]))[:, None]
    return StructureBatch(with_thin_parts(occupancy), torch.from_numpy(np.asarray(is_cloud, dtype=bool)))


def with_thin_parts(occupancy: Tensor) -> Tensor:
    """(B, 1, R, R, R) shares in [0, 1] -> the same, with parts thinner than a voxel one voxel wide.

    The wall of a cup may fill less than half of every voxel that it runs through, and would be lost at 0.5: where
    nothing near is fuller, shares count relative to the fullest neighbour. What is solid stays as it is.
    """
    fullest = F.max_pool3d(occupancy, 3, stride=1, padding=1)
    thin = (fullest > THIN_SHARES[0]) & (fullest < THIN_SHARES[1])
    return torch.where(thin, occupancy / fullest.clamp_min(THIN_SHARES[0]), occupancy)


def view_batch(examples: Sequence[ExampleRef], kept: Sequence[np.ndarray], variants: Sequence[int]) -> ViewBatch:
    """Crops of the kept views (indices) of each example; mirrored where the variant mirrors the object."""
    crops, visibility = [], []
    for e, views, variant in zip(examples, kept, variants, strict=True):
        crops.append(transformed_crops(np.asarray(e.shard.crops[e.views])[views], variant))
        visibility.append(np.asarray(e.shard.visibility[e.views])[views])
    owner = np.repeat(np.arange(len(examples)), [len(views) for views in kept])
    return ViewBatch(
        torch.from_numpy(np.ascontiguousarray(np.concatenate(crops))),
        torch.from_numpy(owner),
        torch.from_numpy(np.concatenate(visibility).astype(np.float32)),
    )


def kept_views(
    examples: Sequence[ExampleRef], rng: np.random.Generator, counts: Sequence[int], dropout: float
) -> list[np.ndarray]:
    """Indices of the views that each example keeps, those that see nothing left out.

    counts: one of them is drawn for the whole batch, and each example keeps so many (or all that it has). Empty: an
    example keeps all, or with probability `dropout` a random number of them.
    """
    wanted = int(rng.choice(list(counts))) if counts else 0
    kept = []
    for e in examples:
        seeing = np.flatnonzero(np.asarray(e.shard.visibility[e.views]) > 0)
        if not len(seeing):
            raise InputError(f"{e.shard.folder}: example {e.row} ({e.object_id}) is visible in none of its views")
        number = min(wanted, len(seeing)) if counts else len(seeing)
        if not counts and rng.random() < dropout:
            number = int(rng.integers(1, len(seeing) + 1))
        kept.append(np.sort(rng.permutation(seeing)[:number]))
    return kept
