"""`gena3d bench data`: what is measured, printed and written."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from gena3d_core.benchmarks.data import STAGES, measure_data, unit_shapes
from gena3d_core.cli import main
from gena3d_core.geometry.solid_voxelization import is_solid


def test_shapes_are_closed_and_fill_the_unit_cube():
    for mesh in unit_shapes(1500):
        assert is_solid(mesh)
        assert len(mesh.faces) <= 1500
        assert np.abs(mesh.vertices).max() == pytest.approx(0.49, abs=1e-3)


def test_rates_follow_from_the_stages():
    ticks = itertools.count()
    (row,) = measure_data(["none"], [2], 2, clock=lambda: 0.001 * next(ticks))
    assert row.milliseconds == pytest.approx(dict.fromkeys(STAGES, 1.0))
    assert row.examples_per_s == pytest.approx(1000.0 / len(STAGES))
    assert row.ms_per_view == pytest.approx(len(STAGES) / 2.0)


def test_table_and_json(tmp_path, capsys):
    file = tmp_path / "data.json"
    assert (
        main(["bench", "data", "--views", "1", "--occlusion", "surface", "--examples", "1", "--json", str(file)]) == 0
    )
    printed = capsys.readouterr().out
    assert all(stage in printed for stage in STAGES)
    (row,) = json.loads(file.read_text())["rows"]
    assert row["occlusion"] == "surface"
    assert all(row["milliseconds"][stage] > 0 for stage in STAGES)


def test_unknown_occlusions_are_refused(capsys):
    assert main(["bench", "data", "--occlusion", "fog"]) == 2
    assert "fog" in capsys.readouterr().err
