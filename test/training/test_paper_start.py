"""A published base as the start of a flow recipe: stereo attention is added, and nothing else changes at first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import PRESETS, random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import InputError
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow
from gena3d_core.sampling.denoisers import NETWORK_TIME
from training.datasets import open_split
from training.objectives_flow import FlowTask, starting_bundle
from training.recipes import make_recipe
from training.train import run_recipe


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small checkpoint like Amodal3R's: attention to occlusion masks, none to clouds."""
    torch.manual_seed(0)
    config = replace(
        PRESETS["tiny"].flow,
        stereo_attention=False,
        aligned_stereo=False,
        fusion_norm=False,
        occlusion_attention=True,
    )
    flow = SparseStructureFlow(config)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    bundle = random_bundle("tiny", seed=1, family="amodal3r")
    folder = tmp_path_factory.mktemp("base")
    save_bundle(replace(bundle, modules={**bundle.modules, "sparse_structure_flow": flow}), folder / "base")
    return folder / "base"


def recipe_of(base, shards, out, *words):
    common = [f"data={shards}", f"out={out}", f"start={base}", "batch=4", "max_steps=2", "evaluate_count=2"]
    return make_recipe("flow_paper", [*common, "sample_count=1", "warmup_steps=0", *words])


def test_the_base_is_where_training_starts(base, shards, tmp_path):
    recipe = recipe_of(base, shards, tmp_path)
    task = FlowTask(recipe, open_split(recipe), torch.device("cpu"))
    grown = task.network.flow
    assert grown.config.stereo_attention
    stored = open_checkpoint(base).modules["sparse_structure_flow"].state_dict()
    for name, tensor in stored.items():
        assert torch.equal(grown.state_dict()[name], tensor), name
    assert not any(p.requires_grad for p in task.network.image_encoder.parameters())
    batch = task.batch([0, 1, 2], np.random.default_rng(0))
    with torch.no_grad():
        condition = task.network.condition(batch)
        without = replace(condition, has_geometry=torch.zeros(3, dtype=torch.bool))
        t = NETWORK_TIME * batch.t
        velocities = [grown(batch.noise, t, grown.contexts(c)) for c in (condition, without)]
    assert torch.equal(*velocities)


def test_the_paper_recipe_trains_the_flow_and_keeps_the_rest(base, shards, tmp_path):
    assert run_recipe(recipe_of(base, shards, tmp_path, "learning_rate=1e-2"), "flow_paper", lambda: False)
    before, after = open_checkpoint(base), open_checkpoint(tmp_path / "last")
    assert after.family == "gena3d"
    for role in ("image_encoder", "sparse_structure_encoder", "sparse_structure_decoder"):
        a, b = before.modules[role].state_dict(), after.modules[role].state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a), role
    flow = after.modules["sparse_structure_flow"]
    old = before.modules["sparse_structure_flow"].state_dict()
    assert any(not torch.equal(flow.state_dict()[name], tensor) for name, tensor in old.items())
    assert all(bool(block.operations["stereo_attn"].to_out.weight.any()) for block in flow.blocks)


def test_a_vae_of_other_latents_is_refused(shards, tmp_path):
    save_bundle(random_bundle("edge"), tmp_path / "edge")
    words = [f"data={shards}", f"out={tmp_path}", "max_steps=1", f"vae={tmp_path / 'edge'}"]
    recipe = make_recipe("flow_tiny", words)
    with pytest.raises(InputError, match="16 channels"):
        starting_bundle(recipe, torch.device("cpu"))
