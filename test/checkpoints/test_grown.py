"""Checkpoints that hold only what they add to another: the same networks come out; another base is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gena3d_core.checkpoints import registry
from gena3d_core.checkpoints.inspection import module_facts
from gena3d_core.checkpoints.locate import describe
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.presets import random_bundle
from gena3d_core.checkpoints.save import save_bundle
from gena3d_core.errors import DataFormatError
from gena3d_core.models.scene_upgrade import SCENE_PARTS, add_scene

FLOW = "sparse_structure_flow"


@pytest.fixture
def folders(tmp_path):
    """A base in bfloat16, and a scene model grown from it in float32 whose scene parts have changed."""
    save_bundle(random_bundle("tiny", seed=1, dtype=torch.bfloat16), tmp_path / "base")
    base = open_checkpoint(tmp_path / "base", dtype=torch.float32)
    torch.manual_seed(0)
    flow = add_scene(base.modules[FLOW], asset_tokens=17)
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if any(part in name for part in SCENE_PARTS):
                parameter.add_(0.1)
    scene = replace(base, family="scenegen", modules={**base.modules, FLOW: flow})
    save_bundle(scene, tmp_path / "scene", base=tmp_path / "base")
    return tmp_path, scene


def size(folder):
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def test_what_is_shared_is_stored_once_and_comes_out_the_same(folders):
    folder, scene = folders
    opened = open_checkpoint(folder / "scene", dtype=torch.float32)
    assert opened.modules.keys() == scene.modules.keys()
    for role, module in scene.modules.items():
        found = opened.modules[role].state_dict()
        for name, tensor in module.state_dict().items():
            assert torch.equal(found[name], tensor), (role, name)
    content = json.loads((folder / "scene" / "config.json").read_text())
    assert content["base"] == "base"
    assert [role for role, module in content["modules"].items() if module["files"]] == [FLOW]
    own = describe(folder / "scene").modules[FLOW]
    assert sum(facts.size for facts in module_facts(own).files[:1]) == size(folder / "scene")
    assert module_facts(own).fault == ""
    assert module_facts(own).parameters == sum(p.numel() for p in scene.modules[FLOW].parameters())


def test_networks_without_weights_of_their_own_keep_the_precision_of_the_base(folders):
    folder, _ = folders
    for role in ("image_encoder", "sparse_structure_decoder"):
        shared, base = (open_checkpoint(folder / name, roles=[role]).modules[role] for name in ("scene", "base"))
        for (name, one), other in zip(shared.state_dict().items(), base.state_dict().values(), strict=True):
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name


def test_the_base_is_found_where_families_are(folders, tmp_path, monkeypatch):
    folder, scene = folders
    apart = tmp_path / "elsewhere" / "scene"
    apart.parent.mkdir()
    (folder / "scene").rename(apart)
    with pytest.raises(DataFormatError, match="the checkpoint 'base', whose weights it shares, is not in"):
        open_checkpoint(apart)
    monkeypatch.setattr(registry, "PACKAGED", folder)
    found = open_checkpoint(apart, dtype=torch.float32).modules[FLOW].state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in scene.modules[FLOW].state_dict().items())


def test_another_base_is_refused(folders):
    folder, _ = folders
    save_bundle(random_bundle("tiny", seed=2, dtype=torch.bfloat16), folder / "base")
    with pytest.raises(DataFormatError, match=r"was made from other weights of .* do not belong together"):
        open_checkpoint(folder / "scene")


def test_a_base_whose_files_are_damaged_is_refused(folders):
    folder, _ = folders
    file = folder / "base" / "sparse_structure_flow.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(DataFormatError, match="SHA-256"):
        open_checkpoint(folder / "scene", roles=[FLOW])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(base=None), "names no base"),
        (lambda c: c.update(base="../base"), "must be the name of a checkpoint"),
        (lambda c: c["modules"][FLOW]["base"].update(role="mesh_decoder"), "has no mesh_decoder"),
        (lambda c: c["modules"][FLOW]["base"].update(role="image_encoder", sha256=None), "must be of type list"),
    ],
)
def test_bad_references_are_named(folders, change, message):
    folder, _ = folders
    file = folder / "scene" / "config.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match=message):
        open_checkpoint(folder / "scene")


def test_a_base_of_a_base_is_refused(folders):
    folder, scene = folders
    save_bundle(scene, folder / "second", base=folder / "base")
    file = folder / "second" / "config.json"
    file.write_text(file.read_text().replace('"base": "base"', '"base": "scene"'))
    with pytest.raises(DataFormatError, match="needs a base itself"):
        open_checkpoint(folder / "second")


def test_a_kind_that_shares_nothing_is_refused(folders):
    folder, _ = folders
    file = folder / "scene" / "config.json"
    content = json.loads(file.read_text())
    hashes = content["modules"]["image_encoder"]["base"]["sha256"]
    content["modules"][FLOW]["base"] = {"role": "image_encoder", "sha256": hashes}
    file.write_text(json.dumps(content))
    with pytest.raises(DataFormatError, match="SceneFlow shares no weights with a SmallEncoder"):
        open_checkpoint(folder / "scene")
    # Nor does saving take a network of another kind for one that was grown.
    other = random_bundle("tiny", seed=5)
    save_bundle(other, folder / "other", base=folder / "base")
    stored = json.loads((folder / "other" / "config.json").read_text())["modules"]
    assert all(module["files"] for module in stored.values())
