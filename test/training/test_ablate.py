"""The ablation: intervals, and the whole command at the smallest size."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from training.ablate import VARIANTS, main, table_rows


def test_intervals_hold_the_true_difference_about_95_times_in_100():
    hits, runs, objects = 0, 200, [f"o{i // 2}" for i in range(80)]
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        of_object = np.repeat(rng.normal(0.0, 0.1, 40), 2)  # examples of an object are alike
        scores = {"full": np.full(80, 0.7), "less": 0.7 - 0.05 + of_object}
        low, high = table_rows(scores, {"full": 1.0, "less": 2.0}, objects, 1)[1]["interval"]
        hits += low <= -0.05 <= high
    assert 0.88 < hits / runs < 0.99


def test_rows_compare_with_the_first_variant():
    scores = {"full": np.array([0.5, 0.7]), "less": np.array([0.4, 0.5])}
    rows = table_rows(scores, {"full": 1.0, "less": 2.0}, ["a", "b"], 3)
    assert rows[0]["difference"] == 0.0
    assert rows[0]["interval"] == [0.0, 0.0]
    assert rows[1]["difference"] == pytest.approx(-0.15)
    assert rows[1]["interval"] == pytest.approx([-0.2, -0.1])
    assert (rows[1]["objects"], rows[1]["examples"], rows[1]["seeds"]) == (2, 2, 3)


@pytest.mark.slow
def test_the_command_trains_and_compares(shards, tmp_path, capsys):
    save_bundle(random_bundle("tiny", seed=3), tmp_path / "vae")
    words = ["--data", str(shards), "--vae", str(tmp_path / "vae"), "--out", str(tmp_path / "runs")]
    words += ["--size", "tiny", "--steps", "1", "--seeds", "0", "--json", str(tmp_path / "rows.json")]
    assert main([*words, "--flow", "batch=2", "evaluate_count=2", "sample_count=1", "held_out=0.3"]) == 0
    text = capsys.readouterr().out
    assert all(variant in text for variant in VARIANTS)
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == list(VARIANTS)
    assert all(np.isfinite(row["held_out_loss"]) for row in rows)


def test_an_unknown_variant_is_named(tmp_path, capsys):
    folders = ["--data", str(tmp_path), "--vae", str(tmp_path), "--out", str(tmp_path)]
    assert main([*folders, "--only", "everything"]) == 1
    assert "unknown variant 'everything', one of full, no gating" in capsys.readouterr().err
