"""`MaskModel` on the package segment-anything: its networks, built to the sizes that the weights show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import DataFormatError
from ..types import UInt8Array
from .mask_models import (
    Candidates,
    Embedding,
    PixelPrompts,
    checked_image,
    from_logits,
    joined,
    passes,
    resized,
    to_input_frame,
)
from .segment_anything_import import import_segment_anything

DECODER_HEADS = 8
"""Attention heads of the mask decoder in every published SAM; their number cannot be read off the weights."""


class SegmentAnything:
    """SAM: images at the network's size, long side filled, padded with zeros below and right."""

    def __init__(self, network: nn.Module, device: str = "cpu", images_per_pass: int = 4) -> None:
        """network: a `segment_anything.modeling.Sam`."""
        self.device = torch.device(device)
        self.network: Any = network.to(self.device).eval().requires_grad_(False)
        self.images_per_pass = images_per_pass

    @torch.inference_mode()
    def encode(self, images: Sequence[UInt8Array]) -> list[Embedding]:
        """See `MaskModel.encode`; every image may have its own size."""
        side = self.network.image_encoder.img_size
        embeddings = []
        for start in range(0, len(images), self.images_per_pass):
            part = [checked_image(image) for image in images[start : start + self.images_per_pass]]
            shapes = [_input_shape(image.shape[:2], side) for image in part]
            batch = torch.stack(
                [
                    self.network.preprocess(resized(image, *shape).to(self.device))
                    for image, shape in zip(part, shapes, strict=True)
                ]
            )
            maps = self.network.image_encoder(batch)
            embeddings += [
                Embedding((row[None],), (image.shape[0], image.shape[1]), shape)
                for row, image, shape in zip(maps, part, shapes, strict=True)
            ]
        return embeddings

    @torch.inference_mode()
    def candidates(self, embedding: Embedding, prompts: PixelPrompts) -> Candidates:
        """See `MaskModel.candidates`."""
        boxes, points, labels = to_input_frame(embedding, prompts, self.device)
        answers = []
        for rows in passes(len(prompts), embedding.image_shape):
            with_points = None if points is None or labels is None else (points[rows], labels[rows])
            sparse, dense = self.network.prompt_encoder(
                points=with_points, boxes=None if boxes is None else boxes[rows], masks=None
            )
            low, iou = self.network.mask_decoder(
                image_embeddings=embedding.maps[0],
                image_pe=self.network.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
            logits = self.network.postprocess_masks(low, embedding.input_shape, embedding.image_shape)
            answers.append(from_logits(logits, iou))
        return joined(answers)

    def features(self, embedding: Embedding) -> Tensor:
        """See `MaskModel.features`."""
        whole = embedding.maps[0][0]
        side = self.network.image_encoder.img_size
        rows, cols = (
            max(1, round(size * n / side)) for size, n in zip(embedding.input_shape, whole.shape[-2:], strict=True)
        )
        return functional.normalize(whole[:, :rows, :cols], dim=0)


def _input_shape(image_shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """(h, w) of the image with its long side stretched to `side`."""
    scale = side / max(image_shape)
    return int(image_shape[0] * scale + 0.5), int(image_shape[1] * scale + 0.5)


def build_sam(weights: Mapping[str, Tensor], source: str) -> nn.Module:
    """The package's `Sam` of the sizes that `weights` have, with these weights.

    Raises `DataFormatError`, which names `source`, unless they are those of a SAM.
    """
    modeling = import_segment_anything().modeling
    try:
        network = _network(modeling, weights)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as error:
        raise DataFormatError(
            f"{source}: not the weights of a SAM (ViT-B, ViT-L or ViT-H of segment-anything): {error} is missing"
        ) from error
    try:
        network.load_state_dict(dict(weights), strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataFormatError(f"{source}: not the weights of a SAM: {reason[:300]}") from error
    return network


def _network(modeling: Any, weights: Mapping[str, Tensor]) -> nn.Module:
    patch_kernel = weights["image_encoder.patch_embed.proj.weight"]
    width, patch = patch_kernel.shape[0], patch_kernel.shape[-1]
    grid = weights["image_encoder.pos_embed"].shape[1]
    depth = _count(weights, "image_encoder.blocks.")
    relative = [weights[f"image_encoder.blocks.{i}.attn.rel_pos_h"].shape for i in range(depth)]
    window_rows = [(rows + 1) // 2 for rows, _ in relative]
    prompt_width = weights["image_encoder.neck.0.weight"].shape[0]
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=depth,
            embed_dim=width,
            img_size=grid * patch,
            mlp_ratio=weights["image_encoder.blocks.0.mlp.lin1.weight"].shape[0] / width,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            num_heads=width // relative[0][1],
            patch_size=patch,
            qkv_bias=True,
            use_rel_pos=True,
            global_attn_indexes=tuple(i for i, rows in enumerate(window_rows) if rows == grid),
            window_size=min(window_rows) if min(window_rows) < grid else 0,
            out_chans=prompt_width,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=prompt_width,
            image_embedding_size=(grid, grid),
            input_image_size=(grid * patch, grid * patch),
            mask_in_chans=weights["prompt_encoder.mask_downscaling.3.weight"].shape[0],
        ),
        mask_decoder=modeling.MaskDecoder(
            num_multimask_outputs=weights["mask_decoder.mask_tokens.weight"].shape[0] - 1,
            transformer=modeling.TwoWayTransformer(
                depth=_count(weights, "mask_decoder.transformer.layers."),
                embedding_dim=prompt_width,
                mlp_dim=weights["mask_decoder.transformer.layers.0.mlp.lin1.weight"].shape[0],
                num_heads=DECODER_HEADS,
            ),
            transformer_dim=prompt_width,
            iou_head_depth=_count(weights, "mask_decoder.iou_prediction_head.layers."),
            iou_head_hidden_dim=weights["mask_decoder.iou_prediction_head.layers.0.weight"].shape[0],
        ),
    )


def _count(weights: Mapping[str, Tensor], prefix: str) -> int:
    numbers = {int(name[len(prefix) :].partition(".")[0]) for name in weights if name.startswith(prefix)}
    if not numbers:
        raise KeyError(prefix)
    return max(numbers) + 1


def load_segment_anything(file: Path, device: str = "cpu", images_per_pass: int = 4) -> SegmentAnything:
    """SAM with the weights of `file` (.pth or .safetensors).

    Raises `MissingDependencyError` without the package, `DataFormatError` for a file that is missing, broken, or of
    another network.
    """
    import_segment_anything()
    from ..checkpoints.weight_files import read_weights

    return SegmentAnything(build_sam(read_weights([file]), str(file)), device, images_per_pass)
