"""Image encoders: DINOv2's sizes, names and precision; the small trainable one."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gena3d_core.checkpoints.cases.images import dinov2 as run_case
from gena3d_core.checkpoints.golden import compare_case, read_case
from gena3d_core.checkpoints.key_maps import DINOV2, rename, rename_key
from gena3d_core.checkpoints.load import load_state
from gena3d_core.checkpoints.published import build_published
from gena3d_core.checkpoints.published.image_encoders import load_transformers_dinov2, merge_qkv
from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.models.image_encoders.dinov2 import DinoV2, DinoV2Config
from gena3d_core.models.image_encoders.patches import IMAGENET_MEAN, IMAGENET_STD, resized_positions
from gena3d_core.models.image_encoders.small import SmallEncoder, SmallEncoderConfig

TINY = DinoV2Config(img_size=70, embed_dim=48, depth=2, num_heads=4)


def tiny_dino(config: DinoV2Config = TINY) -> DinoV2:
    torch.manual_seed(0)
    model = DinoV2(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def small(config: SmallEncoderConfig | None = None) -> SmallEncoder:
    torch.manual_seed(0)
    model = SmallEncoder(config)
    model.initialise()
    return model.eval()


def block_by_hand(x: Tensor, weights: dict[str, Tensor], heads: int) -> Tensor:
    """A DINOv2 block from its definition, with the published names."""
    width = x.shape[-1]
    h = F.layer_norm(x, (width,), weights["norm1.weight"], weights["norm1.bias"], 1e-6)
    qkv = F.linear(h, weights["attn.qkv.weight"], weights["attn.qkv.bias"])
    q, k, v = qkv.reshape(*x.shape[:2], 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    h = ((q @ k.transpose(-1, -2) / (width // heads) ** 0.5).softmax(-1) @ v).transpose(1, 2).flatten(2)
    x = x + weights["ls1.gamma"] * F.linear(h, weights["attn.proj.weight"], weights["attn.proj.bias"])
    h = F.layer_norm(x, (width,), weights["norm2.weight"], weights["norm2.bias"], 1e-6)
    h = F.linear(h, weights["mlp.fc1.weight"], weights["mlp.fc1.bias"])
    h = h * 0.5 * (1 + torch.erf(h / 2**0.5))
    return x + weights["ls2.gamma"] * F.linear(h, weights["mlp.fc2.weight"], weights["mlp.fc2.bias"])


def published_names(model: DinoV2) -> dict[str, Tensor]:
    """The model's parameters under the names of the torch hub."""
    layers = ("norm1", "norm2", "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    parts = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")] + ["ls1.gamma", "ls2.gamma"]
    names = ["cls_token", "pos_embed", "register_tokens", "mask_token", "norm.weight", "norm.bias"]
    names += ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    names += [f"blocks.{i}.{part}" for i in range(model.config.depth) for part in parts]
    state = model.state_dict()
    return {name: state[rename_key(name, DINOV2)] for name in names}


def test_golden_case(golden_dir: Path) -> None:
    case = read_case(golden_dir / "h_dinov2")
    differences = compare_case(case, run_case(case))
    assert len(differences) == 10
    assert all(difference.ok for difference in differences.values()), differences


def test_every_published_name_and_shape(keys_dir: Path) -> None:
    published = json.loads((keys_dir / "dinov2_vitl14_reg.json").read_text())
    with torch.device("meta"):
        module, key_map = build_published(published["class"], {})
    ours = {key: list(tensor.shape) for key, tensor in module.state_dict().items()}
    theirs = {rename_key(key, key_map): shape for key, (shape, _) in published["tensors"].items()}
    assert len(theirs) == len(published["tensors"])
    assert ours == theirs
    assert sum(p.numel() for p in module.parameters()) == published["n_parameters"]


