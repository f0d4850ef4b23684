"""Training of the feed-forward U-Net: pairs of cloud and object, exact resume, overfitting, the checkpoint."""

from __future__ import annotations

import csv

import numpy as np
import torch

from gena3d_core.checkpoints.open import open_checkpoint
from training.datasets import open_split
from training.objectives_unet import UnetTask, unet_batch
from training.recipes import make_recipe
from training.state import load_newest_state
from training.symmetries import ORDER, transformed_grids
from training.train import run_recipe


def recipe_for(shards, out, *words):
    return make_recipe("unet_tiny", [f"data={shards}", f"out={out}", "batch=2", "evaluate_count=3", *words])


def rows_of(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_cloud_and_object_are_turned_alike(shards, tmp_path):
    split = open_split(recipe_for(shards, tmp_path, "max_steps=1"))
    examples = split.train[:3]
    for variant in range(len(ORDER)):
        batch = unet_batch(examples, [variant] * 3)
        for row, e in enumerate(examples):
            cloud = transformed_grids(e.shard.clouds(e.row), variant)
            solid = transformed_grids(e.shard.occupancy[e.row], variant) / 255.0
            np.testing.assert_array_equal(batch.cloud[row, 0].numpy(), cloud)
            np.testing.assert_allclose(batch.occupancy[row, 0].numpy(), solid, atol=1e-6)
    assert not bool((batch.cloud > batch.occupancy).any())  # these clouds lie in their objects


def test_batches_depend_on_their_generator_alone(shards, tmp_path):
    recipe = recipe_for(shards, tmp_path, "max_steps=1")
    task = UnetTask(recipe, open_split(recipe), torch.device("cpu"))
    a, b, other = (task.batch([0, 1, 2], np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(a.cloud, b.cloud)
    assert torch.equal(a.occupancy, b.occupancy)
    assert not torch.equal(a.cloud, other.cloud)


def test_a_stopped_run_resumes_exactly_and_its_checkpoint_opens(shards, tmp_path):
    words = ("max_steps=4", "accumulate=2")
    assert run_recipe(recipe_for(shards, tmp_path / "whole", *words), "unet_tiny", lambda: False)
    calls = iter(range(100))
    assert not run_recipe(recipe_for(shards, tmp_path / "parts", *words), "unet_tiny", lambda: next(calls) >= 1)
    assert run_recipe(recipe_for(shards, tmp_path / "parts", *words), "unet_tiny", lambda: False)
    whole, parts = (load_newest_state(tmp_path / name) for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    assert all(torch.equal(value, parts["parameters"][name]) for name, value in whole["parameters"].items())
    bundle = open_checkpoint(tmp_path / "whole" / "best")
    assert set(bundle.modules) == {"completion_unet"}
    assert bundle.frame == "observed"
    assert bundle.metadata["recipe"] == "unet_tiny"


def test_overfitting_one_example(shards, tmp_path):
    words = ("max_steps=80", "overfit_one=true", "learning_rate=3e-3", "precision=float32")
    assert run_recipe(recipe_for(shards, tmp_path, *words), "unet_tiny", lambda: False)
    losses, found = rows_of(tmp_path / "losses.csv"), rows_of(tmp_path / "evaluations.csv")
    assert float(losses[-1]["loss"]) < 0.3 * float(losses[0]["loss"])
    assert float(found[-1]["iou"]) > 0.8
