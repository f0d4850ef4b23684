"""Published checkpoints: pipelines, single networks, DINOv2 files, pickles, the hub; and their faults."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints.bundle import SamplerDefaults
from gena3d_core.checkpoints.locate import describe
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.registry import FAMILIES
from gena3d_core.errors import DataFormatError, MissingDependencyError
from gena3d_core.models.conditioning import single_views

pytestmark = pytest.mark.usefixtures("nowhere")


def test_a_tiny_pipeline(tiny, tiny_flow):
    opened = open_checkpoint(tiny)
    assert (opened.family, opened.frame, opened.fusion) == ("trellis-image-large", "canonical", "stochastic")
    assert opened.samplers == {"sparse_structure": SamplerDefaults(25, 5.0, (0.5, 1.0), 3.0, 1e-5)}
    _, module, _ = tiny_flow
    x, t, cond = torch.randn(1, 2, 4, 4, 4), torch.tensor([300.0]), torch.randn(1, 5, 10)
    flow = opened.modules["sparse_structure_flow"]
    with torch.no_grad():
        ours, wanted = (m(x, t, m.contexts(single_views(cond))) for m in (flow, module))
    assert torch.equal(ours, wanted)


@pytest.mark.parametrize(
    ("sampler", "wanted"),
    [
        ({"name": "FlowEulerSampler", "params": {"steps": 9}}, SamplerDefaults(9, 0.0, (0.0, 1.0))),
        ({"name": "FlowEulerCfgSampler", "params": {"cfg_strength": 2}}, SamplerDefaults(12, 2.0, (0.0, 1.0))),
        ({"params": {"cfg_interval": [0.2, 0.7]}}, SamplerDefaults(guidance_interval=(0.2, 0.7))),
    ],
)
def test_samplers_without_interval_guide_all_along_or_never(tiny, sampler, wanted, pipeline):
    pipeline(tiny, slat_sampler=sampler)
    assert describe(tiny).samplers["structured_latent"] == wanted


def test_half_precision_files_stay_half_unless_asked(tiny):
    file = tiny / "ckpts/flow.safetensors"
    save_file({k: v.half() if v.ndim > 1 and "blocks" in k else v for k, v in load_file(file).items()}, file)
    flow = open_checkpoint(tiny).modules["sparse_structure_flow"]
    assert flow.blocks[0].operations["mlp"].mlp[0].weight.dtype == torch.float16
    assert flow.input_layer.weight.dtype == torch.float32
    wide = open_checkpoint(tiny, dtype=torch.float32).modules["sparse_structure_flow"]
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


def edit_weights(file, edit) -> None:
    tensors = load_file(file)
    edit(tensors)
    save_file(tensors, file)


KEY = "blocks.0.self_attn.to_qkv.weight"
FAULTS = {
    "truncated": (lambda d: (d / "flow.safetensors").write_bytes((d / "flow.safetensors").read_bytes()[:-9]), "whole"),
    "foreign": (lambda d: (d / "flow.safetensors").write_bytes(b"not a file of weights"), "not a whole safetensors"),
    "shape": (lambda d: edit_weights(d / "flow.safetensors", lambda t: t.update({KEY: torch.ones(2)})), "wrong shape"),
    "missing": (lambda d: edit_weights(d / "flow.safetensors", lambda t: t.pop(KEY)), "missing blocks.0"),
    "extra": (lambda d: edit_weights(d / "flow.safetensors", lambda t: t.update(x=torch.ones(1))), "not expected x"),
    "nan": (lambda d: edit_weights(d / "flow.safetensors", lambda t: t[KEY].fill_(float("inf"))), "NaN or infinity"),
    "hash": (lambda d: (d / "SHA256SUMS").write_text(f"{'0' * 64}  flow.safetensors\n"), "SHA-256"),
    "no json": (lambda d: (d / "flow.json").unlink(), r"flow\.json: no such file"),
    "no weights": (lambda d: (d / "flow.safetensors").unlink(), r"flow\.safetensors: no such file"),
    "bad json": (lambda d: (d / "flow.json").write_text("{"), r"flow\.json: not readable as JSON"),
    "class": (
        lambda d: (d / "flow.json").write_text('{"name": "Magic", "args": {}}'),
        "class 'Magic' is not supported",
    ),
    "no args": (lambda d: (d / "flow.json").write_text('{"name": "SLatFlowModel"}'), "'args' must be"),
    "other role": (lambda d: (d / "flow.json").write_text('{"name": "SLatEncoder", "args": {}}'), "cannot be the"),
    "arguments": (
        lambda d: (d / "flow.json").write_text('{"name": "SparseStructureFlowModel", "args": {"magic": 1}}'),
        "no SparseStructureFlowModel can be made as described .*magic",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_a_network(tiny, fault, gena3d):
    make, words = FAULTS[fault]
    make(tiny / "ckpts")
    with pytest.raises(DataFormatError, match=words) as caught:
        open_checkpoint(tiny)
    assert str(tiny / "ckpts/flow") in str(caught.value)
    done = gena3d("info", tiny)
    assert done.code == (0 if fault == "nan" else 1), "info reads no values"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not readable as JSON"),
        ("{}", "'args' must be"),
        ('{"args": {}}', "'models' must be"),
        ('{"args": {"models": {}}}', "names no network"),
        ('{"args": {"models": {"magic": "ckpts/flow"}}}', "'magic' is no role"),
        ('{"args": {"models": {"slat_flow_model": 3}}}', "must be the path"),
        (
            '{"args": {"models": {"sparse_structure_flow": "ckpts/flow", "sparse_structure_flow_model": "x"}}}',
            "two networks for the role 'sparse_structure_flow'",
        ),
        (
            '{"args": {"models": {"slat_flow_model": "a", "slat_flow_model": "b"}}}',
            "'slat_flow_model' stands there twice",
        ),
        ('{"args": {"models": {"sparse_structure_flow_model": "ckpts/flow"}, "slat_sampler": 3}}', "a sampler must"),
        ('{"args": {"models": {"sparse_structure_flow_model": "ckpts/flow"}, "slat_normalization": {}}}', ""),
    ],
)
def test_faults_of_a_pipeline(tiny, content, words):
    (tiny / "pipeline.json").write_text(content)
    if not words:
        assert open_checkpoint(tiny).slat_mean is None
        return
    with pytest.raises(DataFormatError, match=words) as caught:
        open_checkpoint(tiny)
    assert str(tiny / "pipeline.json") in str(caught.value)


def test_one_network_and_a_folder_of_networks(tiny, tiny_network):
    for path in (tiny / "ckpts/flow.safetensors", tiny / "ckpts"):
        assert set(open_checkpoint(path).modules) == {"sparse_structure_flow"}
    tiny_network(tiny / "ckpts/other", seed=1)
    with pytest.raises(DataFormatError, match="two networks for the role 'sparse_structure_flow'"):
        open_checkpoint(tiny / "ckpts")


def test_a_file_that_does_not_say_what_it_is(tiny):
    (tiny / "ckpts/flow.json").unlink()
    with pytest.raises(DataFormatError, match=r"which network is this\? Put flow\.json beside it"):
        open_checkpoint(tiny / "ckpts/flow.safetensors")


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_pickles_of_tensors(tiny, wrapper, suffix):
    safe = tiny / "ckpts/flow.safetensors"
    weights = load_file(safe)
    torch.save(weights if wrapper is None else {wrapper: weights, "step": 3}, safe.with_suffix(suffix))
    wanted = open_checkpoint(tiny).modules["sparse_structure_flow"].state_dict()
    safe.unlink()
    for path in (tiny, safe.with_suffix(suffix)):
        found = open_checkpoint(path).modules["sparse_structure_flow"].state_dict()
        assert all(torch.equal(found[key], tensor) for key, tensor in wanted.items())


class Payload:
    """What unpickling must never run."""

    def __reduce__(self):
        return (open, ("ran.txt", "w"))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_with_code_are_refused_and_do_not_run(tiny, zipped, tmp_path):
    (tiny / "ckpts/flow.safetensors").unlink()
    torch.save({"x": Payload()}, tiny / "ckpts/flow.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataFormatError, match=r"flow\.pt: holds more than tensors, so reading it could run code"):
        open_checkpoint(tiny)
    assert not (tmp_path / "nowhere/ran.txt").exists()


def test_damaged_pickles(tiny):
    safe, file = tiny / "ckpts/flow.safetensors", tiny / "ckpts/flow.pt"
    torch.save(load_file(safe), file)
    safe.unlink()
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataFormatError, match=r"flow\.pt"):
        open_checkpoint(tiny)
    file.write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"flow\.pt"):
        open_checkpoint(tiny)
    torch.save([torch.ones(1)], file)
    with pytest.raises(DataFormatError, match="expected a state dict"):
        open_checkpoint(tiny)


def test_hub_repositories_are_looked_up_offline(tiny, fake_hub):
    calls = fake_hub({"microsoft/TRELLIS-image-large": tiny})
    for name in ("trellis-image-large", "microsoft/TRELLIS-image-large", "microsoft/TRELLIS-image-large@abc"):
        assert open_checkpoint(name).source == str(tiny)
    assert all(local for _, _, local, _ in calls)
    assert {revision for _, revision, _, _ in calls} == {None, "abc"}
    with pytest.raises(DataFormatError, match=r"a/b is not in the local hub cache; .*--download, .*hf download a/b"):
        open_checkpoint("a/b")


def test_downloads_are_asked_for(tiny, fake_hub):
    calls = fake_hub({"o/r": tiny})
    open_checkpoint("o/r", allow_download=True)
    assert calls == [("o/r", None, False, ("*.json", "*.safetensors"))]
    with pytest.raises(DataFormatError, match="a/b could not be fetched from the hub: no connection"):
        open_checkpoint("a/b", allow_download=True)


def test_without_the_hub_package_the_pip_line_is_named():
    with pytest.raises(MissingDependencyError, match=r"pip install 'gena3d\[hub\]'"):
        open_checkpoint("a/b")


def test_hub_files_are_checked_by_the_names_of_their_blobs(tiny, tmp_path, fake_hub):
    blobs, weights = tmp_path / "blobs", tiny / "ckpts/flow.safetensors"
    blobs.mkdir()
    content = weights.read_bytes()
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    weights.unlink()
    weights.symlink_to(blob)
    fake_hub({"o/r": tiny})
    open_checkpoint("o/r")
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataFormatError, match="SHA-256"):
        open_checkpoint("o/r")


def test_networks_borrowed_from_another_repository(tiny, tmp_path, fake_hub, pipeline):
    calls = fake_hub({"o/r": tiny})
    borrower = pipeline(tmp_path / "b", models={"sparse_structure_flow_model": "o/r/ckpts/flow"})
    assert set(open_checkpoint(borrower).modules) == {"sparse_structure_flow"}
    assert calls == [("o/r", None, True, ("ckpts/flow.json", "ckpts/flow.safetensors"))]


def test_families_are_found_in_the_usual_places(tiny, tmp_path):
    for place in ("checkpoints", ".cache/gena3d/checkpoints"):
        target = tmp_path / "nowhere" / place / "amodal3r"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(tiny)
        assert open_checkpoint("amodal3r").modules
        target.unlink()
    with pytest.raises(DataFormatError, match=r"'amodal3r' is not in .*licence is unclear"):
        open_checkpoint("amodal3r")


def test_list_names_every_family_and_what_is_here(tiny, tmp_path, gena3d):
    (tmp_path / "nowhere/checkpoints").mkdir()
    (tmp_path / "nowhere/checkpoints/gena3d").symlink_to(tiny)
    done = gena3d("list", "--json", tmp_path / "list.json")
    assert done.code == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "list.json").read_text())["rows"]}
    assert (
        rows.keys()
        == FAMILIES.keys()
        == {"edge", "edge_scene", "trellis-image-large", "amodal3r", "scenegen", "gena3d"}
    )
    assert [name for name, row in rows.items() if row["present"]] == ["gena3d"]
    text = "\n".join(done.out)
    for family in FAMILIES.values():
        assert f"{family.name}: " in text
        assert family.licence in text
