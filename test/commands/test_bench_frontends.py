"""`gena3d bench frontends`: what is measured, what is said of the rest, the table, and the files."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest

from gena3d_core.benchmarks import front_ends
from gena3d_core.benchmarks.front_end_stages import FRONT_ENDS, NONE, REAL, TINY, FrontEnd
from gena3d_core.benchmarks.front_ends import Task, find, measure, measure_in_process, not_measured, tables
from gena3d_core.cli import main
from gena3d_core.errors import MissingDependencyError
from gena3d_core.segmentation import SEGMENTERS
from gena3d_core.stereo import STEREO_MATCHERS
from gena3d_core.view_completion import VIEW_COMPLETERS


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A machine without weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(
    ("stage", "names"), [("segmentation", SEGMENTERS), ("stereo", STEREO_MATCHERS), ("amodal", VIEW_COMPLETERS)]
)
def test_every_front_end_is_there_once(stage, names):
    """None can be forgotten: each either takes no weights, or has a row for its real ones."""
    own = [(f.name, f.size) for f in FRONT_ENDS if f.stage == stage]
    assert len(set(own)) == len(own)
    assert {name for name, size in own if size != TINY} == set(names) - {"auto"}
    assert all(f.models for f in FRONT_ENDS if f.size == REAL)


def fake(monkeypatch, make, size=NONE):
    entry = FrontEnd("segmentation", "fake", size, make)
    monkeypatch.setattr(front_ends, "FRONT_ENDS", (entry,))
    monkeypatch.setattr(front_ends, "load_views", lambda task: [None] * task.views)
    return Task("segmentation", "fake", size, views=2, repeat=3)


def test_runs_are_numbered_and_loading_stands_apart(monkeypatch):
    seen = []

    def make(views, device, checkpoint):
        seen.append((len(views), device, checkpoint))
        return lambda number: seen.append(number) or {"objects": number}

    row = measure(fake(monkeypatch, make))
    # Made once; no run may find the run before remembered.
    assert seen == [(2, "cpu", None), 0, 1, 2, 3]
    assert (row["measured"], row["runs"], row["facts"]) == ("yes", 3, {"objects": 3})
    assert row["seconds_per_view"] == pytest.approx(row["seconds"] / 2)
    assert row["load_s"] >= 0
    assert min(row["first_s"], row["seconds"]) > 0


def test_peak_memory_is_what_the_run_held(monkeypatch):
    def make(views, device, checkpoint):
        def run(number):
            held = np.ones(64 * 2**20, np.uint8)
            return {"objects": int(held[::4096].sum() > 0)}

        return run

    row = measure(fake(monkeypatch, make))
    assert row["peak_bytes"] is None or row["peak_bytes"] > 50 * 2**20


def test_what_is_absent_is_listed_with_the_reason(monkeypatch):
    def make(views, device, checkpoint):
        raise MissingDependencyError("some_package", "the front end", "'gena3d[some]'")

    row = measure(fake(monkeypatch, make))
    assert row["measured"] == "no"
    assert row["reason"] == "the front end needs 'some_package': pip install 'gena3d[some]'"
    text = tables([row])
    assert "### segmentation" in text
    assert "- not measured: fake (no weights): the front end needs 'some_package'" in text


def test_processes_that_fail_or_last_too_long_are_rows(monkeypatch):
    task = Task("segmentation", "tabletop", NONE)

    def late(*_, timeout, **__):
        raise subprocess.TimeoutExpired("python", timeout)

    monkeypatch.setattr(front_ends.subprocess, "run", late)
    assert measure_in_process(task, 5.0)["reason"] == "it took longer than 5 s"
    killed = subprocess.CompletedProcess([], -9, "", "line\nKilled\n")
    monkeypatch.setattr(front_ends.subprocess, "run", lambda *_, **__: killed)
    assert measure_in_process(task)["reason"] == "its process failed (exit code -9): Killed"


def test_absent_weights_cost_no_process(nowhere, monkeypatch):
    monkeypatch.setattr(front_ends.subprocess, "run", None)
    for entry in FRONT_ENDS:
        if entry.size == REAL:
            row = measure_in_process(Task(entry.stage, entry.name, REAL))
            assert row["measured"] == "no"
            assert "not on this machine" in row["reason"]
            assert find(entry.stage, entry.name, REAL) is entry


def test_table():
    task = Task("amodal", "oaac", TINY)
    row = {
        **front_ends.labels(task), "measured": "yes", "load_s": 2.0, "first_s": 0.5, "seconds": 0.25, "runs": 3,
        "seconds_per_view": 0.0625, "peak_bytes": 3 * 2**20, "facts": {"objects": 4, "pictures": 7},
    }  # fmt: skip
    depth = {**row, "stage": "stereo", "name": "pi3", "runs": 1, "peak_bytes": None, "facts": {"known_depth": 0.876}}
    text = tables([row, depth, not_measured(Task("amodal", "flux", REAL), "no\n weights")])
    stereo, amodal = text.split("\n\n### amodal")
    assert [cell.strip() for cell in stereo.splitlines()[-1].split("|")[1:-1]] == [
        "pi3", "tiny", "cpu", "one run", "2 s + 0.5 s", "0.25 s", "62.5 ms", "not measured", "88 % known depth",
    ]  # fmt: skip
    assert "| 3.0 MB" in amodal
    assert "4 objects, 7 pictures" in amodal
    assert amodal.splitlines()[-1] == "- not measured: flux (real): no weights"


def test_command(nowhere, tmp_path, capsys):
    """The real thing on the simulated scene: one front end in a process of its own, one whose weights are absent."""
    file = tmp_path / "rows.json"
    arguments = ["--names", "tabletop,sam", "--sizes", "none,real", "--views", "2", "--repeat", "1", "--device", "cpu"]
    assert main(["bench", "frontends", *arguments, "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["command"] == "bench frontends"
    tabletop, sam = content["rows"]
    assert (tabletop["measured"], tabletop["views"], tabletop["input"]) == ("yes", 2, "simulated scene")
    assert tabletop["facts"]["objects"] >= 3
    assert tabletop["seconds"] > 0
    assert (sam["measured"], sam["size"]) == ("no", "real")
    assert "- not measured: sam (real): the weights of sam-vit-b are not on this machine" in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--names", "magic"], "'magic' is no front end"),
        (["--stages", "sound"], "'sound' is not among"),
        (["--checkpoint", "sam"], "must be NAME=PATH"),
    ],
)
def test_wrong_arguments(arguments, words, capsys):
    try:
        code = main(["bench", "frontends", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    assert words in capsys.readouterr().err
