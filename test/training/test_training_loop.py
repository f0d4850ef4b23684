"""The loop: exact resume, averages, clipping, overfitting, signals, damaged states."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.errors import DataFormatError, Gena3DError
from training.ema import ParameterAverage
from training.recipes import make_recipe
from training.schedule import learning_rate, progress
from training.state import load_newest_state
from training.train import run_recipe

ROOT = Path(__file__).parents[2]


def run(name, shards, out, *words, stopped=lambda: False):
    recipe = make_recipe(name, [f"data={shards}", f"out={out}", "batch=2", "evaluate_count=2", *words])
    return run_recipe(recipe, name, stopped)


def after(steps):
    """Says stop once that many steps have been asked about."""
    calls = iter(range(1, 10**6))
    return lambda: next(calls) >= steps


def newest(out):
    state = load_newest_state(out)
    assert state is not None
    return state


def assert_same(a, b):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            if key != "elapsed_s":
                assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


@pytest.fixture(scope="module")
def vae(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("vae")
    assert run("vae_tiny", shards, out, "max_steps=3")
    return out / "best"


def test_a_stopped_vae_run_resumes_bit_exactly(shards, tmp_path):
    words = ("max_steps=6", "accumulate=2", "adaptive_clip=true")
    assert run("vae_tiny", shards, tmp_path / "whole", *words)
    assert not run("vae_tiny", shards, tmp_path / "parts", *words, stopped=after(3))
    assert newest(tmp_path / "parts")["step"] == 3
    torch.manual_seed(99)  # what other code draws meanwhile must not matter
    assert run("vae_tiny", shards, tmp_path / "parts", *words)
    assert_same(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    logs = [(tmp_path / name / "losses.csv").read_text().splitlines() for name in ("whole", "parts")]
    assert [line.split(",")[0] for line in logs[0]][-1] == [line.split(",")[0] for line in logs[1]][-1] == "6"


def test_a_stopped_flow_run_resumes_bit_exactly(shards, vae, tmp_path):
    words = ("max_steps=6", f"vae={vae}", "variants=2", "sample_count=1")
    assert run("flow_tiny", shards, tmp_path / "whole", *words)
    assert not run("flow_tiny", shards, tmp_path / "parts", *words, stopped=after(3))
    assert run("flow_tiny", shards, tmp_path / "parts", *words)
    assert_same(newest(tmp_path / "whole"), newest(tmp_path / "parts"))
    a, b = (open_checkpoint(tmp_path / name / "last") for name in ("whole", "parts"))
    for role, module in a.modules.items():
        assert_same(module.state_dict(), b.modules[role].state_dict())


def test_a_finished_run_does_nothing_and_a_longer_one_goes_on(shards, tmp_path):
    assert run("vae_tiny", shards, tmp_path, "max_steps=2")
    first = newest(tmp_path)
    assert run("vae_tiny", shards, tmp_path, "max_steps=2")
    assert_same(first, newest(tmp_path))
    assert run("vae_tiny", shards, tmp_path, "max_steps=4")
    assert newest(tmp_path)["step"] == 4


def test_other_seeds_give_other_runs(shards, tmp_path):
    for seed in (0, 1):
        run("vae_tiny", shards, tmp_path / str(seed), "max_steps=1", f"seed={seed}")
    weights = [newest(tmp_path / str(seed))["parameters"]["encoder.input_layer.weight"] for seed in (0, 1)]
    assert not torch.equal(*weights)


def test_overfitting_one_example(shards, vae, tmp_path):
    words = ("max_steps=60", "overfit_one=true", "learning_rate=3e-3", "precision=float32")
    assert run("vae_tiny", shards, tmp_path / "vae", *words)
    rows = [line.split(",") for line in (tmp_path / "vae" / "losses.csv").read_text().splitlines()]
    loss = rows[0].index("loss")
    assert float(rows[-1][loss]) < 0.5 * float(rows[1][loss])
    scores = (tmp_path / "vae" / "evaluations.csv").read_text().splitlines()
    assert float(scores[-1].split(",")[2]) > 0.5
    words = ("max_steps=150", *words[1:], "sample_count=1", f"vae={tmp_path / 'vae' / 'best'}")
    assert run("flow_tiny", shards, tmp_path / "flow", *words)
    scores = (tmp_path / "flow" / "evaluations.csv").read_text().splitlines()
    assert float(scores[-1].split(",")[3]) > 0.5


def test_the_average_follows_its_formula():
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 1.0)
    average = ParameterAverage(layer, 0.5)
    expected = 1.0
    for update, value in enumerate([3.0, 5.0, -2.0]):
        nn.init.constant_(layer.weight, value)
        average.update(layer)
        decay = min(0.5, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    assert float(average.average["weight"]) == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == pytest.approx(expected)
    average.swap(layer)
    assert layer.weight.item() == -2.0


def test_rate_and_progress(tmp_path):
    words = [f"data={tmp_path}", f"out={tmp_path}", "max_steps=100", "hours=1", "learning_rate=2", "warmup_steps=10"]
    recipe = make_recipe("vae_tiny", [*words, "final_rate=0.1"])
    assert progress(recipe, 50, 0.0, 10.0) == 0.5
    assert progress(recipe, 50, 2700.0, 10.0) == 0.75
    assert learning_rate(recipe, 0, 0.0) == pytest.approx(0.2)
    assert learning_rate(recipe, 50, 0.5) == pytest.approx(2 * 0.55)
    assert learning_rate(recipe, 100, 1.0) == pytest.approx(0.2)


def test_a_damaged_state_is_named_and_the_one_before_kept(shards, tmp_path):
    run("vae_tiny", shards, tmp_path, "max_steps=1")
    run("vae_tiny", shards, tmp_path, "max_steps=2")
    file = tmp_path / "states" / "00000002" / "state.pt"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))
    with pytest.raises(DataFormatError, match=r"00000002.*delete that folder to go on from 00000001"):
        run("vae_tiny", shards, tmp_path, "max_steps=3")
    assert (tmp_path / "states" / "00000001" / "state.pt").exists()


def test_the_state_of_another_network_is_refused(shards, vae, tmp_path):
    run("vae_tiny", shards, tmp_path, "max_steps=1")
    with pytest.raises(DataFormatError, match="another network"):
        run("flow_tiny", shards, tmp_path, "max_steps=2", f"vae={vae}")


def test_a_loss_that_is_not_finite_ends_the_run(shards, tmp_path):
    with pytest.raises(Gena3DError, match="learning_rate"):
        run("vae_tiny", shards, tmp_path, "max_steps=20", "learning_rate=1e30", "warmup_steps=0", "precision=float32")


def test_sigterm_saves_before_the_end(shards, tmp_path):
    words = [f"data={shards}", f"out={tmp_path}", "batch=2", "max_steps=100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "training.train", "vae_tiny", *words]
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 1," in line:
                break
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "start again to go on" in output
    assert newest(tmp_path)["step"] >= 1
