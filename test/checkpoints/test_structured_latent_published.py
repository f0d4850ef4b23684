"""Stage 2 as published: parameter names of the official sizes, numerical cases, options that cannot be had."""

from pathlib import Path

import pytest
import torch

from gena3d_core.checkpoints.key_maps import MESH_DECODER, VOXEL_TRANSFORMER, rename_key
from gena3d_core.checkpoints.published import build_published
from gena3d_core.checkpoints.verification import verify_case, verify_keys
from gena3d_core.errors import InputError

SHARED = Path(__file__).resolve().parents[3] / "shared"
KEYS = (
    "trellis_slat_flow_img_dit_L_64l8p2_fp16",
    "amodal3r_slat_flow",
    "trellis_slat_enc_swin8_B_64l8_fp16",
    "trellis_slat_dec_mesh_swin8_B_64l8_fp16",
    "trellis_slat_dec_gs_swin8_B_64l8gs32_fp16",
    "trellis_slat_dec_rf_swin8_B_64l8_fp16",
)
CASES = (
    "e_slat_flow",
    "e_slat_encoder",
    "e_slat_mesh_decoder",
    "e_slat_gs_decoder",
    "e_slat_rf_decoder",
    "d_amodal_slat_flow",
)
FLOW = {
    "resolution": 64,
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 64,
    "cond_channels": 48,
    "num_blocks": 1,
    "num_heads": 4,
    "io_block_channels": [32],
}
VAE = {"resolution": 16, "model_channels": 32, "latent_channels": 8, "num_blocks": 1, "num_heads": 4}


def shared_file(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


@pytest.mark.parametrize("name", KEYS)
def test_every_parameter_of_the_official_size_has_its_place(name):
    report = verify_keys(shared_file("keys", f"{name}.json"))
    assert report.outcome == "ok", report.reason
    assert report.tensors > 90


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_the_reference(name):
    report = verify_case(shared_file("golden", name))
    assert report.outcome == "ok", report.reason or report.differences
    assert not report.skipped
    assert report.max_abs < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_every_activation_on_the_way_is_compared(name):
    from gena3d_core.checkpoints.golden import read_case

    folder = shared_file("golden", name)
    assert set(verify_case(folder).differences) == set(read_case(folder).expected)


def test_published_names_become_ours():
    assert (
        rename_key("blocks.3.attn.to_qkv.weight", VOXEL_TRANSFORMER) == "network.blocks.3.operations.attn.to_qkv.weight"
    )
    assert rename_key("out_layer.bias", VOXEL_TRANSFORMER) == "network.out_layer.bias"
    assert rename_key("out_layer.bias", MESH_DECODER) == "out_layer.bias"
    assert rename_key("upsample.1.out_layers.3.conv.weight", MESH_DECODER) == "upsample.1.conv2.conv.weight"
    assert rename_key("upsample.0.act_layers.0.bias", MESH_DECODER) == "upsample.0.norm1.bias"


@pytest.mark.parametrize("name", ["SLatFlowModel", "ElasticSLatFlowModel", "SLatFlowModelMaskAsCondWeighted"])
def test_half_precision_concerns_the_blocks_only(name):
    with torch.device("meta"):
        module, _ = build_published(name, {**FLOW, "use_fp16": True, "use_checkpoint": True})
    half = {key for key, tensor in module.state_dict().items() if tensor.dtype == torch.float16}
    assert "input_blocks.0.conv1.conv.weight" in half
    assert "blocks.0.operations.self_attn.to_qkv.weight" in half
    assert not any(key.startswith(("input_layer", "out_layer", "t_embedder")) or ".norm" in key for key in half)


def test_without_levels_patch_size_says_nothing():
    module, _ = build_published("SLatFlowModel", {**FLOW, "io_block_channels": None, "patch_size": 2})
    assert module.input_layer.out_features == 64
    assert len(module.input_blocks) == 0


@pytest.mark.parametrize(
    ("name", "constructor", "match"),
    [
        ("SLatFlowModel", {**FLOW, "pe_mode": "rope"}, "pe_mode"),
        ("SLatFlowModel", {**FLOW, "patch_size": 4}, "patch_size 4"),
        ("SLatEncoder", {**VAE, "in_channels": 8, "attn_mode": "shift_order"}, "attn_mode"),
        ("SLatEncoder", {**VAE, "in_channels": 8, "depth": 3}, "depth"),
        ("SLatGaussianDecoder", {**VAE, "representation_config": {"gaussians": 3}}, "gaussians"),
        ("SLatRadianceFieldDecoder", {**VAE, "representation_config": {"rank": 3}}, "dim"),
    ],
)
def test_options_that_cannot_be_had_are_named(name, constructor, match):
    with pytest.raises(InputError, match=match):
        build_published(name, constructor)


def test_gaussian_options_reach_the_decoder():
    representation = {
        "lr": {"_xyz": 1.0, "_rotation": 0.1},
        "num_gaussians": 3,
        "voxel_size": 2.0,
        "3d_filter_kernel_size": 0.01,
        "scaling_activation": "exp",
    }
    module, _ = build_published("SLatGaussianDecoder", {**VAE, "representation_config": representation})
    assert module.gaussians.lr == {"xyz": 1.0, "rotation": 0.1}
    assert module.gaussians.voxel_size == 2.0
    assert module.gaussians.activation.scaling_activation == "exp"
    assert module.gaussians.activation.kernel_3d == 0.01
    assert module.network.out_layer.out_features == 42
