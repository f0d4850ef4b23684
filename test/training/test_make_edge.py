"""The edge checkpoint in one command, at the smallest size."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from training.calibrate import HIGHEST, LOWEST
from training.make_edge import half, main


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_in_16_bits_and_opened_in_that_precision(tmp_path, dtype):
    bundle = random_bundle("tiny", seed=2)
    save_bundle(replace(bundle, modules={r: half(m, dtype) for r, m in bundle.modules.items()}), tmp_path / "half")
    numbers = sum(t.numel() for m in bundle.modules.values() for t in m.state_dict().values())
    size = sum(file.stat().st_size for file in (tmp_path / "half").glob("*.safetensors"))
    assert size < 2.5 * numbers
    opened = open_checkpoint(tmp_path / "half")
    for role, module in bundle.modules.items():
        found, matrices = opened.modules[role].state_dict(), {torch.float32, dtype}
        assert {tensor.dtype for tensor in found.values()} == matrices
        for name, tensor in module.state_dict().items():
            bits = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-11
            torch.testing.assert_close(found[name].float(), tensor, rtol=bits, atol=1e-6)


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_that_opens(shards, tmp_path, capsys):
    out = tmp_path / "edge"
    common = ["batch=2", "evaluate_count=2"]
    words = ["--data", str(shards), "--out", str(out), "--hours", "1", "--size", "tiny"]
    words += ["--vae", *common, "max_steps=2", "--flow", *common, "sample_count=1"]
    assert main([*words, "max_steps=2"]) == 0
    assert json.loads(capsys.readouterr().out)["checkpoint"] == str(out / "checkpoint")
    bundle = open_checkpoint(out / "checkpoint")
    assert (bundle.family, bundle.frame) == ("edge", "observed")
    assert set(bundle.modules) == {
        "image_encoder",
        "sparse_structure_flow",
        "sparse_structure_encoder",
        "sparse_structure_decoder",
    }
    facts = bundle.metadata
    assert facts["flow"]["step"] == 2
    assert LOWEST <= facts["occupancy_temperature"] <= HIGHEST
    assert facts["vae"]["recipe"] == "vae_tiny"
    assert facts["command"].startswith("python -m training.make_edge --data")
    assert 0 < facts["data"]["objects"] <= 12
    # Again with more steps: the VAE stays, the flow goes on.
    vae = (out / "vae" / "best" / "config.json").read_bytes()
    assert main([*words, "max_steps=3"]) == 0
    assert open_checkpoint(out / "checkpoint").metadata["flow"]["step"] == 3
    assert (out / "vae" / "best" / "config.json").read_bytes() == vae


def test_without_shards_one_line_says_so(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--hours", "1", "--size", "tiny"]) == 1
    assert "holds no shard of examples" in capsys.readouterr().err
