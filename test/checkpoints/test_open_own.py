"""Our own checkpoints: saved and opened again bit for bit, and every fault is one clear error."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints.bundle import ModelBundle, SamplerDefaults
from gena3d_core.checkpoints.locate import describe
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.own_models import OWN_MODELS, build_own, own_class, own_config
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.checkpoints.weight_files import file_sha256
from gena3d_core.errors import DataFormatError, Gena3DError, InputError
from gena3d_core.models.gaussians import GaussianActivation
from gena3d_core.models.image_encoders.small import SmallEncoder, SmallEncoderConfig
from gena3d_core.models.sparse_structure_flow import SparseStructureFlow, SparseStructureFlowConfig
from gena3d_core.models.sparse_structure_vae import SparseStructureDecoder, SparseStructureDecoderConfig
from gena3d_core.models.structured_latent_decoders import (
    GaussianDecoderConfig,
    StructuredLatentGaussianDecoder,
    StructuredLatentMeshDecoder,
    StructuredLatentRadianceFieldDecoder,
)
from gena3d_core.models.structured_latent_vae import StructuredLatentVAEConfig

FLOW = SparseStructureFlowConfig(4, 2, 24, 16, 2, 2, num_heads=2, fusion_norm=True, stereo_attention=True)
VAE = StructuredLatentVAEConfig(8, 256, 4, 1, num_heads=4)
GAUSSIANS = GaussianDecoderConfig(num_gaussians=4, lr={"xyz": 0.5}, activation=GaussianActivation(scaling_bias=0.01))


@pytest.fixture
def bundle() -> ModelBundle:
    torch.manual_seed(0)
    modules = {
        "image_encoder": SmallEncoder(SmallEncoderConfig(image_size=32, stem=(4, 8), width=16, depth=1, heads=2)),
        "sparse_structure_flow": SparseStructureFlow(FLOW),
        "sparse_structure_decoder": SparseStructureDecoder(SparseStructureDecoderConfig(1, 2, 1, (8, 4))),
    }
    return ModelBundle(
        "edge",
        "a test",
        modules,
        frame="observed",
        fusion="view_wise",
        image_size=32,
        samplers={"sparse_structure": SamplerDefaults(7, 1.5, (0.1, 0.9), 2.0, 1e-4)},
        slat_mean=torch.tensor([0.1, -2.0]),
        slat_std=torch.tensor([1 / 3, 4.0]),
        metadata={"licence": "Apache-2.0", "iou": 0.5},
    )


@pytest.fixture
def folder(bundle, tmp_path):
    save_bundle(bundle, tmp_path / "edge", max_file_mb=0.05)
    return tmp_path / "edge"


def assert_same(ours, theirs) -> None:
    first, second = ours.state_dict(), theirs.state_dict()
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        assert tensor.dtype == second[key].dtype, key
        assert torch.equal(tensor, second[key]), key


def test_saved_and_opened_is_the_same(bundle, folder):
    opened = open_checkpoint(folder)
    assert opened.modules.keys() == bundle.modules.keys()
    for role, module in bundle.modules.items():
        assert type(opened.modules[role]) is type(module)
        assert opened.modules[role].config == module.config
        assert not opened.modules[role].training
        assert_same(module, opened.modules[role])
    same = ("family", "frame", "fusion", "image_size", "samplers", "metadata")
    assert all(getattr(opened, name) == getattr(bundle, name) for name in same)
    assert torch.equal(opened.slat_mean, bundle.slat_mean)
    assert torch.equal(opened.slat_std, bundle.slat_std)
    assert opened.source == str(folder)


def test_files_are_split_and_their_hashes_stored(folder):
    config = json.loads((folder / "config.json").read_text())
    stored = [file for module in config["modules"].values() for file in module["files"]]
    assert len(stored) > len(config["modules"])
    assert {file["name"] for file in stored} | {"config.json"} == set(os.listdir(folder))
    assert all(file_sha256(folder / file["name"]) == file["sha256"] for file in stored)
    for file in stored:
        assert len(load_file(folder / file["name"])) == 1 or (folder / file["name"]).stat().st_size < 60_000


def test_half_precision_stays_half_unless_asked(bundle, tmp_path):
    flow = bundle.modules["sparse_structure_flow"]
    flow.set_precision(torch.bfloat16)
    save_bundle(bundle, tmp_path / "half")
    roles = ("sparse_structure_flow",)
    opened = open_checkpoint(tmp_path / "half", roles=roles).modules["sparse_structure_flow"]
    assert_same(flow, opened)
    wide = open_checkpoint(tmp_path / "half", roles=roles, dtype=torch.float32).modules["sparse_structure_flow"]
    assert {p.dtype for p in wide.parameters()} == {torch.float32}
    flow.set_precision(torch.float32)
    assert_same(flow, wide)


@pytest.mark.parametrize(
    "module",
    [
        StructuredLatentMeshDecoder(VAE, use_color=True),
        StructuredLatentGaussianDecoder(VAE, GAUSSIANS),
        StructuredLatentRadianceFieldDecoder(VAE, rank=2, dim=3),
    ],
    ids=lambda module: type(module).__name__,
)
def test_further_constructor_arguments_survive(module):
    again = build_own(*json.loads(json.dumps(own_config(module))))
    assert {k: v.shape for k, v in module.state_dict().items()} == {k: v.shape for k, v in again.state_dict().items()}
    assert own_config(again) == own_config(module)


def test_every_class_of_the_table_exists():
    for name in OWN_MODELS:
        assert own_class(name).__name__ == name


def test_some_roles_only(folder):
    assert set(open_checkpoint(folder, roles=["image_encoder"]).modules) == {"image_encoder"}
    with pytest.raises(InputError, match=r"has no mesh_decoder; it has image_encoder, "):
        open_checkpoint(folder, roles=["mesh_decoder"])


def test_saving_again_replaces_the_old_files(bundle, folder):
    save_bundle(bundle, folder)
    assert len(os.listdir(folder)) == 4
    open_checkpoint(folder)
    assert len(os.listdir(folder.parent)) == 1


def test_what_cannot_be_saved_leaves_no_trace(bundle, tmp_path):
    with pytest.raises(InputError, match="Linear cannot be saved"):
        save_bundle(replace(bundle, modules={"image_encoder": torch.nn.Linear(1, 1)}), tmp_path / "x")
    with torch.no_grad():
        bundle.modules["image_encoder"].pos_embed[0, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"image_encoder: NaN or infinity in pos_embed"):
        save_bundle(bundle, tmp_path / "x")
    with pytest.raises(InputError, match="without networks"):
        save_bundle(replace(bundle, modules={}), tmp_path / "x")
    assert os.listdir(tmp_path) == []


def rewrite(folder, edit) -> None:
    """Edit the first file of the flow and state its new hash: the damage is not one that the hash shows."""
    config = json.loads((folder / "config.json").read_text())
    stored = config["modules"]["sparse_structure_flow"]["files"][0]
    tensors = load_file(folder / stored["name"])
    edit(tensors)
    save_file(tensors, folder / stored["name"])
    stored["sha256"] = file_sha256(folder / stored["name"])
    (folder / "config.json").write_text(json.dumps(config))


def first_key(tensors) -> str:
    return sorted(tensors)[0]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.update({first_key(t): torch.ones(2, 3, 5)}), "wrong shape: .* instead of"),
        (lambda t: t.pop(first_key(t)), "missing "),
        (lambda t: t.update(more=torch.ones(1)), "not expected more"),
        (lambda t: t[first_key(t)].fill_(float("nan")), "NaN or infinity in "),
        (lambda t: t.update({"out_layer.weight": torch.ones(2, 24)}), "'out_layer.weight' is also in another file"),
    ],
)
def test_wrong_tensors(folder, edit, words):
    rewrite(folder, edit)
    with pytest.raises(DataFormatError, match=words) as caught:
        open_checkpoint(folder)
    assert "sparse_structure_flow" in str(caught.value)


def test_damaged_files(folder):
    file = sorted(folder.glob("sparse_structure_flow*"))[0]
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataFormatError, match=f"{file.name}: SHA-256 is .* instead of .* fetch it again"):
        open_checkpoint(folder)
    file.unlink()
    with pytest.raises(DataFormatError, match=f"{file.name}: cannot be read"):
        open_checkpoint(folder)
    file.write_bytes(whole[:1000])
    config = json.loads((folder / "config.json").read_text())
    for stored in config["modules"]["sparse_structure_flow"]["files"]:
        stored["sha256"] = file_sha256(folder / stored["name"])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataFormatError, match=f"{file.name}: not a whole safetensors file"):
        open_checkpoint(folder)


def flow_of(config):
    return config["modules"]["sparse_structure_flow"]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda c: c.update(schema=2), "schema 2 is unknown"),
        (lambda c: c.update(frame="sideways"), "'frame' must be one of canonical, observed"),
        (lambda c: c.update(fusion=None), "'fusion' must be one of"),
        (lambda c: c.pop("family"), "'family' must be"),
        (lambda c: c.update(image_size="big"), "'image_size' must be"),
        (lambda c: c.update(modules={}), "names no network"),
        (lambda c: c["modules"].update(image_encoder=3), "'image_encoder' must be an object"),
        (lambda c: flow_of(c).update({"class": "Magic"}), "class 'Magic' of 'sparse_structure_flow' is unknown"),
        (lambda c: flow_of(c)["config"].update(magic=1), "knows no magic"),
        (lambda c: flow_of(c)["config"].pop("resolution"), "needs resolution"),
        (lambda c: flow_of(c)["config"].update(model_channels="wide"), "can be made as described"),
        (lambda c: flow_of(c)["config"].update(model_channels=-24), "can be made as described"),
        (lambda c: flow_of(c).update(files=[]), "has no files"),
        (lambda c: flow_of(c)["files"][0].update(name="../x.safetensors"), "no name of a .safetensors file"),
        (lambda c: flow_of(c)["files"][0].pop("sha256"), "'sha256' must be"),
        (lambda c: c["samplers"]["sparse_structure"].update(magic=1), "a sampler has no 'magic'"),
        (lambda c: c["samplers"]["sparse_structure"].update(steps="many"), "a sampler's values"),
        (lambda c: c["slat_normalization"].update(mean="x"), "'mean' must be a list of numbers"),
    ],
)
def test_wrong_configs(folder, edit, words):
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataFormatError, match=words) as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)


def test_a_role_that_stands_twice(folder):
    text = (folder / "config.json").read_text()
    config = json.loads(text)
    twice = json.dumps({"image_encoder": config["modules"]["image_encoder"]})[1:-1]
    (folder / "config.json").write_text(text.replace('"modules": {', '"modules": {' + twice + ",", 1))
    with pytest.raises(DataFormatError, match=r"config\.json: 'image_encoder' stands there twice"):
        open_checkpoint(folder)


def test_bad_json(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(DataFormatError, match=r"config\.json: not readable as JSON"):
        open_checkpoint(folder)


def test_nothing_there(tmp_path):
    with pytest.raises(DataFormatError, match="holds no checkpoint"):
        open_checkpoint(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataFormatError, match="expected a folder"):
        open_checkpoint(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="'magic' is neither"):
        open_checkpoint("magic")


def test_an_encoder_that_everybody_has_is_named_only(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    save_bundle(bundle, tmp_path / "big", image_encoder="dinov2_vitl14_reg")
    found = describe(tmp_path / "big")
    assert found.image_encoder == "dinov2_vitl14_reg"
    assert set(found.modules) == {"sparse_structure_flow", "sparse_structure_decoder"}
    with pytest.raises(Gena3DError, match=r"dinov2_vitl14_reg is not on this machine: put .*pretrain\.pth"):
        open_checkpoint(tmp_path / "big")
    assert set(open_checkpoint(tmp_path / "big", roles=set(found.modules)).modules) == set(found.modules)
    save_bundle(replace(bundle, modules={"image_encoder": bundle.modules["image_encoder"]}), tmp_path / "encoder")
    with_encoder = open_checkpoint(tmp_path / "big", image_encoder=tmp_path / "encoder")
    assert_same(bundle.modules["image_encoder"], with_encoder.modules["image_encoder"])


def test_info_shows_it_and_exits_1_where_it_could_not_be_opened(folder, gena3d, tmp_path):
    done = gena3d("info", folder, "--json", tmp_path / "info.json")
    assert done.code == 0
    text = "\n".join(done.out)
    for words in ("family", "observed", "7 steps, guidance 1.5", "SparseStructureFlow", "(as stated)", "Apache-2.0"):
        assert words in text
    content = json.loads((tmp_path / "info.json").read_text())
    flow = next(module for module in content["modules"] if module["role"] == "sparse_structure_flow")
    assert flow["parameters"] == sum(p.numel() for p in SparseStructureFlow(FLOW).parameters())
    rewrite(folder, lambda t: t.update(more=torch.ones(1)))
    broken = gena3d("info", folder)
    assert broken.code == 1
    assert any("FAULT" in line and "not expected more" in line for line in broken.out)
    assert "not expected more" in broken.err
