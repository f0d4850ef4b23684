"""`gena3d checkpoint verify --keys`: published parameter names against ours, on the meta device."""

import json
from pathlib import Path

import pytest

from gena3d_core.checkpoints.published import build_published
from gena3d_core.checkpoints.verification import verify_keys

KEYS = Path(__file__).resolve().parents[3] / "shared" / "keys"
PUBLISHED = sorted(KEYS.glob("*.json")) or [KEYS / "absent.json"]


@pytest.fixture
def keys_file(tmp_path, tiny_flow):
    """Writes the list of a tiny flow's parameters, changed by `edit`."""

    def write(edit=lambda content: None, name="flow") -> Path:
        constructor, module, weights = tiny_flow
        content = {
            "class": "SparseStructureFlowModel",
            "constructor": dict(constructor),
            "n_parameters": sum(p.numel() for p in module.parameters()),
            "buffers": ["pos_emb"],
            "tensors": {key: [list(tensor.shape), "float32"] for key, tensor in weights.items()},
        }
        edit(content)
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        return file

    return write


def test_a_list_that_fits(keys_file, gena3d):
    file = keys_file()
    content = json.loads(file.read_text())
    done = gena3d("verify", "--keys", file)
    assert done.code == 0
    assert done.out[0] == f"flow.json ok {len(content['tensors'])} tensors, {content['n_parameters']} parameters"
    assert done.out[1] == "1 passed, 0 failed"


def test_remarks_behind_the_class_and_elastic_names_are_known(keys_file, gena3d):
    first = keys_file(lambda c: c.update({"class": "SparseStructureFlowModel (the same as another)"}), "remark")
    second = keys_file(lambda c: c.update({"class": "ElasticSparseStructureFlowModel"}), "elastic")
    assert gena3d("verify", "--keys", first, second).code == 0


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda c: c["tensors"].pop("out_layer.bias"), "missing out_layer.bias"),
        (lambda c: c["tensors"].update({"more.weight": [[1], "float32"]}), "not expected more.weight"),
        (lambda c: c["tensors"].update({"out_layer.bias": [[3], "float32"]}), "out_layer.bias (3,) instead of (2,)"),
        (lambda c: c["buffers"].clear(), "buffers"),
        (lambda c: c["buffers"].append("out_layer.bias"), "buffers"),
        (lambda c: c.update(n_parameters=7), "states 7 parameters"),
        (lambda c: c["constructor"].update(num_blocks=3), "missing blocks.2"),
        (lambda c: c["constructor"].update(magic=3), "magic"),
        (lambda c: c.pop("constructor"), "constructor"),
        (lambda c: c.pop("tensors"), "tensors"),
        (lambda c: c.pop("class"), "class"),
    ],
)
def test_what_does_not_fit_is_named(keys_file, gena3d, edit, word):
    bad = keys_file(edit, "bad")
    done = gena3d("verify", "--keys", bad, keys_file(name="good"))
    assert done.code == 1
    assert done.out[0].split()[:2] == ["bad.json", "FAIL"]
    assert word in done.out[0]
    assert done.out[1].split()[:2] == ["good.json", "ok"]
    assert done.out[2] == "1 passed, 1 failed"


def test_two_names_that_become_one_are_no_bijection(keys_file, gena3d):
    shape = [[48], "float32"]
    edit = {"blocks.0.operations.mlp.mlp.0.bias": shape}
    done = gena3d("verify", "--keys", keys_file(lambda c: c["tensors"].update(edit)))
    assert done.code == 1
    assert "two published names become" in done.out[0]


def test_files_that_are_none(gena3d, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    done = gena3d("verify", "--keys", tmp_path / "broken.json", tmp_path / "absent.json")
    assert done.code == 1
    assert [line.split()[:2] for line in done.out[:2]] == [["broken.json", "FAIL"], ["absent.json", "FAIL"]]


def test_a_class_of_a_later_issue_is_not_supported_yet(keys_file, gena3d):
    done = gena3d("verify", "--keys", keys_file(lambda c: c.update({"class": "Pi4"})))
    assert done.code == 1
    assert done.out[0].split() == ["flow.json", "not", "supported", "yet"]


def test_a_torch_hub_dinov2_needs_no_constructor(tmp_path):
    arguments = {"img_size": 28, "patch_size": 14, "embed_dim": 64, "depth": 3, "num_heads": 1, "init_values": 1.0}
    C = 64
    tensors = {"cls_token": [1, 1, C], "pos_embed": [1, 5, C], "register_tokens": [1, 2, C], "mask_token": [1, C]}
    tensors |= {"patch_embed.proj.weight": [C, 3, 14, 14], "patch_embed.proj.bias": [C]}
    tensors |= {"norm.weight": [C], "norm.bias": [C]}
    for i in range(3):
        block = {"norm1.weight": [C], "norm1.bias": [C], "norm2.weight": [C], "norm2.bias": [C]}
        block |= {"attn.qkv.weight": [3 * C, C], "attn.qkv.bias": [3 * C], "attn.proj.weight": [C, C]}
        block |= {"attn.proj.bias": [C], "ls1.gamma": [C], "ls2.gamma": [C], "mlp.fc1.weight": [2 * C, C]}
        block |= {"mlp.fc1.bias": [2 * C], "mlp.fc2.weight": [C, 2 * C], "mlp.fc2.bias": [C]}
        tensors |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    file = tmp_path / "dino.json"
    listed = {name: [shape, "float32"] for name, shape in tensors.items()}
    file.write_text(json.dumps({"class": "DinoVisionTransformer", "tensors": listed, "buffers": []}))
    report = verify_keys(file)
    assert (report.outcome, report.reason) == ("ok", "")
    wanted = build_published("DinoVisionTransformer", {**arguments, "mlp_ratio": 2, "num_register_tokens": 2}).module
    assert report.parameters == sum(p.numel() for p in wanted.parameters())


@pytest.mark.parametrize("file", PUBLISHED, ids=lambda file: file.stem)
def test_published_parameters_map_one_to_one(keys_dir, gena3d, file):
    done = gena3d("verify", "--keys", file)
    name, verdict = done.out[0].split(maxsplit=1)
    assert name == file.name
    stated = json.loads(file.read_text())
    assert (done.code, verdict) == (0, f"ok {stated['n_tensors']} tensors, {stated['n_parameters']} parameters")
