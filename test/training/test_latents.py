"""Latents ahead of training, the scale of the VAE, and what the flow is trained on."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.errors import CancelledError, DataFormatError
from gena3d_core.generative.conditions import encode_condition
from gena3d_core.generative.inputs import ObjectInputs
from training.datasets import ExampleRef, open_split, structure_batch
from training.latent_scale import scaled_vae
from training.latents import LatentStore, encoder_key, ensure_latents
from training.objectives_flow import FlowTask
from training.recipes import make_recipe
from training.shards import open_shards

CPU = torch.device("cpu")


@pytest.fixture
def encoder():
    return random_bundle("tiny", seed=3).modules["sparse_structure_encoder"]


@pytest.fixture
def own_shards(shards, tmp_path):
    """A copy whose latents are no other test's."""
    copy = tmp_path / "data"
    shutil.copytree(shards, copy, ignore=shutil.ignore_patterns("latents_*"))
    return copy


def test_latents_are_those_of_the_encoder(own_shards, encoder):
    opened = open_shards(own_shards)
    store = ensure_latents(encoder, opened, 2, CPU, precision=torch.float32)
    examples = [ExampleRef(opened[0], 4, "", ""), ExampleRef(opened[1], 1, "", "")]
    targets, clouds = store.take(examples, [0, 1])
    for found, is_cloud in ((targets, False), (clouds, True)):
        grids = structure_batch(examples, np.full(2, is_cloud), [0, 1]).occupancy
        with torch.no_grad():
            np.testing.assert_allclose(found, encoder(grids).mean, atol=2e-3)
    assert store.folder == own_shards / f"latents_{encoder_key(encoder)}"


def test_only_what_is_missing_is_encoded(own_shards, encoder):
    opened = open_shards(own_shards)
    store = ensure_latents(encoder, opened, 1, CPU)
    files = {shard.folder.name: store.folder / shard.folder.name / "targets.npy" for shard in opened}
    before = {name: file.stat().st_mtime_ns for name, file in files.items()}
    shutil.rmtree(files["shard_00001"].parent)
    ensure_latents(encoder, opened, 1, CPU)
    assert files["shard_00000"].stat().st_mtime_ns == before["shard_00000"]
    assert files["shard_00001"].exists()
    ensure_latents(encoder, opened, 2, CPU)  # more variants than there are
    assert np.load(files["shard_00000"]).shape[1] == 2
    index = opened[0].folder / "examples.json"
    index.write_text(index.read_text().replace('"seed": 0', '"seed": 1'))
    stale = files["shard_00000"].stat().st_mtime_ns
    ensure_latents(encoder, open_shards(own_shards), 2, CPU)
    assert files["shard_00000"].stat().st_mtime_ns != stale


def test_another_encoder_has_other_latents(encoder):
    other = random_bundle("tiny", seed=4).modules["sparse_structure_encoder"]
    assert encoder_key(encoder) != encoder_key(other)
    assert encoder_key(encoder) == encoder_key(random_bundle("tiny", seed=3).modules["sparse_structure_encoder"])


def test_processes_share_the_shards(own_shards, encoder):
    opened = open_shards(own_shards)
    store = ensure_latents(encoder, opened, 1, CPU, rank=0, world=2)
    assert sorted(path.name for path in store.folder.iterdir()) == ["shard_00000"]


def test_encoding_can_be_stopped_and_damage_is_named(own_shards, encoder):
    opened = open_shards(own_shards)
    with pytest.raises(CancelledError, match="0 of 2 shards"):
        ensure_latents(encoder, opened, 1, CPU, cancelled=lambda: True)
    store = ensure_latents(encoder, opened, 1, CPU)
    (store.folder / "shard_00000" / "clouds.npy").write_bytes(b"broken")
    with pytest.raises(DataFormatError, match=r"shard_00000.*delete the folder"):
        LatentStore(store.folder).take([ExampleRef(opened[0], 0, "", "")], [0])


def test_scaled_latents_have_variance_one_and_decode_as_before(shards):
    modules = random_bundle("tiny", seed=3).modules
    encoder, decoder = modules["sparse_structure_encoder"], modules["sparse_structure_decoder"]
    examples = [ExampleRef(shard, row, "", "") for shard in open_shards(shards) for row in range(3)]
    inputs = structure_batch(examples, np.zeros(6, dtype=bool), [0] * 6).occupancy
    new_encoder, new_decoder, scale = scaled_vae(encoder, decoder, [inputs], CPU)
    with torch.no_grad():
        old, new = encoder(inputs), new_encoder(inputs)
        torch.testing.assert_close(new.mean * scale, old.mean)
        torch.testing.assert_close((0.5 * new.logvar).exp() * scale, (0.5 * old.logvar).exp())
        torch.testing.assert_close(new_decoder(new.mean), decoder(old.mean), rtol=1e-3, atol=1e-4)
    centred = new.mean - new.mean.mean(dim=(0, 2, 3, 4), keepdim=True)
    assert float(centred.square().mean()) == pytest.approx(1.0, abs=1e-3)