def test_against_the_definition() -> None:
    model = tiny_dino()
    weights = published_names(model)
    images = torch.randn(2, 3, 70, 70)
    x = F.conv2d(images, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=14)
    x = torch.cat([weights["cls_token"].expand(2, -1, -1), x.flatten(2).transpose(1, 2)], 1) + weights["pos_embed"]
    x = torch.cat([x[:, :1], weights["register_tokens"].expand(2, -1, -1), x[:, 1:]], 1)
    for i in range(2):
        prefix = f"blocks.{i}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        x = block_by_hand(x, own, 4)
    with torch.no_grad():
        found = model(images)
    torch.testing.assert_close(found.prenorm, x, atol=1e-4, rtol=1e-4)
    normed = F.layer_norm(x, (48,), weights["norm.weight"], weights["norm.bias"], 1e-6)
    torch.testing.assert_close(found.class_token, normed[:, 0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.patch_tokens, normed[:, 5:], atol=1e-4, rtol=1e-4)
    assert found.condition_tokens.mean(-1).abs().max() < 1e-5
    assert torch.allclose(found.condition_tokens.var(-1, unbiased=False), torch.ones(2, 30), atol=1e-3)


@pytest.mark.parametrize("size", [(14, 14), (42, 70), (70, 42), (112, 98), (140, 140)])
def test_other_sizes(size: tuple[int, int]) -> None:
    model = tiny_dino()
    height, width = size[0] // 14, size[1] // 14
    with torch.no_grad():
        found = model(torch.randn(1, 3, *size))
    assert found.prenorm.shape == (1, 5 + height * width, 48)
    assert found.patch_tokens.shape == (1, height * width, 48)
    assert model.positions(height, width).shape == (1, 1 + height * width, 48)
    assert torch.equal(model.positions(height, width)[:, 0], model.pos_embed[:, 0])


def test_positions_of_the_own_grid_are_the_table_and_a_ramp_stays_a_ramp() -> None:
    model = tiny_dino()
    assert torch.equal(model.positions(5, 5), model.pos_embed)
    rows = torch.arange(16.0)[:, None].expand(16, 16).reshape(1, 256, 1)
    finer = resized_positions(rows, 32, 16).reshape(32, 16)
    assert torch.allclose(finer, finer[:, :1].expand_as(finer), atol=1e-4)
    # Away from the border a linear function is reproduced at the centres of the finer cells.
    assert torch.allclose(finer[4:-4, 0], (torch.arange(4, 28) + 0.5) / 2 - 0.5, atol=1e-3)


def test_position_offset_keeps_the_token_grid() -> None:
    config = dataclasses.replace(TINY, interpolate_offset=0.1, interpolate_antialias=False)
    model = tiny_dino(config)
    assert model.positions(4, 7).shape == (1, 29, 48)
    assert not torch.allclose(model.positions(4, 7), tiny_dino().positions(4, 7))


def test_encode_normalises_colour_and_ignores_masks() -> None:
    model = tiny_dino()
    crops = torch.rand(2, 5, 70, 70)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = model((crops[:, :3] - mean) / std).condition_tokens
        found = model.encode(crops)
    torch.testing.assert_close(found, expected)
    assert found.shape == (2, 25 + model.special_tokens, model.width)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision(dtype: torch.dtype) -> None:
    images = torch.rand(1, 3, 70, 70)
    with torch.no_grad():
        exact = tiny_dino().encode(images)
        model = tiny_dino()
        model.set_precision(dtype)
        assert model.norm.weight.dtype == torch.float32
        found = model.encode(images)
        whole = tiny_dino().to(dtype).encode(images)
    assert found.dtype == torch.float32
    for tokens in (found, whole.float()):
        assert ((tokens - exact).norm() / exact.norm()) < 0.05


def test_constructor_of_another_member_of_the_family() -> None:
    constructor = {"img_size": 28, "patch_size": 14, "embed_dim": 24, "depth": 1, "num_heads": 2, "block_chunks": 0}
    module, _ = build_published("DinoVisionTransformer", constructor)
    assert isinstance(module, DinoV2)
    # What is left out is the published class's default, not ours.
    assert module.register_tokens is None
    assert not module.blocks[0].gains
    assert module(torch.randn(1, 3, 28, 28)).prenorm.shape == (1, 5, 24)
    with pytest.raises(InputError, match="ffn_layer"):
        build_published("DinoVisionTransformer", {**constructor, "ffn_layer": "identity"})


def test_gated_feed_forward_of_the_giant_model() -> None:
    constructor = {**vars(TINY), "ffn_layer": "swiglufused", "mlp_ratio": 4.0}
    module, key_map = build_published("DinoVisionTransformer", constructor)
    weights = published_names(tiny_dino())
    weights = {key: value for key, value in weights.items() if ".mlp." not in key}
    for i in range(2):
        shapes = {"w12.weight": (256, 48), "w12.bias": (256,), "w3.weight": (48, 128), "w3.bias": (48,)}
        weights |= {f"blocks.{i}.mlp.{name}": 0.2 * torch.randn(shape) for name, shape in shapes.items()}
    load_state(module, weights, key_map, "giant")
    assert isinstance(module, DinoV2)
    x = torch.randn(3, 48)
    h = F.linear(x, weights["blocks.0.mlp.w12.weight"], weights["blocks.0.mlp.w12.bias"])
    h = h[:, :128] * torch.sigmoid(h[:, :128]) * h[:, 128:]
    expected = F.linear(h, weights["blocks.0.mlp.w3.weight"], weights["blocks.0.mlp.w3.bias"])
    torch.testing.assert_close(module.blocks[0].operations["mlp"](x), expected, atol=1e-4, rtol=1e-4)


def test_no_mask_token_and_chunked_names() -> None:
    module, key_map = build_published("DinoVisionTransformer", {**vars(TINY), "mask_token": False})
    weights = published_names(tiny_dino())
    del weights["mask_token"]
    chunked = {key.replace("blocks.", "blocks.0."): value for key, value in weights.items()}
    assert load_state(module, chunked, key_map, "chunked").training is False
    assert rename(chunked, key_map).keys() == module.state_dict().keys()


@pytest.mark.parametrize("version", [4, 5])
def test_weights_in_the_names_of_transformers(version: int) -> None:
    model = tiny_dino()
    config = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 70, "patch_size": 14}
    weights = transformers_names(model, version)
    loaded = load_transformers_dinov2(config, weights, "model.safetensors")
    images = torch.randn(1, 3, 70, 70)
    with torch.no_grad():
        assert torch.equal(loaded(images).norm, model(images).norm)
    half = {key: value for key, value in weights.items() if "layer.1.attention.attention.value" not in key}
    half = {key: value for key, value in half.items() if "layer.1.attention.v_proj" not in key}
    with pytest.raises(DataFormatError, match="missing"):
        load_transformers_dinov2(config, half, "model.safetensors")
    with pytest.raises(InputError, match="use_swiglu_ffn"):
        load_transformers_dinov2({**config, "use_swiglu_ffn": True}, weights, "model.safetensors")


