"""π³ and VGGT's aggregator: published arguments, names, files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gena3d_core.checkpoints.locate import describe
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.checkpoints.own_models import build_own, own_config
from gena3d_core.checkpoints.published import build_published, load_published
from gena3d_core.checkpoints.published.geometry import load_aggregator
from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.models.geometry.pi3 import Pi3
from gena3d_core.models.geometry.vggt import PatchConvolution

PI3: dict[str, Any] = {
    "encoder": {"img_size": 28, "embed_dim": 24, "depth": 1, "num_heads": 2},
    "dec_depth": 2,
    "dec_heads": 2,
    "head_dim": 16,
    "head_heads": 2,
    "head_depth": 1,
    "cam_dim": 8,
}
AGGREGATOR: dict[str, Any] = {
    "img_size": 28,
    "embed_dim": 24,
    "depth": 1,
    "num_heads": 2,
    "num_register_tokens": 3,
    "patch_embed": "conv",
}


@pytest.mark.parametrize(
    ("name", "constructor", "changes", "message"),
    [
        ("Pi3", PI3, {"pos_type": "sine"}, "pos_type"),
        ("Pi3", PI3, {"decoder_size": "small"}, "decoder_size"),
        ("Pi3", PI3, {"magic": 1}, "magic"),
        ("Aggregator", AGGREGATOR, {"patch_embed": "magic"}, "patch_embed"),
        ("Aggregator", AGGREGATOR, {"qk_norm": False}, "qk_norm"),
        ("Aggregator", AGGREGATOR, {"aa_order": ["global", "frame"]}, "aa_order"),
        ("Aggregator", AGGREGATOR, {"patch_embed": "dinov2_vits14_reg"}, "encoder's width"),
    ],
)
def test_options_that_no_checkpoint_has_are_refused(name, constructor, changes, message):
    build_published(name, constructor)
    with pytest.raises(InputError, match=message):
        build_published(name, constructor | changes)


def test_sizes_are_those_of_the_arguments():
    pi3, _ = build_published("Pi3", PI3 | {"pos_type": "rope7.5"})
    assert isinstance(pi3, Pi3)
    assert (pi3.config.rotation_base, len(pi3.blocks), pi3.encoder.mask_token) == (7.5, 2, None)
    plain, _ = build_published("VGGT Aggregator", AGGREGATOR | {"rope_freq": 50})
    assert isinstance(plain.encoder, PatchConvolution)
    assert (plain.config.rotation_base, plain.special_tokens) == (50, 4)
    with torch.device("meta"):
        small, _ = build_published("Aggregator", {"embed_dim": 384, "num_heads": 6, "patch_embed": "dinov2_vits14_reg"})
    assert (small.encoder.config.depth, small.encoder.config.num_heads, small.config.depth) == (12, 6, 24)


def test_a_whole_vggt_gives_its_aggregator(golden_dir):
    weights = load_file(golden_dir / "g_vggt_aggregator/weights.safetensors")
    whole = {f"aggregator.{key}": tensor for key, tensor in weights.items()} | {"camera_head.x.weight": torch.ones(3)}
    constructor = json.loads((golden_dir / "g_vggt_aggregator/case.json").read_text())["constructor"]
    wanted = load_published("Aggregator", constructor, weights, "case").state_dict()
    for given in (weights, whole):
        found = load_aggregator(given, "file").state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    with pytest.raises(DataFormatError, match="camera_token"):
        load_aggregator({"x": torch.ones(1)}, "file")


def test_sizes_of_an_aggregator_with_dinov2_are_read_off_its_weights(golden_dir):
    own = load_file(golden_dir / "g_vggt_aggregator/weights.safetensors")
    weights = {key: tensor for key, tensor in own.items() if not key.startswith("patch_embed.")}
    dino = load_file(golden_dir / "h_dinov2/weights.safetensors")
    weights |= {f"aggregator.patch_embed.{key}": tensor for key, tensor in dino.items()}
    weights = {f"aggregator.{key.removeprefix('aggregator.')}": tensor for key, tensor in weights.items()}
    # Heads are 64 wide in every DINOv2 that there is, and this one is 48 wide as a whole.
    config = load_aggregator(weights, "file").config
    assert config.encoder is not None
    assert (config.encoder.depth, config.encoder.num_register_tokens, config.heads) == (2, 4, 4)


def test_files_with_a_description_are_opened(golden_dir, tmp_path):
    for case, name in (("h_pi3", "Pi3"), ("g_vggt_aggregator", "Aggregator")):
        constructor = json.loads((golden_dir / case / "case.json").read_text())["constructor"]
        file = tmp_path / f"{name}.safetensors"
        save_file(load_file(golden_dir / case / "weights.safetensors"), file)
        file.with_suffix(".json").write_text(json.dumps({"name": name, "args": constructor}))
        bundle = open_checkpoint(file, dtype=torch.float32)
        assert (bundle.family, list(bundle.modules)) == ("scene geometry", ["scene_geometry"])


def test_files_without_a_description_are_recognised(golden_dir, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(load_file(golden_dir / "g_vggt_aggregator/weights.safetensors"), file)
    assert describe(file).modules["scene_geometry"].class_name == "Aggregator"
    assert open_checkpoint(file).modules["scene_geometry"].config.depth == 2
    save_file(load_file(golden_dir / "h_pi3/weights.safetensors"), file)
    assert describe(file).modules["scene_geometry"].class_name == "Pi3"


def test_a_part_of_another_network_is_not_opened_alone(tmp_path):
    file = tmp_path / "head.safetensors"
    save_file({"x": torch.ones(1)}, file)
    file.with_suffix(".json").write_text(json.dumps({"name": "PositionHead", "args": {}}))
    with pytest.raises(DataFormatError, match="opened alone"):
        describe(file)


@pytest.mark.parametrize(("name", "constructor"), [("Pi3", PI3), ("Aggregator", AGGREGATOR)])
def test_our_own_description_builds_the_same(name, constructor):
    module, _ = build_published(name, constructor)
    own_name, config = own_config(module)
    again = build_own(own_name, json.loads(json.dumps(config)))
    shapes = [{key: tensor.shape for key, tensor in m.state_dict().items()} for m in (module, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("stem", ["pi3", "vggt_aggregator"])
def test_published_dtypes(keys_dir: Path, stem: str) -> None:
    published = json.loads((keys_dir / f"{stem}.json").read_text())
    assert {dtype for _, dtype in published["tensors"].values()} == {"float32"}
    with torch.device("meta"):
        module, _ = build_published(published["class"], {})
    assert {tensor.dtype for tensor in module.state_dict().values()} == {torch.float32}
    assert len(module.state_dict()) == published["n_tensors"]
