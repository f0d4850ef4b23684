"""Shards of random boxes and ellipsoids, with plausible crops and partial clouds."""

from __future__ import annotations

import numpy as np
import pytest

from training.shards import TrainingExample, write_shard

R, S = 64, 32


def _solid(rng):
    axis = (np.arange(R) + 0.5) / R - 0.5
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    half = rng.uniform(0.12, 0.35, 3)
    if rng.random() < 0.5:
        return (abs(x) < half[0]) & (abs(y) < half[1]) & (abs(z) < half[2])
    return (x / half[0]) ** 2 + (y / half[1]) ** 2 + (z / half[2]) ** 2 < 1


def _example(rng, name, size):
    solid = _solid(rng)
    shell = solid & ~np.roll(solid, 1, axis=1)
    views = int(rng.integers(1, 4))
    silhouette = solid.any(axis=1).T[::-1]
    step = np.linspace(0, R - 1, size).astype(int)
    mask = silhouette[np.ix_(step, step)]
    colors = rng.integers(60, 250, (views, 3, 1, 1))
    crops = np.zeros((views, 5, size, size), dtype=np.uint8)
    crops[:, :3] = colors * mask
    crops[:, 3] = mask
    category = "procedural" if rng.random() < 0.5 else "everyday"
    return TrainingExample(
        solid.astype(np.uint8) * 255,
        shell,
        crops,
        rng.uniform(0.3, 1.0, views).astype(np.float32),
        np.eye(4),
        {"object": name, "category": category, "seed": 0},
    )


def make_shards(folder, shards=2, examples=6, size=S, seed=0):
    """Write shards of examples below `folder` and return it."""
    rng = np.random.default_rng(seed)
    for number in range(shards):
        write_shard(folder, number, [_example(rng, f"object_{number}_{i}", size) for i in range(examples)])
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    """A folder of two shards with six examples each, crops of 32 pixels."""
    return make_shards(tmp_path_factory.mktemp("shards"))