def transformers_names(model: DinoV2, version: int) -> dict[str, Tensor]:
    """The model's parameters under the names of the package `transformers`."""
    trio = ("attention.query", "attention.key", "attention.value") if version == 4 else ("q_proj", "k_proj", "v_proj")
    out = "output.dense" if version == 4 else "o_proj"
    renamed = {"patch_embed.proj": "embeddings.patch_embeddings.projection"}
    renamed |= {"pos_embed": "embeddings.position_embeddings", "norm": "layernorm", "attn.proj": f"attention.{out}"}
    renamed |= {token: f"embeddings.{token}" for token in ("cls_token", "register_tokens", "mask_token")}
    renamed |= {"ls1.gamma": "layer_scale1.lambda1", "ls2.gamma": "layer_scale2.lambda1"}
    weights = {}
    for key, value in published_names(model).items():
        prefix, name = "", key
        if key.startswith("blocks."):
            _, number, name = key.split(".", 2)
            prefix = f"encoder.layer.{number}."
        stem, dot, kind = name.rpartition(".") if name not in renamed else (name, "", "")
        if stem == "attn.qkv":
            chunks = value.chunk(3)
            weights |= {f"{prefix}attention.{part}.{kind}": chunk for part, chunk in zip(trio, chunks, strict=True)}
        else:
            weights[f"{prefix}{renamed.get(stem, stem)}{dot}{kind}"] = value
    return weights


def test_merge_keeps_the_order_and_the_rest() -> None:
    weights = {f"a.{part}.weight": torch.full((2, 3), float(i)) for i, part in enumerate(("value", "query", "key"))}
    merged = merge_qkv({**weights, "b.weight": torch.ones(1)})
    assert merged.keys() == {"a.qkv.weight", "b.weight"}
    assert merged["a.qkv.weight"][:, 0].tolist() == [1, 1, 2, 2, 0, 0]


@pytest.mark.parametrize("shape", [(3, 70, 70), (1, 2, 70, 70), (1, 3, 70, 71), (1, 3, 0, 14)])
def test_images_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="image"):
        tiny_dino().encode(torch.rand(*shape))


def test_small_encoder_has_its_size_and_trains() -> None:
    model = small()
    assert 1.8e6 < sum(p.numel() for p in model.parameters()) < 2.3e6
    tokens = model.encode(torch.rand(3, 5, 112, 112))
    assert tokens.shape == (3, 49, model.width)
    tokens.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


def test_small_encoder_reads_the_mask_and_only_its_channels() -> None:
    crops = torch.rand(2, 5, 112, 112)
    other = crops.clone()
    other[:, 4] = 1 - other[:, 4]
    masked = crops.clone()
    masked[:, 3] = 1 - masked[:, 3]
    with torch.no_grad():
        four, five = small(), small(SmallEncoderConfig(in_channels=5))
        assert torch.equal(four.encode(crops), four.encode(other))
        assert not torch.allclose(four.encode(crops), four.encode(masked), atol=1e-3)
        assert not torch.allclose(five.encode(crops), five.encode(other), atol=1e-3)


def test_small_encoder_does_not_mix_crops_and_takes_other_sizes() -> None:
    model, crops = small(), torch.rand(3, 4, 112, 112)
    with torch.no_grad():
        together = model.encode(crops)
        alone = torch.cat([model.encode(crop[None]) for crop in crops])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        assert model.encode(torch.rand(1, 4, 128, 160)).shape == (1, 80, model.width)
        model.set_precision(torch.bfloat16)
        half = model.encode(crops)
    assert half.dtype == torch.float32
    assert (half - together).norm() / together.norm() < 0.05


def test_small_encoder_refuses_what_it_cannot_be() -> None:
    with pytest.raises(InputError, match="stride"):
        SmallEncoderConfig(image_size=100)
    with pytest.raises(InputError, match="in_channels"):
        SmallEncoderConfig(in_channels=6)
    with pytest.raises(InputError, match="heads"):
        SmallEncoderConfig(heads=5)
