"""The curve of chances: found where it is known, kept apart from shapes, written into a checkpoint."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import expit, logit

from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import InputError
from gena3d_core.generative.hypotheses import CHANCE_CURVE, ChanceCurve
from training.chances import fit_chances, held_out_entries, main
from training.datasets import is_held_out

from .test_end_to_end import write_objects


@pytest.mark.parametrize("curve", [ChanceCurve(0.4, 0.3), ChanceCurve(1.0, 0.0), ChanceCurve(2.0, -1.0)])
def test_finds_the_curve_that_outcomes_were_drawn_with(curve):
    rng = np.random.default_rng(0)
    chances = expit(2.0 * rng.standard_normal(60000))
    full = rng.random(60000) < expit(curve.slope * logit(chances) + curve.intercept)
    found = fit_chances(chances, full)
    assert found.slope == pytest.approx(curve.slope, abs=0.05)
    assert found.intercept == pytest.approx(curve.intercept, abs=0.05)


@pytest.mark.parametrize("full", [np.zeros(0, bool), np.zeros(5, bool), np.ones(5, bool)])
def test_one_kind_of_voxels_is_not_enough(full):
    with pytest.raises(InputError, match="no full and empty voxels"):
        fit_chances(np.full(len(full), 0.5), full)


def test_a_checkpoint_gets_its_curve_and_keeps_everything_else(tmp_path, capsys):
    checkpoint, objects = tmp_path / "checkpoint", tmp_path / "objects"
    save_bundle(random_bundle("tiny", seed=1), checkpoint)
    write_objects(objects)
    before = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    words = [str(checkpoint), "--objects", str(objects), "--jobs", "1"]
    assert main([*words, "--held-out", "1", "--limit", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = open_checkpoint(checkpoint).metadata[CHANCE_CURVE]
    assert found == pytest.approx(told[CHANCE_CURVE], abs=1e-4)
    assert found != [1.0, 0.0]  # random weights mean nothing by their chances
    after = {file.name: file.read_bytes() for file in checkpoint.iterdir()}
    assert {name for name in after if after[name] != before.get(name)} == {"config.json"}
    assert json.loads(after["config.json"])["modules"] == json.loads(before["config.json"])["modules"]
    # Calibrated again, it is the network's chances that count, not those of the curve before.
    assert main([*words, "--held-out", "1", "--limit", "1"]) == 0
    assert json.loads(capsys.readouterr().out)[CHANCE_CURVE] == pytest.approx(told[CHANCE_CURVE])


def test_only_objects_that_training_held_out_are_used(tmp_path, capsys):
    write_objects(tmp_path / "objects")
    with pytest.raises(InputError, match="no object of the split 'train' was held out by a share of 0"):
        held_out_entries(tmp_path / "objects", "train", 0.0, 5)
    share = 0.7
    known = [name for name in ("can", "egg") if is_held_out(name, share)]
    assert sorted(e.id for e in held_out_entries(tmp_path / "objects", "train", share, 5)) == sorted(known)
    assert main([str(tmp_path), "--objects", str(tmp_path / "objects")]) == 1
    assert "no config.json" in capsys.readouterr().err