@pytest.fixture
def flow_task(own_shards, tmp_path):
    from gena3d_core.checkpoints.save import save_bundle

    save_bundle(random_bundle("tiny", seed=3), tmp_path / "vae")

    def make(*words):
        vae = f"vae={tmp_path / 'vae'}"
        recipe = make_recipe(
            "flow_tiny", [f"data={own_shards}", f"out={tmp_path}", "max_steps=1", vae, "held_out=0", *words]
        )
        return FlowTask(recipe, open_split(recipe), CPU)

    return make


def test_shares_of_dropped_conditions(flow_task):
    task = flow_task("condition_dropout=0.2", "cloud_dropout=0.3", "image_dropout=0.1")
    batch = task.batch([0] * 4000, np.random.default_rng(0))
    images, cloud = batch.sees_images, batch.has_geometry
    for found, share in (
        (~images & ~cloud, 0.2),
        (images & ~cloud, 0.3),
        (~images & cloud, 0.1),
        (images & cloud, 0.4),
    ):
        assert float(found.float().mean()) == pytest.approx(share, abs=0.03)


def test_flow_times_are_logit_normal(flow_task):
    t = flow_task("time_mean=0.5", "time_std=2").batch([0] * 4000, np.random.default_rng(0)).t
    normal = torch.logit(t.double())
    assert float(normal.mean()) == pytest.approx(0.5, abs=0.1)
    assert float(normal.std()) == pytest.approx(2.0, abs=0.1)


def test_a_dropped_condition_is_the_unconditional_branch_of_sampling(flow_task):
    from gena3d_core.models.conditioning import unconditional
    from gena3d_core.sampling.denoisers import NETWORK_TIME

    task = flow_task("condition_dropout=1", "cloud_dropout=0", "image_dropout=0")
    network = task.network
    for parameter in network.flow.parameters():  # what starts at zero would hide differences
        torch.nn.init.normal_(parameter, std=0.1)
    batch = task.batch([0, 5, 7], np.random.default_rng(0))
    assert not batch.sees_images.any()
    assert not batch.has_geometry.any()
    with torch.no_grad():
        t = NETWORK_TIME * batch.t
        dropped = network.flow(batch.noise, t, network.flow.contexts(network.condition(batch)))
        torch.testing.assert_close(dropped, network.flow(batch.noise, t, unconditional(network.flow.blocks)))


@pytest.mark.parametrize(
    "words",
    [["stereo=false"], ["gating=false"], ["fusion_norm=false"], ["fusion=concatenated"], ["fusion=stochastic"]],
)
def test_parts_can_be_left_out(flow_task, words):
    task = flow_task(*words, "sample_count=1", "evaluate_count=3", "image_dropout=0")
    batch = task.batch([0, 1, 2, 3], np.random.default_rng(0))
    if words == ["fusion=stochastic"]:
        assert batch.owner.tolist() == [0, 1, 2, 3]
    task.network(batch).total.backward()
    config = task.network.flow.config
    found = {"stereo": config.stereo_attention, "gating": config.gating, "fusion_norm": config.fusion_norm}
    name, value = words[0].split("=")
    assert found.get(name, False) is False
    assert (task.bundle({}).fusion == value) == (name == "fusion")
    assert np.isfinite(task.evaluate().score)


def test_training_sees_the_condition_that_inference_makes(flow_task):
    task = flow_task("condition_dropout=0", "cloud_dropout=0", "image_dropout=0", "view_dropout=0", "precision=float32")
    batch = task.batch([3, 0, 8], np.random.default_rng(0))
    examples = [task.split.train[i] for i in (3, 0, 8)]
    crops = np.concatenate([e.shard.crops[e.views] for e in examples]).astype(np.float32)
    crops[:, :3] /= 255
    inputs = ObjectInputs(
        crops,
        batch.owner.numpy(),
        np.concatenate([e.shard.visibility[e.views] for e in examples]),
        np.stack([e.shard.clouds(e.row) for e in examples]),
        np.ones(3, dtype=bool),
        np.stack([np.eye(4)] * 3),
    )
    expected = encode_condition(task.bundle({}), inputs, "cpu")
    found = task.network.condition(batch)
    torch.testing.assert_close(found.views.tokens, expected.views.tokens)
    torch.testing.assert_close(found.views.weight, expected.views.weight)
    torch.testing.assert_close(found.geometry, expected.geometry, rtol=2e-3, atol=2e-3)
    assert torch.equal(found.has_geometry, expected.has_geometry)


def test_the_loss_of_the_true_velocity_is_zero(flow_task, monkeypatch):
    task = flow_task()
    batch = task.batch([0, 1], np.random.default_rng(0))

    def oracle(x, t, contexts):
        level = batch.t[:, None, None, None, None]
        torch.testing.assert_close(x, (1 - level) * batch.x0 + (1e-5 + (1 - 1e-5) * level) * batch.noise)
        return (1 - 1e-5) * batch.noise - batch.x0

    monkeypatch.setattr(task.network.flow, "forward", oracle)
    assert float(task.network(batch).total) == pytest.approx(0.0, abs=1e-9)
