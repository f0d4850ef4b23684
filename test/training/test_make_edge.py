"""The edge checkpoint in one command, at the smallest size."""

from __future__ import annotations

import json

import pytest

from gena3d_core.checkpoints.open import open_checkpoint
from training.make_edge import main


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
