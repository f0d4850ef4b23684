"""Training of SceneGen: what learns, what stays, that positions are learned, and that runs resume exactly."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.errors import InputError
from gena3d_core.generative.scene_inputs import scene_parts
from gena3d_core.models.scene_upgrade import SCENE_PARTS
from training.export_scene import main as export
from training.recipes import make_recipe
from training.scene_datasets import open_scene_split
from training.scene_start import ENCODER, FLOW, GEOMETRY
from training.state import load_newest_state
from training.train import SceneTask, run_recipe

from .scene_data import make_scene_shards, make_vae

CPU = torch.device("cpu")
PARTS = ("mask", "scene", "geometry")


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return make_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return make_scene_shards(tmp_path_factory.mktemp("scenes"))


def words(data, vae, out, *more):
    fixed = ("batch=2", "evaluate_count=1", "sample_count=1", "held_out=0", "precision=float32")
    return [f"data={data}", f"out={out}", f"vae={vae}", *fixed, *more]


def run(data, vae, out, *more, stopped=lambda: False):
    recipe = make_recipe("scene_tiny", words(data, vae, out, *more))
    return run_recipe(recipe, "scene_tiny", stopped)


def make_task(data, vae, out, *more):
    recipe = make_recipe("scene_tiny", words(data, vae, out, "max_steps=1", *more))
    torch.manual_seed(0)
    return SceneTask(recipe, open_scene_split(recipe), CPU)


def rows(path):
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.slow
def test_losses_fall_and_positions_are_learned_on_two_scenes(tmp_path, vae):
    data = make_scene_shards(tmp_path / "data", ((2, 2),))
    more = ("max_steps=150", "learning_rate=3e-3", "condition_dropout=0", "collision=false", "evaluate_count=2")
    assert run(data, vae, tmp_path / "out", *more)
    # The first row is that of the first step; later ones are means over times, which machines fill with more or fewer.
    first = rows(tmp_path / "out" / "losses.csv")[0]
    found = rows(tmp_path / "out" / "evaluations.csv")[-1]
    assert found["held_out_flow"] < 0.7 * first["flow"]
    assert found["held_out_translation_error"] < 0.15 * first["translation_error"]
    assert found["sample_offset"] < 0.1
    assert (tmp_path / "out" / "pictures").is_dir()
    bundle = open_checkpoint(tmp_path / "out" / "best")
    assert {ENCODER, FLOW, GEOMETRY} <= set(bundle.modules)
    assert bundle.frame == "observed"
    assert bundle.samplers["sparse_structure"].steps == 6
    assert bundle.metadata["data"] == {"examples": 4, "scenes": 2}


def test_from_an_object_model_only_the_scene_parts_learn(tmp_path, scenes, vae):
    assert run(scenes, vae, tmp_path / "base", "max_steps=1")
    base = tmp_path / "base" / "last"
    before = open_checkpoint(base, dtype=torch.float32)
    more = (f"start={base}", "trainable=scene", "max_steps=2", "learning_rate=1e-2", "warmup_steps=0", "ema_decay=0")
    assert run(scenes, vae, tmp_path / "out", *more)
    after = open_checkpoint(tmp_path / "out" / "last", dtype=torch.float32)
    assert after.metadata["settings"]["start"] == "last"
    for role in before.modules:
        own, other = before.modules[role].state_dict(), after.modules[role].state_dict()
        changed = {name for name in own if not torch.equal(own[name], other[name])}
        if role == FLOW:
            assert all(any(part in name for part in SCENE_PARTS) for name in changed)
            assert {part for part in SCENE_PARTS if any(part in name for name in changed)} == set(SCENE_PARTS)
        else:
            assert bool(changed) == (role == GEOMETRY)
    assert after.metadata["geometry_size"] == 32
    assert after.metadata["scene_parts"] == {"mask": True, "scene": True, "geometry": True}
    # What ships holds only what was trained, in 16 bits, and opens as the same networks.
    assert export([str(tmp_path / "nothing"), "--out", str(tmp_path / "shipped")]) == 1
    assert export([str(tmp_path / "out"), "--base", str(base), "--out", str(tmp_path / "shipped")]) == 0
    content = json.loads((tmp_path / "shipped" / "config.json").read_text())
    assert [role for role, module in content["modules"].items() if module["files"]] == [FLOW, GEOMETRY]
    shutil.copytree(base, tmp_path / "last")
    shipped = open_checkpoint(tmp_path / "shipped", dtype=torch.float32)
    for role, module in open_checkpoint(tmp_path / "out" / "best", dtype=torch.float32).modules.items():
        found = shipped.modules[role].state_dict()
        for name, tensor in module.state_dict().items():
            rounding = 0.0 if role != GEOMETRY and not any(part in name for part in SCENE_PARTS) else 0.01
            torch.testing.assert_close(found[name], tensor, rtol=rounding, atol=rounding, msg=f"{role} {name}")


def test_every_trained_parameter_gets_a_gradient(tmp_path, scenes, vae):
    task = make_task(scenes, vae, tmp_path, "quiet_start=false")
    task.network.train()
    task.network(task.batch([2, 3], np.random.default_rng(0))).total.backward()
    missing = [n for n, p in task.network.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []


@pytest.mark.parametrize("losses", ["paper", "published"])
def test_a_stopped_run_resumes_bit_exactly(tmp_path, scenes, vae, losses):
    more = ("max_steps=3", f"losses={losses}", "decay_steps=2", "sample_count=0")
    assert run(scenes, vae, tmp_path / "whole", *more)
    calls = iter(range(1, 100))
    assert not run(scenes, vae, tmp_path / "parts", *more, stopped=lambda: next(calls) >= 2)
    torch.manual_seed(99)
    assert run(scenes, vae, tmp_path / "parts", *more)
    whole, parts = (load_newest_state(tmp_path / name) for name in ("whole", "parts"))
    assert whole is not None
    assert parts is not None
    assert whole["counters"].keys() == {"steps", "ratio"}
    for key in ("parameters", "counters"):
        for name, value in whole[key].items():
            assert torch.equal(value.nan_to_num(), parts[key][name].nan_to_num()), name
    if losses == "paper":
        assert int(whole["counters"]["steps"]) == 3
    else:
        assert 0 < float(whole["counters"]["ratio"]) < 100


def test_the_weight_of_the_layout_falls_as_the_paper_says(tmp_path, scenes, vae):
    task = make_task(scenes, vae, tmp_path, "decay_steps=2", "collision=false")
    batch = task.batch([0, 1], np.random.default_rng(0))
    task.network.train()
    with torch.no_grad():
        weights = [float(task.network(batch).parts["layout_weight"]) for _ in range(6)]
    assert weights == pytest.approx([1, 1, 0.99, 0.99, 0.99**2, 0.99**2])
    task.network.eval()
    with torch.no_grad():
        assert float(task.network(batch).parts["layout_weight"]) == pytest.approx(0.99**3)
    assert int(task.network.steps) == 6
    task.network.steps.fill_(10**6)
    with torch.no_grad():
        assert float(task.network(batch).parts["layout_weight"]) == pytest.approx(0.2)
        task.network.recipe = replace(task.recipe, layout_weight=0.5)
        found = task.network(batch)
    assert float(found.parts["layout_weight"]) == pytest.approx(0.1)
    whole = found.parts["flow"] + 0.1 * (found.parts["position"] + found.parts["collision"])
    torch.testing.assert_close(found.total, whole)


@pytest.mark.parametrize(
    ("trainable", "more"), [("scene", ()), ("images", (".operations.cross_attn.",)), ("all", ("",))]
)
def test_what_learns_is_what_the_recipe_says(tmp_path, scenes, vae, trainable, more):
    assert run(scenes, vae, tmp_path / "base", "max_steps=1", "sample_count=0")
    task = make_task(scenes, vae, tmp_path, f"start={tmp_path / 'base' / 'last'}", f"trainable={trainable}")
    for name, parameter in task.network.flow.named_parameters():
        dead = "position_head.trunk" in name and ("q_norm" in name or "k_norm" in name)
        wanted = any(part in name for part in (*SCENE_PARTS, *more)) and not dead
        assert parameter.requires_grad == wanted, name
    assert not any(p.requires_grad for p in task.network.image_encoder.parameters())


def test_a_scene_model_without_hints_gets_them(tmp_path, scenes, vae):
    without = ("mask_boxes=false", "aligned_crops=false")
    assert run(scenes, vae, tmp_path / "base", "max_steps=1", "sample_count=0", *without)
    base = f"start={tmp_path / 'base' / 'last'}"
    for more, wanted in ((without, False), ((), True)):
        config = make_task(scenes, vae, tmp_path, base, *more).network.flow.config
        assert (config.mask_boxes, config.aligned_crops) == (wanted, wanted)


def test_parts_can_be_left_out_for_the_ablation(tmp_path, scenes, vae):
    whole = make_task(scenes, vae, tmp_path)
    batch = whole.batch([2, 3], np.random.default_rng(0))
    tokens = whole.network.condition(batch)
    patches = tokens.tokens.shape[1] // 2
    for word, own, shared in (
        ("mask_features=false", patches, tokens.shared.shape[1]),
        ("scene_features=false", 2 * patches, tokens.shared.shape[1] - patches),
        ("geometry_features=false", 2 * patches, patches),
    ):
        task = make_task(scenes, vae, tmp_path, word)
        found = task.network.condition(batch)
        assert (found.tokens.shape[1], found.shared.shape[1]) == (own, shared)
        bundle = task.bundle({})
        assert (GEOMETRY in bundle.modules) == (word != "geometry_features=false")
        # Generation leaves out what training left out.
        assert asdict(scene_parts(bundle)) == {part: f"{part}_features=false" != word for part in PARTS}
        assert_trains(task, batch)
    apart = make_task(scenes, vae, tmp_path, "joint_assets=false")
    assert not apart.bundle({}).modules[FLOW].config.joint_assets
    assert_trains(apart, batch)


def assert_trains(task, batch):
    task.network.train()
    task.network(batch).total.backward()
    gradients = [p.grad for p in task.network.parameters() if p.requires_grad and p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(bool(gradient.any()) for gradient in gradients)


def test_collisions_reach_the_poses(tmp_path, scenes, vae):
    task = make_task(scenes, vae, tmp_path)
    # Shapes come from a decoder that fills the middle of every cube, so that assets at one place collide.
    filled = torch.full((1, 1, 64, 64, 64), -1.0)
    filled[..., 16:48, 16:48, 16:48] = 1.0

    class Cubes(torch.nn.Module):
        def forward(self, latents):
            return filled.expand(len(latents), -1, -1, -1, -1)

    task.network.decoder = Cubes()
    batch = task.batch([0, 1], np.random.default_rng(0))
    head = task.network.flow.position_head.pose_branch[-1]
    iterations = task.network.flow.config.num_iteration
    shares = []
    for x in (0.3, 2.0):
        with torch.no_grad():
            head.weight.zero_()
            head.bias.copy_(torch.tensor([x, 0, 0, 1, 0, 0, 0, 1]) / iterations)
        found = task.network.losses(batch)
        shares.append(float(found.collision_share))
        if x < 1.0:
            found.collision.backward()
    assert shares[0] > 0.03
    assert abs(shares[1]) < 1e-6
    # Moved further along x, the other asset would collide less.
    assert float(head.bias.grad[0]) < 0


def test_pictures_of_another_size_are_refused(tmp_path, vae, scenes, monkeypatch):
    monkeypatch.setattr("gena3d_core.models.image_encoders.small.SmallEncoder.image_size", 48)
    with pytest.raises(InputError, match=r"crops are 32 pixels wide .* --image-size 48"):
        make_task(scenes, vae, tmp_path)


def test_wrong_recipes_are_named(tmp_path, scenes, vae):
    with pytest.raises(InputError, match="start=CHECKPOINT or trainable=all"):
        make_recipe("scene_edge", [f"data={scenes}", "out=x", "vae=x", "start="])
    with pytest.raises(InputError, match="vae is missing"):
        make_recipe("scene_tiny", [f"data={scenes}", "out=x", "max_steps=1"])
    for word in ("max_assets=1", "evaluate_count=0"):
        with pytest.raises(InputError, match=r"max_assets must be at least 2; .* evaluate_count at least 1"):
            make_recipe("scene_tiny", words(scenes, vae, "x", "max_steps=1", word))
    with pytest.raises(InputError, match="layout_weight must be positive"):
        make_recipe("scene_tiny", words(scenes, vae, "x", "max_steps=1", "layout_weight=0"))
    assert make_recipe("scene_paper", words(scenes, vae, "x")).start == "trellis-image-large"
