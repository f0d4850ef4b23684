"""Batches: which examples, which views, which symmetry."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gena3d_core.errors import InputError
from gena3d_core.geometry.partial_cloud import place_grid, prepare_cloud
from training.datasets import (
    batch_indices,
    is_held_out,
    kept_views,
    open_split,
    structure_batch,
    view_batch,
    with_thin_parts,
)
from training.recipes import make_recipe
from training.symmetries import ORDER, transformed_crops, transformed_grids


def split_of(shards, *words):
    return open_split(make_recipe("vae_tiny", [f"data={shards}", "out=o", "max_steps=1", *words]))


def test_every_epoch_has_every_example_once_across_batches():
    drawn = [i for number in range(10) for i in batch_indices(7, 3, number, seed=5)]
    assert [sorted(drawn[start : start + 7]) for start in (0, 7, 14)] == [list(range(7))] * 3
    assert drawn[:7] != drawn[7:14]
    assert drawn[6:9] == batch_indices(7, 3, 2, seed=5)
    assert drawn[:7] != [i for number in range(3) for i in batch_indices(7, 3, number, seed=6)][:7]


def test_held_out_objects_are_no_training_objects(shards):
    split = split_of(shards, "held_out=0.4")
    ids = [{e.object_id for e in part} for part in (split.train, split.held_out)]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]
    assert ids[1] == {name for name in ids[0] | ids[1] if is_held_out(name, 0.4)}
    names = [f"object {i}" for i in range(4000)]
    assert np.mean([is_held_out(name, 0.25) for name in names]) == pytest.approx(0.25, abs=0.03)
    assert {n for n in names if is_held_out(n, 0.1)} < {n for n in names if is_held_out(n, 0.2)}


def test_everyday_objects_may_come_more_often(shards):
    once, thrice = split_of(shards, "held_out=0"), split_of(shards, "held_out=0", "repeat_everyday=3")
    everyday = sum(e.category == "everyday" for e in once.train)
    assert 0 < everyday < len(once.train)
    assert len(thrice.train) == len(once.train) + 2 * everyday


def test_all_held_out_is_an_error(shards):
    with pytest.raises(InputError, match="render more objects"):
        split_of(shards, "held_out=1")


def test_kept_views(shards):
    examples = split_of(shards, "held_out=0").train
    rng = np.random.default_rng(0)
    every = kept_views(examples, rng, (), 0.0)
    counts = [len(e.shard.visibility[e.views]) for e in examples]
    assert [views.tolist() for views in every] == [list(range(count)) for count in counts]
    several = [kept_views(examples, rng, (), 1.0) for _ in range(40)]
    for views, count in zip(np.array([[len(v) for v in kept] for kept in several]).T, counts, strict=True):
        assert set(views) == set(range(1, count + 1))
    for kept in (kept_views(examples, rng, (2,), 1.0) for _ in range(3)):
        assert [len(v) for v in kept] == [min(2, count) for count in counts]


def test_batches_hold_the_chosen_views_and_grids(shards):
    examples = split_of(shards, "held_out=0").train[:3]
    grids = structure_batch(examples, np.array([False, True, False]), [0, 0, 1])
    np.testing.assert_array_equal(grids.occupancy[0, 0], examples[0].shard.occupancy[examples[0].row] / np.float32(255))
    np.testing.assert_array_equal(grids.occupancy[1, 0], examples[1].shard.clouds(examples[1].row))
    last = examples[2].shard.occupancy[examples[2].row] / np.float32(255)
    np.testing.assert_array_equal(grids.occupancy[2, 0], last[::-1])
    views = view_batch(examples, [np.array([0]) for _ in examples], [0, 0, 1])
    assert views.owner.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(views.crops[1], examples[1].shard.crops[examples[1].views][0])
    np.testing.assert_array_equal(views.crops[2], examples[2].shard.crops[examples[2].views][0][..., ::-1])


@pytest.mark.parametrize("variant", range(len(ORDER)))
def test_a_turned_scene_has_the_turned_grid(variant):
    turns, mirrored = ORDER[variant]
    rng = np.random.default_rng(3)
    points = rng.normal(size=(4000, 3)) * [0.05, 0.1, 0.07] + [0.3, -0.2, 0.1]
    voxels = prepare_cloud(points, place_grid(points), 16)
    turned = points.copy()
    for _ in range(turns):  # a quarter turn from x to y
        turned = turned[:, [1, 0, 2]] * [-1, 1, 1]
    if mirrored:
        turned = turned * [-1, 1, 1]
    expected = prepare_cloud(turned, place_grid(turned), 16)
    np.testing.assert_array_equal(transformed_grids(voxels, variant), expected)


def test_only_mirrored_variants_mirror_the_images():
    crops = np.arange(12).reshape(1, 3, 4)
    for variant, (_, mirrored) in enumerate(ORDER):
        np.testing.assert_array_equal(transformed_crops(crops, variant), crops[..., ::-1] if mirrored else crops)


def test_thin_parts_become_a_voxel_wide_and_solids_stay():
    grid = torch.zeros(3, 1, 12, 12, 12)
    grid[0, 0, 3:9, 3:9, 3:9] = 1.0
    grid[0, 0, 3:9, 3:9, 9] = 0.3  # the outer layer of a solid
    grid[1, 0, 2:10, 2:10, 5] = 0.4  # a sheet inside one layer
    grid[2, 0, 2:10, 2:10, 5], grid[2, 0, 2:10, 2:10, 6] = 0.35, 0.2  # a sheet across two
    found = with_thin_parts(grid)
    assert torch.equal(found[0], grid[0])
    assert torch.equal(found[1] >= 0.5, grid[1] > 0)
    assert torch.equal(found[2] >= 0.5, grid[2] > 0)
    assert float(found.max()) == 1.0
    assert torch.equal(with_thin_parts(0.1 * grid[1:2]), 0.1 * grid[1:2])
