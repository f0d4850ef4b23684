"""Inpainting networks of some 100 thousand random weights, made from configs and saved to a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SIDE = 64


def text_encoder(folder: Path) -> tuple[Any, Any]:
    """A tiny CLIP text encoder and its tokenizer of letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    special = ["<|startoftext|>", "<|endoftext|>"]
    entries = [*letters, *(letter + "</w>" for letter in letters), ",</w>", *special]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({entry: number for number, entry in enumerate(entries)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(entries), hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=77, bos_token_id=entries.index(special[0]), eos_token_id=entries.index(special[1]),
        pad_token_id=entries.index(special[1]), projection_dim=32,
    )  # fmt: skip
    return CLIPTextModel(config), tokenizer


def autoencoder() -> Any:
    """A tiny autoencoder of pictures, half their size."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, block_out_channels=(16, 16), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4,
        sample_size=SIDE,
    )  # fmt: skip


def denoiser(in_channels: int = 9, context: int = 32, side: int = SIDE // 2) -> Any:
    """A tiny denoising network."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=side, in_channels=in_channels, out_channels=4, block_out_channels=(16, 32), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=context, attention_head_dim=4, norm_num_groups=8,
    )  # fmt: skip


def save_inpainting(folder: Path, seed: int = 0, in_channels: int = 9) -> Path:
    """The pipeline with random weights, as diffusers saves it."""
    import torch
    from diffusers import PNDMScheduler, StableDiffusionInpaintPipeline

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text, tokenizer = text_encoder(folder / "tokenizer_source")
        pipeline: Any = StableDiffusionInpaintPipeline(
            vae=autoencoder(), text_encoder=text, tokenizer=tokenizer, unet=denoiser(in_channels),
            scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1, beta_schedule="scaled_linear"),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


def save_pix2gestalt(folder: Path, seed: int = 0, in_channels: int = 12) -> Path:
    """The networks of pix2gestalt with random weights, in the layout that the adapter takes."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CLIPVisionConfig(
            hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, image_size=32,
            patch_size=8, projection_dim=24,
        )  # fmt: skip
        CLIPVisionModelWithProjection(config).save_pretrained(folder / "image_encoder")
        denoiser(in_channels).save_pretrained(folder / "unet")
        autoencoder().save_pretrained(folder / "vae")
        save_file({"weight": torch.randn(32, 24), "bias": torch.randn(32)}, folder / "projection.safetensors")
    return folder


def save_flux_fill(folder: Path, seed: int = 0) -> Path:
    """FLUX Fill with random weights, tiny but for its 384 input channels, as diffusers saves it."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxFillPipeline, FluxTransformer2DModel
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text, tokenizer = text_encoder(folder / "tokenizer_source")
        words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
        words += [(chr(code), -2.0) for code in range(ord("a"), ord("z") + 1)]
        config = T5Config(vocab_size=len(words), d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=16,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.1, scaling_factor=0.4,
        )  # fmt: skip
        transformer = FluxTransformer2DModel(
            patch_size=1, in_channels=384, out_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=32, pooled_projection_dim=32, guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        )  # fmt: skip
        pipeline: Any = FluxFillPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=text, tokenizer=tokenizer,
            text_encoder_2=T5EncoderModel(config), tokenizer_2=T5Tokenizer(vocab=words, extra_ids=0),
            transformer=transformer,
        )  # fmt: skip
        pipeline.save_pretrained(folder / "pipeline")
    return folder / "pipeline"


SAVED: Mapping[str, tuple[Callable[[Path], Path], dict[str, Any]]] = {
    "oaac": (save_inpainting, {}),
    "flux": (save_flux_fill, {"side": SIDE}),
    "pix2gestalt": (save_pix2gestalt, {}),
}
"""Name of a view completer -> what saves its networks, and the options that they take."""
