"""Shards of training examples."""

from __future__ import annotations

import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError
from training.shards import TrainingExample, iterate_examples, open_shards, write_shard


def example(views, seed):
    rng = np.random.default_rng(seed)
    return TrainingExample(
        rng.integers(0, 256, (8, 8, 8), dtype=np.uint8),
        rng.random((8, 8, 8)) < 0.2,
        rng.integers(0, 2, (views, 5, 4, 4), dtype=np.uint8),
        rng.random(views).astype(np.float32),
        np.eye(4),
        {"object": f"o{seed}", "seed": seed},
    )


def test_what_is_written_is_read(tmp_path):
    examples = [example(2, 0), example(1, 1), example(4, 2)]
    write_shard(tmp_path, 0, examples[:2])
    write_shard(tmp_path, 1, examples[2:])
    shards = open_shards(tmp_path)
    assert [len(shard) for shard in shards] == [2, 1]
    for (shard, row), made in zip(iterate_examples(shards), examples, strict=True):
        views = slice(shard.view_offsets[row], shard.view_offsets[row + 1])
        np.testing.assert_array_equal(shard.occupancy[row], made.occupancy)
        np.testing.assert_array_equal(shard.clouds(row), made.cloud)
        np.testing.assert_array_equal(shard.crops[views], made.crops)
        np.testing.assert_array_equal(shard.visibility[views], made.visibility)
        assert shard.info[row] == made.info
    np.testing.assert_array_equal(shards[0].clouds(), np.stack([e.cloud for e in examples[:2]]))


def test_a_shard_is_replaced_as_a_whole(tmp_path):
    write_shard(tmp_path, 0, [example(1, 0), example(1, 1)])
    write_shard(tmp_path, 0, [example(3, 2)])
    assert len(open_shards(tmp_path)[0]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shard_00000"]


def test_missing_and_broken_shards_are_named(tmp_path):
    with pytest.raises(DataFormatError, match=r"training\.render"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="at least one"):
        write_shard(tmp_path, 0, [])
    folder = write_shard(tmp_path, 0, [example(1, 0)])
    (folder / "crops.npy").write_bytes(b"broken")
    with pytest.raises(DataFormatError, match=r"shard_00000.*crops"):
        _ = open_shards(tmp_path)[0].crops
