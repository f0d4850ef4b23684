"""Scene shards to batches: one view of each scene, each asset in turn as query, the others in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gena3d_core.errors import InputError
from gena3d_core.geometry.scene_poses import relative_poses
from gena3d_core.objectives import logit_normal

from .datasets import Batch, is_held_out
from .latents import LatentStore
from .recipes.settings import SceneRecipe
from .scene_shards import SceneShard, iterate_scenes, open_scene_shards
from .symmetries import ORDER

MIN_ASSETS = 2
"""A layout needs something to relate to."""
MIRRORED = ORDER.index((0, True))
"""Variant of `training.symmetries`: x mirrored, which is left and right where grids stand as the camera sees them."""


@dataclass(frozen=True)
class SceneSample:
    """One view of a scene with one of the assets that it shows as query.

    assets  numbers of the assets that the view shows; query: one of them
    """

    shard: SceneShard
    row: int
    view: int
    assets: tuple[int, ...]
    query: int

    @property
    def scene_id(self) -> str:
        """Id of its layout."""
        return str(self.shard.info[self.row].get("scene", ""))

    def shown(self, order: Sequence[int], most: int) -> list[int]:
        """The query and at most `most - 1` of the other assets, these as `order` puts them."""
        others = [self.assets[k] for k in order if self.assets[k] != self.query]
        return [self.query, *others[: most - 1]]


@dataclass(frozen=True)
class SceneSplit:
    """Samples to train on and, of other scenes, to evaluate on: each held-out scene once."""

    train: list[SceneSample]
    held_out: list[SceneSample]

    @cached_property
    def by_count(self) -> dict[int, list[int]]:
        """Number of assets -> indices of the training samples that show so many."""
        groups: dict[int, list[int]] = {}
        for index, sample in enumerate(self.train):
            groups.setdefault(len(sample.assets), []).append(index)
        return groups


@dataclass(frozen=True)
class SceneBatch(Batch):
    """S scenes of A assets each, the query first, and everything that is random in a step.

    crops      (S·A, 5, s, s) uint8; masks (S·A, s, s) bool; scene (S, 3, s, s) uint8
    geometry   (S, 3, G, G) uint8; instances (S, G, G) uint8
    x0, noise  (S·A, C, r, r, r); t (S·A,) flow times; poses (S·A, 8) in the frame of the query
    dropped    (S,) bool: without condition
    """

    crops: Tensor
    masks: Tensor
    scene: Tensor
    geometry: Tensor
    instances: Tensor
    x0: Tensor
    noise: Tensor
    t: Tensor
    poses: Tensor
    dropped: Tensor

    @property
    def assets(self) -> int:
        """A."""
        return len(self.crops) // len(self.scene)


def open_scene_split(recipe: SceneRecipe) -> SceneSplit:
    """The samples of the recipe's shards; scenes go to either side by a hash of their id.

    Of a scene whose grids are upright as its first view sees it, only that view counts. `overfit_one` gives the first
    scene on both sides. Raises `DataFormatError` without shards, `InputError` without a view of two assets.
    """
    scenes = list(iterate_scenes(open_scene_shards(Path(recipe.data))))
    scenes = scenes[:1] if recipe.overfit_one else scenes
    train, held_out = [], []
    for shard, row in scenes:
        samples = view_samples(shard, row, recipe.min_pixels)
        kept_back = is_held_out(str(shard.info[row].get("scene", "")), recipe.held_out)
        if kept_back and not recipe.overfit_one:
            held_out += samples[:1]
        else:
            train += samples
    if not train:
        raise InputError(f"{recipe.data}: no view of {len(scenes)} scenes shows two assets, or all are held out")
    held_out = held_out or [sample for sample in train if sample.query == sample.assets[0]]
    step = max(1, len(held_out) // max(1, recipe.evaluate_count))
    return SceneSplit(train, held_out[::step][: recipe.evaluate_count])


def view_samples(shard: SceneShard, row: int, min_pixels: int) -> list[SceneSample]:
    """Every view that shows two assets or more with each of them as query, the largest first."""
    example = shard.assets(row)
    count = example.stop - example.start
    views = int(shard.view_offsets[row + 1] - shard.view_offsets[row])
    samples = []
    for view in range(1 if shard.info[row].get("frame") == "observed" else views):
        pixels = shard.arrays["pixels"][shard.pair(row, view, 0) : shard.pair(row, view, 0) + count]
        shown = [int(k) for k in np.argsort(-pixels, kind="stable") if pixels[k] >= min_pixels]
        if len(shown) >= MIN_ASSETS:
            samples += [SceneSample(shard, row, view, tuple(shown), query) for query in shown]
    return samples


def equal_counts(split: SceneSplit, indices: Sequence[int], rng: np.random.Generator) -> list[SceneSample]:
    """Training samples `indices`, those that show another number of assets than the first exchanged for some that do.

    The first ones take turns, so that every number of assets comes as often as it is.
    """
    first = split.train[indices[0]]
    group = split.by_count[len(first.assets)]
    chosen = [first]
    for index in indices[1:]:
        sample = split.train[index]
        fits = len(sample.assets) == len(first.assets)
        chosen.append(sample if fits else split.train[group[int(rng.integers(len(group)))]])
    return chosen


def scene_batch(
    samples: Sequence[SceneSample],
    latents: LatentStore,
    rng: np.random.Generator,
    *,
    max_assets: int,
    dropout: float = 0.0,
    shared_times: bool = True,
    shuffled: bool = True,
    times: tuple[float, float] = (1.0, 1.0),
    mirror_share: float = 0.0,
) -> SceneBatch:
    """Batch of samples that show equally many assets; times: mean and standard deviation of the logit-normal t.

    mirror_share: probability that a scene comes mirrored left to right.
    """
    if len({len(sample.assets) for sample in samples}) != 1:
        raise InputError("the scenes of a batch must show equally many assets")
    orders = [rng.permutation(len(s.assets)).tolist() if shuffled else list(range(len(s.assets))) for s in samples]
    mirrored = rng.random(len(samples)) < mirror_share if mirror_share else np.zeros(len(samples), dtype=bool)
    columns: dict[str, list[np.ndarray]] = {}
    for sample, order, flip in zip(samples, orders, mirrored, strict=True):
        shown = sample.shown(order, max_assets)
        arrays = _scene_arrays(sample, shown)
        for name, value in (mirrored_arrays(arrays) if flip else arrays).items():
            columns.setdefault(name, []).append(value)
        first = sample.shard.assets(sample.row).start
        variant = MIRRORED if flip else 0
        targets = latents.targets(sample.shard.folder.name, [first + asset for asset in shown], variant)
        columns.setdefault("x0", []).append(targets)
    stacked = {name: np.concatenate(values) for name, values in columns.items()}
    rows, count = len(stacked["x0"]), len(samples)
    normal = rng.standard_normal(count if shared_times else rows, dtype=np.float32)
    t = logit_normal(torch.from_numpy(normal), *times)
    tensors: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in stacked.items()}
    return SceneBatch(
        **tensors,
        noise=torch.from_numpy(rng.standard_normal(stacked["x0"].shape, dtype=np.float32)),
        t=t.repeat_interleave(rows // count) if shared_times else t,
        dropped=torch.from_numpy(rng.random(count) < dropout),
    )


def _scene_arrays(sample: SceneSample, assets: Sequence[int]) -> dict[str, np.ndarray]:
    shard, row = sample.shard, sample.row
    view = int(shard.view_offsets[row]) + sample.view
    pairs = [shard.pair(row, sample.view, asset) for asset in assets]
    grids = np.asarray(shard.arrays["grid"][shard.assets(row)])[list(assets)]
    return {
        "crops": np.asarray(shard.arrays["crops"][pairs]),
        "masks": shard.masks(pairs),
        "scene": np.asarray(shard.arrays["scene"][view : view + 1]),
        "geometry": np.asarray(shard.arrays["geometry"][view : view + 1]),
        "instances": np.asarray(shard.arrays["instances"][view : view + 1]),
        "poses": relative_poses(grids).astype(np.float32),
    }


def mirrored_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Pictures (..., H, W) and poses of the scene in a mirror: x of the world, and of every grid, changes its sign."""
    poses = arrays["poses"] * np.array([-1, 1, 1, 1, 1, -1, -1, 1], dtype=arrays["poses"].dtype)
    return {name: np.flip(value, axis=-1) for name, value in arrays.items() if name != "poses"} | {"poses": poses}


@dataclass(frozen=True)
class AssetRows:
    """The assets of a shard of scenes as objects to encode: see `training.latents.Encodable`."""

    shard: SceneShard

    @property
    def folder(self) -> Path:
        return self.shard.folder

    @property
    def occupancy(self) -> Any:
        """(a, R, R, R) uint8."""
        return self.shard.occupancy

    def __len__(self) -> int:
        return len(self.shard.occupancy)
