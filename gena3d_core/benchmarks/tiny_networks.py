"""Networks of the front ends, tiny and with random weights: to time what is around them, and for the tests."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

SAM_SIDE = 128
DECODER: dict[str, Any] = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def tiny_sam() -> Any:
    """SAM of the package segment-anything."""
    from ..segmentation.segment_anything_import import import_segment_anything

    modeling = import_segment_anything().modeling
    torch.manual_seed(0)
    return modeling.Sam(
        modeling.ImageEncoderViT(
            img_size=SAM_SIDE,
            embed_dim=32,
            depth=3,
            num_heads=2,
            out_chans=32,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            global_attn_indexes=(1,),
            window_size=3,
        ),
        modeling.PromptEncoder(32, (8, 8), (SAM_SIDE, SAM_SIDE), 8),
        modeling.MaskDecoder(
            transformer_dim=32,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=8),
            iou_head_hidden_dim=16,
        ),
    ).eval()


def tiny_sam2() -> Any:
    """SAM 2 of the package transformers."""
    from transformers import (
        Sam2Config,
        Sam2HieraDetConfig,
        Sam2MaskDecoderConfig,
        Sam2Model,
        Sam2PromptEncoderConfig,
        Sam2VisionConfig,
    )

    backbone = Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[64, 64],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 1, 1],
        window_size_per_stage=[4, 2, 2, 2],
        global_attention_blocks=[3],
        window_positional_embedding_background_size=[2, 2],
    )
    vision = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompts = Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16)
    return Sam2Model(
        Sam2Config(
            vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=Sam2MaskDecoderConfig(**DECODER)
        )
    )


def tiny_tokenizer() -> Any:
    """A tokenizer of a few words and Florence-2's places."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    words = [*special, "Locate", "in", "the", "image", ".", "mug", "bowl", "red", *(f"<loc_{i}>" for i in range(1000))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=[f"<loc_{i}>" for i in range(1000)],
    )


def tiny_florence2() -> tuple[Any, Any]:
    """Florence-2 of the package transformers, and its tokenizer."""
    from transformers import BartConfig, Florence2Config, Florence2ForConditionalGeneration, Florence2VisionConfig

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    text = BartConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_eos_token_id=2,
    )
    vision = Florence2VisionConfig(
        depths=(1, 1, 1, 1),
        embed_dim=(8, 8, 8, 16),
        num_heads=(1, 1, 1, 1),
        num_groups=(1, 1, 1, 1),
        window_size=2,
        projection_dim=16,
        drop_path_rate=0.0,
    )
    network = Florence2ForConditionalGeneration(
        Florence2Config(text_config=text, vision_config=vision, image_token_id=4)
    )
    return network.eval(), tokenizer


def tiny_pi3() -> Any:
    """π³, our own module."""
    from ..models.geometry.pi3 import Pi3, Pi3Config
    from ..models.image_encoders.dinov2 import DinoV2Config

    torch.manual_seed(0)
    encoder = DinoV2Config(img_size=70, embed_dim=48, depth=2, num_heads=4, mask_token=False)
    return Pi3(Pi3Config(encoder, depth=4, heads=4, head_width=48, head_depth=2, head_heads=4, camera_width=32)).eval()
