"""`gena3d checkpoint verify`: its lines and exit codes, on cases that are right, wrong and broken."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints import cases

LINE = re.compile(r"(\S+) +(ok|FAIL) +\S+ \S+ 1e-04")


def change(file, name, edit) -> None:
    """Rewrite one tensor of a safetensors file."""
    tensors = load_file(file)
    tensors[name] = edit(tensors[name])
    save_file(tensors, file)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"seed": 2, "batch": 3, "num_blocks": 1},
        {"resolution": 8, "patch_size": 2, "model_channels": 32, "num_heads": 4},
        {"share_mod": True, "qk_rms_norm": False},
        {"qk_rms_norm_cross": True, "cond_channels": 7, "in_channels": 3, "out_channels": 3},
    ],
)
def test_our_own_numbers_pass(make_case, gena3d, tmp_path, changes):
    done = gena3d("verify", make_case(tmp_path / "case", **changes))
    assert done.code == 0
    assert LINE.fullmatch(done.out[0]).groups() == ("case", "ok")
    assert done.out[1:] == ["1 passed, 0 failed"]


@pytest.mark.parametrize("parameter", ["out_layer.weight", "blocks.1.cross_attn.to_kv.bias", "pos_emb"])
def test_a_perturbed_parameter_fails_and_the_tensor_is_named(make_case, gena3d, tmp_path, parameter):
    case = make_case(tmp_path / "case")
    change(case / "weights.safetensors", parameter, lambda w: 1.2 * w)
    done = gena3d("verify", case)
    assert done.code == 1
    assert LINE.fullmatch(done.out[0]).groups() == ("case", "FAIL")
    assert re.fullmatch(r"  out\.v +FAIL \S+ \S+", done.out[1])
    assert float(done.out[0].split()[2]) > 1e-3
    assert done.out[2:] == ["0 passed, 1 failed"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_expected_values_that_are_not_finite_fail(make_case, gena3d, tmp_path, value):
    case = make_case(tmp_path / "case")
    change(case / "io.safetensors", "out.v", lambda v: v.index_fill(0, torch.tensor([0]), value))
    done = gena3d("verify", case)
    assert done.code == 1
    assert done.out[0].split()[1] == "FAIL"


def test_an_output_that_nobody_computes_fails(make_case, gena3d, tmp_path):
    case = make_case(tmp_path / "case")
    tensors = load_file(case / "io.safetensors")
    save_file({**tensors, "out.more": torch.ones(1)}, case / "io.safetensors")
    done = gena3d("verify", case)
    assert done.code == 1
    assert re.fullmatch(r"  out\.more +FAIL inf inf not computed", done.out[1])


def test_points_on_the_way_that_ours_has_not_are_said(make_case, gena3d, tmp_path):
    case = make_case(tmp_path / "case")
    save_file({**load_file(case / "io.safetensors"), "mid.more": torch.ones(1)}, case / "io.safetensors")
    done = gena3d("verify", case, "--details")
    assert done.code == 0
    assert done.out[0].endswith("(1 not compared)")
    assert [line for line in done.out if "mid.more" in line] == ["  mid.more not compared: ours has no such point"]


def test_a_case_without_outputs_fails(make_case, gena3d, tmp_path, monkeypatch):
    case = make_case(tmp_path / "case")
    tensors = load_file(case / "io.safetensors")
    tensors["mid.block0"] = torch.zeros(1)
    del tensors["out.v"]
    save_file(tensors, case / "io.safetensors")
    monkeypatch.setattr(cases, "KINDS", (cases.CaseKind("a", ("in.x",), (), "sparse_structure:flow"),))
    done = gena3d("verify", case)
    assert done.code == 1
    assert "nothing was compared" in done.out[0]


def broken_cases(good, folder):
    """Name -> a word of the reason; copies of `good`, each broken in its own way."""
    words = {
        "absent": "case.json",
        "truncated_weights": "weights.safetensors",
        "truncated_io": "io.safetensors",
        "no_io": "io.safetensors",
        "bad_json": "case.json",
        "list_json": "JSON object",
        "missing_key": "missing",
        "extra_key": "not expected",
        "wrong_shape": "wrong shape",
        "nan_weight": "NaN",
        "unknown_option": "magic",
        "wrong_input": "x must be",
        "no_weights": "missing",
    }
    for name in words.keys() - {"absent"}:
        shutil.copytree(good, folder / name)
    for name, file in (("truncated_weights", "weights.safetensors"), ("truncated_io", "io.safetensors")):
        path = folder / name / file
        path.write_bytes(path.read_bytes()[:-200])
    (folder / "no_io/io.safetensors").unlink()
    (folder / "no_weights/weights.safetensors").unlink()
    (folder / "bad_json/case.json").write_text("{")
    (folder / "list_json/case.json").write_text("[]")
    weights = load_file(good / "weights.safetensors")
    key = "input_layer.weight"
    save_file({k: v for k, v in weights.items() if k != key}, folder / "missing_key/weights.safetensors")
    save_file({**weights, "more": torch.ones(1)}, folder / "extra_key/weights.safetensors")
    save_file({**weights, key: torch.ones(3, 3)}, folder / "wrong_shape/weights.safetensors")
    save_file({**weights, key: weights[key] / 0}, folder / "nan_weight/weights.safetensors")
    description = json.loads((good / "case.json").read_text())
    description["constructor"]["magic"] = 1
    (folder / "unknown_option/case.json").write_text(json.dumps(description))
    change(folder / "wrong_input/io.safetensors", "in.x", lambda x: x[:, :1].contiguous())
    return words


def test_broken_cases_are_said_and_stop_no_other(make_case, gena3d, tmp_path):
    first, last = make_case(tmp_path / "first"), make_case(tmp_path / "last", seed=5)
    words = broken_cases(first, tmp_path)
    done = gena3d("verify", first, *(tmp_path / name for name in words), last)
    assert done.code == 1
    assert done.out[-1] == f"2 passed, {len(words)} failed"
    lines = {line.split()[0]: line for line in done.out[:-1]}
    assert list(lines) == ["first", *words, "last"]
    for name, word in words.items():
        assert lines[name].split()[1] == "FAIL"
        assert word in lines[name], lines[name]


def test_a_bug_in_a_runner_is_that_cases_failure(make_case, gena3d, tmp_path, monkeypatch):
    case = make_case(tmp_path / "case")
    real = cases.runner_for

    def runner_for(read):
        if read.name != "case":
            return real(read)
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("gena3d_core.checkpoints.verification.runner_for", runner_for)
    done = gena3d("verify", case, make_case(tmp_path / "other"))
    assert done.code == 1
    assert "ZeroDivisionError: oh" in done.out[0]
    assert done.out[1].split()[:2] == ["other", "ok"]


def test_unknown_kinds_are_not_supported_yet(make_case, gena3d, tmp_path):
    case = make_case(tmp_path / "case")
    description = json.loads((case / "case.json").read_text())
    (case / "case.json").write_text(json.dumps({**description, "task": "zz"}))
    done = gena3d("verify", case)
    assert done.code == 1
    assert done.out == ["case not supported yet", "0 passed, 1 failed"]


def test_details_list_every_tensor_and_json_holds_them(make_case, gena3d, tmp_path):
    case, file = make_case(tmp_path / "case"), tmp_path / "report.json"
    done = gena3d("verify", case, "--details", "--json", file)
    assert done.code == 0
    assert [line.split()[:2] for line in done.out[:2]] == [["case", "ok"], ["out.v", "ok"]]
    content = json.loads(file.read_text())
    assert (content["passed"], content["failed"]) == (1, 0)
    assert content["rows"][0]["outcome"] == "ok"
    assert content["rows"][0]["tensors"]["out.v"]["ok"] is True
    assert gena3d("verify", tmp_path / "absent", case, "--json", file).code == 1
    rows = json.loads(file.read_text())["rows"]
    assert [(row["outcome"], row["max_abs"] is None) for row in rows] == [("FAIL", True), ("ok", False)]


@pytest.mark.parametrize("backend", ["sdpa", "reference"])
def test_the_backend_is_the_one_that_runs(make_case, gena3d, tmp_path, backend, monkeypatch):
    from gena3d_core.models import sparse_structure_flow
    from gena3d_core.nn import attention

    case, used = make_case(tmp_path / "case"), set()
    forward = sparse_structure_flow.SparseStructureFlow.forward

    def watch(self, *arguments):
        out = forward(self, *arguments)
        used.update(layer.attention_backend for layer in self.modules() if hasattr(layer, "attention_backend"))
        return out

    monkeypatch.setattr(sparse_structure_flow.SparseStructureFlow, "forward", watch)
    assert gena3d("verify", case, "--backend", backend).code == 0
    assert used == {backend}
    assert backend in attention.BACKENDS


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "WHAT"),
        (("verify",), "CASE_DIR"),
        (("verify", "x", "--backend", "magic"), "magic"),
        (("verify", "x", "--device", "abacus"), "abacus"),
        (("frobnicate",), "frobnicate"),
        (("info",), "NAME"),
    ],
)
def test_wrong_arguments_exit_2(gena3d, arguments, word):
    done = gena3d(*arguments)
    assert done.code == 2
    assert done.out == []
    assert word in done.err.splitlines()[-1]
