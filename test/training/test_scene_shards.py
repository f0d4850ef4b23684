"""Shards of scenes hold what was written; samples show each asset as query once."""

import numpy as np
import pytest

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry.scene_poses import relative_poses, similarities_from_poses
from training.recipes import make_recipe
from training.scene_datasets import MIRRORED, equal_counts, mirrored_arrays, open_scene_split, scene_batch, view_samples
from training.scene_shards import PER_ASSET, PER_PAIR, PER_VIEW, iterate_scenes, open_scene_shards, write_scene_shard

from .scene_data import make_scene_shards, scene_example


def recipe(data, *words):
    common = [f"data={data}", "out=x", "vae=x", "max_steps=1", "held_out=0"]
    return make_recipe("scene_tiny", [*common, *words])


class NoLatents:
    """Latents that tell which asset they are of."""

    def targets(self, shard, rows, variant=0):
        self.variants = {*getattr(self, "variants", ()), variant}
        return np.stack([np.full((8, 4, 4, 4), 100 * int(shard[-1]) + row, dtype=np.float32) for row in rows])


def test_a_shard_gives_back_what_was_written(tmp_path):
    rng = np.random.default_rng(0)
    written = [scene_example(rng, "a", 3, views=2, hidden=((1, 0),)), scene_example(rng, "b", 2)]
    write_scene_shard(tmp_path, 4, written)
    (shard,) = open_scene_shards(tmp_path)
    assert shard.folder.name == "shard_00004"
    assert len(list(iterate_scenes([shard]))) == len(shard) == 2
    for row, wanted in enumerate(written):
        found = shard.example(row)
        assert found.info == wanted.info
        for name in (*PER_ASSET, *PER_VIEW, *PER_PAIR, "support"):
            np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)
    with pytest.raises(InputError, match="at least one example"):
        write_scene_shard(tmp_path, 5, [])
    with pytest.raises(DataFormatError, match=r"training\.render_scenes"):
        open_scene_shards(tmp_path / "shard_00004")


def test_a_broken_shard_is_named(tmp_path):
    folder = make_scene_shards(tmp_path, ((2,),)) / "shard_00000"
    (folder / "masks.npy").write_bytes(b"not an array")
    (shard,) = open_scene_shards(tmp_path)
    with pytest.raises(DataFormatError, match=r"shard_00000: no readable masks.npy .* render it again"):
        shard.masks([0])


def test_each_visible_asset_is_the_query_of_each_of_its_views(tmp_path):
    make_scene_shards(tmp_path, ((3,),), views=2, frame="canonical", hidden=((1, 2),))
    (shard,) = open_scene_shards(tmp_path)
    samples = view_samples(shard, 0, 64)
    assert sorted((s.view, s.query) for s in samples) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    assert {len(s.assets) for s in samples if s.view == 1} == {2}
    # Grids that are upright as the first view sees it are right for that view only.
    make_scene_shards(tmp_path / "upright", ((3,),), views=2, frame="observed")
    (upright,) = open_scene_shards(tmp_path / "upright")
    assert {s.view for s in view_samples(upright, 0, 64)} == {0}
    assert view_samples(upright, 0, 10**6) == []


