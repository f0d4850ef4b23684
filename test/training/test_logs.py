"""Curves and pictures of a run."""

from __future__ import annotations

import csv
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from training.logs import RunLog
from training.pictures import comparison_sheet, shaded
from training.task import Evaluation


def rows_of(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def evaluation(score=0.5):
    return Evaluation({"iou": score}, score, np.full((8, 9, 3), 7, dtype=np.uint8))


def test_rows_are_means_and_rows_done_again_are_dropped(tmp_path):
    journal = RunLog(tmp_path, 0)
    for step in range(1, 5):
        journal.collect({"loss": float(step)}, 2.0 * step)
        if step % 2 == 0:
            journal.write(step, 36.0 * step, 1e-3, 8)
    journal.evaluated(4, 144.0, evaluation())
    rows = rows_of(tmp_path / "losses.csv")
    assert [(row["step"], float(row["loss"]), float(row["gradient_norm"])) for row in rows] == [
        ("2", 1.5, 3.0),
        ("4", 3.5, 7.0),
    ]
    assert float(rows[1]["hours"]) == pytest.approx(0.04)
    assert np.asarray(Image.open(tmp_path / "pictures" / "00000004.png")).shape == (8, 9, 3)
    RunLog(tmp_path, 2)  # taken up at step 2
    assert [row["step"] for row in rows_of(tmp_path / "losses.csv")] == ["2"]
    assert rows_of(tmp_path / "evaluations.csv") == []


def test_other_processes_write_nothing(tmp_path):
    journal = RunLog(tmp_path / "run", 0, active=False)
    journal.collect({"loss": 1.0}, 1.0)
    journal.write(1, 1.0, 1e-3, 8)
    journal.evaluated(1, 1.0, evaluation())
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_same_where_it_is_installed(tmp_path, monkeypatch):
    scalars, images = [], []

    class Writer:
        def __init__(self, folder, purge_step):
            assert purge_step == 3

        def add_scalar(self, name, value, step):
            scalars.append((name, value, step))

        def add_image(self, name, picture, step, dataformats):
            images.append((picture.shape, step, dataformats))

        def flush(self):
            pass

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    journal = RunLog(tmp_path, 3)
    journal.collect({"loss": 2.0}, 1.0)
    journal.write(4, 1.0, 1e-3, 8)
    journal.evaluated(4, 1.0, evaluation())
    assert ("loss", 2.0, 4) in scalars
    assert ("iou", 0.5, 4) in scalars
    assert images == [((8, 9, 3), 4, "HWC")]


def test_pictures_show_the_front_upright():
    grid = np.zeros((16, 16, 16), dtype=bool)
    grid[2:5, 3:6, 12:15] = True  # left, high
    picture = shaded(grid)
    dark = picture[:, :, 0] < 230
    rows, columns = np.nonzero(dark)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 3, 2, 4)
    sheet = comparison_sheet([grid[None], picture[None]], ["one"])
    assert sheet.ndim == 3
    assert sheet.dtype == np.uint8
