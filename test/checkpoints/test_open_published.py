"""Published checkpoints: pipelines, single networks, DINOv2 files, pickles, the hub; and their faults."""

import hashlib
import json
import sys
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints.bundle import SamplerDefaults
from gena3d_core.checkpoints.golden import read_case
from gena3d_core.checkpoints.locate import describe
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.registry import FAMILIES
from gena3d_core.errors import DataFormatError, Gena3DError, InputError, MissingDependencyError
from gena3d_core.models.conditioning import single_views

SAMPLER = {
    "name": "FlowEulerGuidanceIntervalSampler",
    "args": {"sigma_min": 1e-5},
    "params": {"steps": 25, "cfg_strength": 5.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
}


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No checkpoint of this machine is found, and no hub is asked."""
    empty = tmp_path / "nowhere"
    empty.mkdir()
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.setenv("TORCH_HOME", str(empty))
    monkeypatch.chdir(empty)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.setattr("gena3d_core.checkpoints.registry.PACKAGED", empty)


def pipeline(folder, **changes):
    """Writes pipeline.json and gives the folder."""
    args = {"models": {"sparse_structure_flow_model": "ckpts/flow"}, "sparse_structure_sampler": SAMPLER} | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pipeline.json").write_text(json.dumps({"name": "TrellisImageTo3DPipeline", "args": args}))
    return folder


@pytest.fixture
def tiny(tmp_path, tiny_network):
    """A pipeline of one tiny network."""
    tiny_network(tmp_path / "tiny/ckpts/flow")
    return pipeline(tmp_path / "tiny")


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
def test_samplers_without_interval_guide_all_along_or_never(tiny, sampler, wanted):
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


def fake_hub(monkeypatch, folders):
    """A huggingface_hub whose cache has `folders` (repository -> folder); a download adds nothing. Gives its calls."""
    calls = []

    def snapshot_download(repo_id, *, revision=None, local_files_only=False, allow_patterns=None):
        calls.append((repo_id, revision, local_files_only, tuple(allow_patterns)))
        if repo_id not in folders:
            raise FileNotFoundError("LocalEntryNotFound" if local_files_only else "no connection")
        return str(folders[repo_id])

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_hub_repositories_are_looked_up_offline(tiny, monkeypatch):
    calls = fake_hub(monkeypatch, {"microsoft/TRELLIS-image-large": tiny})
    for name in ("trellis-image-large", "microsoft/TRELLIS-image-large", "microsoft/TRELLIS-image-large@abc"):
        assert open_checkpoint(name).source == str(tiny)
    assert all(local for _, _, local, _ in calls)
    assert {revision for _, revision, _, _ in calls} == {None, "abc"}
    with pytest.raises(DataFormatError, match=r"a/b is not in the local hub cache; .*--download, .*hf download a/b"):
        open_checkpoint("a/b")


def test_downloads_are_asked_for(tiny, monkeypatch):
    calls = fake_hub(monkeypatch, {"o/r": tiny})
    open_checkpoint("o/r", allow_download=True)
    assert calls == [("o/r", None, False, ("*.json", "*.safetensors"))]
    with pytest.raises(DataFormatError, match="a/b could not be fetched from the hub: no connection"):
        open_checkpoint("a/b", allow_download=True)


def test_without_the_hub_package_the_pip_line_is_named():
    with pytest.raises(MissingDependencyError, match=r"pip install 'gena3d\[hub\]'"):
        open_checkpoint("a/b")


def test_hub_files_are_checked_by_the_names_of_their_blobs(tiny, tmp_path, monkeypatch):
    blobs, weights = tmp_path / "blobs", tiny / "ckpts/flow.safetensors"
    blobs.mkdir()
    content = weights.read_bytes()
    blob = blobs / hashlib.sha256(content).hexdigest()
    blob.write_bytes(content)
    weights.unlink()
    weights.symlink_to(blob)
    fake_hub(monkeypatch, {"o/r": tiny})
    open_checkpoint("o/r")
    blob.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DataFormatError, match="SHA-256"):
        open_checkpoint("o/r")


def test_networks_borrowed_from_another_repository(tiny, tmp_path, monkeypatch):
    calls = fake_hub(monkeypatch, {"o/r": tiny})
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
    assert rows.keys() == FAMILIES.keys() == {"edge", "trellis-image-large", "amodal3r", "scenegen", "gena3d"}
    assert [name for name, row in rows.items() if row["present"]] == ["gena3d"]
    text = "\n".join(done.out)
    for family in FAMILIES.values():
        assert f"{family.name}: " in text
        assert family.licence in text


CASES = {
    "trellis-image-large": {
        "sparse_structure_flow_model": ("a_ss_flow_res16_p1", "SparseStructureFlowModel"),
        "sparse_structure_decoder": ("b_ss_vae", "SparseStructureDecoder"),
        "slat_flow_model": ("e_slat_flow", "ElasticSLatFlowModel"),
        "slat_decoder_mesh": ("e_slat_mesh_decoder", "SLatMeshDecoder"),
        "slat_decoder_gs": ("e_slat_gs_decoder", "SLatGaussianDecoder"),
        "slat_decoder_rf": ("e_slat_rf_decoder", "SLatRadianceFieldDecoder"),
    },
    "amodal3r": {
        "sparse_structure_flow_model": ("d_amodal_ss_flow", "SparseStructureFlowModelMaskAsCondWeighted"),
        "slat_flow_model": ("d_amodal_slat_flow", "SLatFlowModelMaskAsCondWeighted"),
    },
    "scenegen": {"sparse_structure_flow_model": ("g_scenegen_flow", "SparseStructureFlowModel")},
}


def write_case(case, class_name, path) -> None:
    """The network of a numerical case as it would be published."""
    constructor, weights, part = case.constructor, dict(case.weights), ""
    if class_name in constructor:
        constructor, part = constructor[class_name], class_name.removeprefix("SparseStructure").lower() + "."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(path.name + ".json").write_text(json.dumps({"name": class_name, "args": constructor}))
    kept = {k.removeprefix(part): v.contiguous() for k, v in weights.items() if k.startswith(part)}
    save_file(kept, path.with_name(path.name + ".safetensors"))


@pytest.mark.parametrize("family", CASES)
def test_published_pipelines_open_whole(golden_dir, tmp_path, family, gena3d):
    folder, models = tmp_path / "p", {}
    for name, (case, class_name) in CASES[family].items():
        write_case(read_case(golden_dir / case), class_name, folder / f"ckpts/{name}_fp16")
        models[name] = f"ckpts/{name}_fp16"
    write_case(read_case(golden_dir / "b_ss_vae"), "SparseStructureEncoder", folder / "ckpts/ss_enc_conv3d_16l8_fp16")
    write_case(read_case(golden_dir / "h_dinov2"), "DinoVisionTransformer", tmp_path / "dino/dino")
    normalization = {"mean": [0.5] * 8, "std": [2.0] * 8}
    pipeline(folder, models=models, slat_normalization=normalization, image_cond_model="dinov2_vitl14_reg")
    with pytest.raises(Gena3DError, match="image encoder dinov2_vitl14_reg is not on this machine"):
        open_checkpoint(folder)
    encoder = tmp_path / "dino/dino.safetensors"
    opened = open_checkpoint(folder, image_encoder=encoder)
    assert opened.family == family
    assert len(opened.modules) == len(models) + 2, "and the encoders beside them"
    assert {"image_encoder", "sparse_structure_encoder"} <= opened.modules.keys()
    assert opened.slat_std.tolist() == [2.0] * 8
    done = gena3d("info", folder, "--image-encoder", encoder)
    assert done.code == 0, done.err
    case_name, _ = CASES[family]["sparse_structure_flow_model"]
    if family == "trellis-image-large":
        case, flow = read_case(golden_dir / case_name), opened.modules["sparse_structure_flow"]
        with torch.no_grad():
            contexts = flow.contexts(single_views(case.inputs["cond"]))
            found = flow(case.inputs["x"], case.inputs["t"], contexts)
        torch.testing.assert_close(found, case.expected["out.v"], atol=1e-4, rtol=1e-4)


def test_dinov2_of_the_torch_hub(golden_dir, tmp_path, monkeypatch):
    weights = dict(read_case(golden_dir / "h_dinov2").weights)
    file = tmp_path / "nowhere/hub/checkpoints/dinov2_vitl14_reg4_pretrain.pth"
    file.parent.mkdir(parents=True)
    torch.save(weights, file)
    encoder = open_checkpoint(file).modules["image_encoder"]
    assert (encoder.width, encoder.special_tokens, encoder.image_size) == (48, 5, 70)
    assert encoder.config.depth == 2
    with pytest.raises(InputError, match="mesh_decoder"):
        open_checkpoint(file, roles=["mesh_decoder"])
    del weights["pos_embed"]
    torch.save(weights, file)
    with pytest.raises(DataFormatError, match="which network is this"):
        open_checkpoint(file)


def test_dinov2_of_the_torch_hub_is_found_by_the_name_in_the_pipeline(golden_dir, tiny, tmp_path):
    pipeline(tiny, image_cond_model="dinov2_vitl14_reg")
    file = tmp_path / "nowhere/hub/checkpoints/dinov2_vitl14_reg4_pretrain.pth"
    file.parent.mkdir(parents=True)
    torch.save(dict(read_case(golden_dir / "h_dinov2").weights), file)
    assert set(open_checkpoint(tiny).modules) == {"image_encoder", "sparse_structure_flow"}
    with pytest.raises(DataFormatError, match="holds no image encoder, only sparse_structure_flow"):
        open_checkpoint(tiny, image_encoder=tiny / "ckpts/flow.safetensors")


def transformers_folder(weights, folder):
    """DINOv2 of the torch hub -> folder of the package `transformers`, with apart queries, keys and values."""
    renamed = {
        "cls_token": "embeddings.cls_token",
        "mask_token": "embeddings.mask_token",
        "register_tokens": "embeddings.register_tokens",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm": "layernorm",
    }
    found = {}
    for key, tensor in weights.items():
        if not key.startswith("blocks."):
            stem = key if key in renamed else key.rpartition(".")[0]
            found[renamed[stem] + key[len(stem) :]] = tensor
            continue
        _, index, rest = key.split(".", 2)
        layer = f"encoder.layer.{index}."
        if rest.startswith("attn.qkv."):
            for part, piece in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"{layer}attention.attention.{part}.{rest.rpartition('.')[2]}"] = piece.contiguous()
            continue
        rest = rest.replace("attn.proj.", "attention.output.dense.")
        for i in (1, 2):
            rest = rest.replace(f"ls{i}.gamma", f"layer_scale{i}.lambda1")
        found[layer + rest] = tensor
    config = {"model_type": "dinov2_with_registers", "image_size": 70, "patch_size": 14, "hidden_size": 48}
    config |= {"num_hidden_layers": 2, "num_attention_heads": 4, "mlp_ratio": 4, "num_register_tokens": 4}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(found, folder / "model.safetensors")
    return folder


def test_dinov2_of_transformers_is_the_one_of_the_torch_hub(golden_dir, tiny, tmp_path, monkeypatch, gena3d):
    case = read_case(golden_dir / "h_dinov2")
    folder = transformers_folder(case.weights, tmp_path / "dino")
    fake_hub(monkeypatch, {"facebook/dinov2-with-registers-large": folder})
    pipeline(tiny, image_cond_model="dinov2_vitl14_reg")
    encoder = open_checkpoint(tiny).modules["image_encoder"]
    with torch.no_grad():
        features = encoder(case.inputs["image0"])
    torch.testing.assert_close(features.prenorm, case.expected["out.x_prenorm0"], atol=1e-4, rtol=1e-4)
    assert gena3d("info", folder).code == 0
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataFormatError, match=r"no model\.safetensors"):
        open_checkpoint(folder)
