"""`gena3d bench generator` as a user calls it."""

import json

import pytest

from gena3d_core.benchmarks.report import report
from gena3d_core.benchmarks.settings import Settings
from gena3d_core.benchmarks.worker import TASKS
from gena3d_core.cli import main

ROW = {"part", "size", "steps", "device", "dtype", "threads", "measured"}
MEASURED = {"times_floor", "share_of_matrix_rate", "weights_bytes", "working_bytes"}


QUICK = Settings("cpu", "float32", None, 2, 1, 5.0, 1e10)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """What the command writes, its row measured in a process of its own, and more rows measured in this one."""
    file = tmp_path_factory.mktemp("bench") / "bench.json"
    arguments = ["--sizes", "tiny", "--parts", "structure", "--views", "2", "--objects", "2", "--steps", "2"]
    arguments += ["--repeat", "1", "--device", "cpu", "--threads", "1", "--json", str(file)]
    assert main(["bench", "generator", *arguments]) == 0
    found = json.loads(file.read_text())
    more = [TASKS[task](QUICK, **what) for task, what in MORE]
    return {**found, "rows": found["rows"] + json.loads(json.dumps(more))}


MORE = [
    ("scene", {"size": "tiny"}),
    ("detail", {"size": "tiny", "views": 2}),
    ("scene", {"size": "full"}),
    ("detail", {"size": "full", "views": 2}),
]


def test_json(content):
    assert (content["schema"], content["command"]) == (1, "bench generator")
    assert [rate["device"] for rate in content["matrix_rates"]] == ["cpu"]
    assert content["matrix_rates"][0]["operations_per_s"] > 1e8
    assert all(row.keys() >= ROW for row in content["rows"])
    parts = [(row["part"], row["size"], row["measured"]) for row in content["rows"]]
    assert parts == [
        ("stage 1", "tiny", "whole"),
        ("SceneGen stage 1", "tiny", "whole"),
        ("stages 1 and 2", "tiny", "whole"),
        ("SceneGen stage 1", "full", "no"),
        ("stages 1 and 2", "full", "no"),
    ]


def test_figures_are_sensible(content):
    for row in content["rows"]:
        if row["measured"] == "no":
            assert "--patience" in row["reason"]
            continue
        assert row.keys() >= MEASURED
        assert row["times_floor"] > 0
        assert abs(row["times_floor"] * row["share_of_matrix_rate"] - 1) < 1e-9
        assert row["weights_bytes"] > 1e5
        assert row["working_bytes"] >= 0  # memory that earlier rows left to the allocator is taken again
    first = content["rows"][0]
    assert (first["views"], first["objects"], first["threads"]) == (2, 2, 1)


def test_tables(content):
    text = report(content["rows"])
    for part in ("stage 1", "stage 1 with one saving switched off", "SceneGen stage 1", "stages 1 and 2"):
        assert f"### {part}" in text
    assert text.count("- not measured: full") == 2
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert [len(lines) for lines in tables] == [3, 3, 3, 3]
    assert all(len({line.count("|") for line in lines}) == 1 for lines in tables)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "huge"], "'huge' is not among tiny, edge, full"),
        (["--parts", "mesh"], "'mesh' is not among structure, scene, detail"),
        (["--views", "0"], "'0' is not a whole number of at least 1"),
        (["--device", "nonsense"], "cannot be used here"),
    ],
)
def test_wrong_arguments(arguments, said, capsys):
    try:
        code = main(["bench", "generator", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert said in capsys.readouterr().err