def test_batches_hold_equally_many_assets_with_the_query_first(tmp_path):
    split = open_scene_split(recipe(make_scene_shards(tmp_path)))
    assert len(split.train) == 2 + 2 + 3 + 3 + 2
    rng = np.random.default_rng(0)
    counts = set()
    for number in range(12):
        samples = equal_counts(split, [number, (number + 5) % 12, (number + 7) % 12], rng)
        assert samples[0] is split.train[number]
        batch = scene_batch(samples, NoLatents(), rng, max_assets=7)
        counts.add(batch.assets)
        A = batch.assets
        assert batch.crops.shape == (3 * A, 5, 32, 32)
        assert batch.masks.shape == (3 * A, 32, 32)
        for s, sample in enumerate(samples):
            rows = slice(s * A, (s + 1) * A)
            first = sample.shard.assets(sample.row).start
            codes = batch.x0[rows, 0, 0, 0, 0].numpy() - 100 * int(sample.shard.folder.name[-1])
            assets = (codes - first).astype(int).tolist()
            assert assets[0] == sample.query
            assert sorted(assets) == sorted(sample.assets)
            np.testing.assert_array_equal(batch.masks[rows].numpy(), sample.shard.example(sample.row).masks[0][assets])
            grids = sample.shard.example(sample.row).grid[assets]
            np.testing.assert_allclose(batch.poses[rows], relative_poses(grids), atol=1e-6)
            assert len(set(batch.t[rows].tolist())) == 1
    assert counts == {2, 3}


def test_the_others_come_in_random_order_and_too_many_are_left_out(tmp_path):
    split = open_scene_split(recipe(make_scene_shards(tmp_path, ((4,),))))
    rng = np.random.default_rng(0)
    orders = set()
    for _ in range(20):
        batch = scene_batch(split.train[:1], NoLatents(), rng, max_assets=3, shared_times=False)
        assert batch.assets == 3
        assert len(set(batch.t.tolist())) == 3
        orders.add(tuple(batch.x0[:, 0, 0, 0, 0].int().tolist()))
    query = split.train[0].query
    assert {order[0] for order in orders} == {query}
    assert len(orders) > 4


def test_mirrored_scenes_are_what_a_mirror_shows(tmp_path):
    # Poses of turned grids too: the mirror image of a placed grid is the mirrored grid, placed by the mirrored pose.
    rng = np.random.default_rng(0)
    q = rng.normal(size=(5, 4))
    poses = np.concatenate([rng.normal(size=(5, 3)), q / np.linalg.norm(q, axis=1)[:, None], np.ones((5, 1))], axis=1)
    pictures = rng.random((5, 3, 4, 6))
    found = mirrored_arrays({"poses": poses, "crops": pictures})
    mirror = np.diag([-1.0, 1.0, 1.0, 1.0])
    np.testing.assert_allclose(
        similarities_from_poses(found["poses"]), mirror @ similarities_from_poses(poses) @ mirror, atol=1e-12
    )
    np.testing.assert_array_equal(found["crops"], pictures[..., ::-1])

    split = open_scene_split(recipe(make_scene_shards(tmp_path, ((3,),))))
    plain, turned = (
        scene_batch(
            split.train[:1], NoLatents(), np.random.default_rng(0), max_assets=7, shuffled=False, mirror_share=m
        )
        for m in (0.0, 1.0)
    )
    for name in ("crops", "masks", "scene", "geometry", "instances"):
        np.testing.assert_array_equal(getattr(turned, name), getattr(plain, name).flip(-1))
    np.testing.assert_allclose(turned.poses[:, 0], -plain.poses[:, 0])
    assert plain.poses[1:, 0].abs().min() > 0.1
    store = NoLatents()
    for seed in range(8):
        scene_batch(split.train[:1], store, np.random.default_rng(seed), max_assets=7, mirror_share=0.5)
    assert store.variants == {0, MIRRORED}


def test_scenes_are_held_out_whole(tmp_path):
    folder = make_scene_shards(tmp_path, ((2,) * 12, (2,) * 12))
    split = open_scene_split(recipe(folder, "held_out=0.3", "evaluate_count=4"))
    kept = {s.scene_id for s in split.held_out}
    assert 1 <= len(split.held_out) <= 4
    assert len(kept) == len(split.held_out)
    assert not kept & {s.scene_id for s in split.train}
    one = open_scene_split(recipe(folder, "overfit_one=true"))
    assert {s.scene_id for s in one.train} == {s.scene_id for s in one.held_out} == {"scene_0_0"}
    with pytest.raises(InputError, match="shows two assets"):
        open_scene_split(recipe(folder, "min_pixels=100000"))
