"""Whole published checkpoints, made of the numerical cases: every family, and the image encoders."""

import json

import pytest
import torch
from safetensors.torch import save_file

from gena3d_core.checkpoints.golden import read_case
from gena3d_core.checkpoints.open import open_checkpoint
from gena3d_core.errors import DataFormatError, Gena3DError, InputError
from gena3d_core.models.conditioning import single_views

pytestmark = pytest.mark.usefixtures("nowhere")


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
def test_published_pipelines_open_whole(golden_dir, tmp_path, family, gena3d, pipeline):
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


def test_dinov2_of_the_torch_hub(golden_dir, tmp_path):
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


def test_dinov2_of_the_torch_hub_is_found_by_the_name_in_the_pipeline(golden_dir, tiny, tmp_path, pipeline):
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


def test_dinov2_of_transformers_is_the_one_of_the_torch_hub(golden_dir, tiny, tmp_path, gena3d, fake_hub, pipeline):
    case = read_case(golden_dir / "h_dinov2")
    folder = transformers_folder(case.weights, tmp_path / "dino")
    fake_hub({"facebook/dinov2-with-registers-large": folder})
    pipeline(tiny, image_cond_model="dinov2_vitl14_reg")
    encoder = open_checkpoint(tiny).modules["image_encoder"]
    with torch.no_grad():
        features = encoder(case.inputs["image0"])
    torch.testing.assert_close(features.prenorm, case.expected["out.x_prenorm0"], atol=1e-4, rtol=1e-4)
    assert gena3d("info", folder).code == 0
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataFormatError, match=r"no model\.safetensors"):
        open_checkpoint(folder)
