"""`MaskModel` on transformers: SAM 2 and the tracker of SAM 3, prompted with boxes and points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from .transformers_import import load_network


@dataclass(frozen=True)
class Family:
    """A family of networks in transformers: its class, what config.json may call it, how it scales colours."""

    class_name: str
    model_types: tuple[str, ...]
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


FAMILIES: Mapping[str, Family] = {
    "sam2": Family("Sam2Model", ("sam2", "sam2_video"), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "sam3": Family(
        "Sam3TrackerModel",
        ("sam3_tracker", "sam3_tracker_video", "sam3_video", "sam3"),
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
    ),
}
"""By the name of the segmenter."""


class TransformersMaskModel:
    """SAM 2 or SAM 3: images stretched to the square that the network takes."""

    def __init__(self, network: nn.Module, family: Family, device: str = "cpu", images_per_pass: int = 4) -> None:
        """network: an object of the class `family.class_name`."""
        self.device = torch.device(device)
        self.network: Any = network.to(self.device).eval().requires_grad_(False)
        self.images_per_pass = images_per_pass
        self._mean = torch.tensor(family.mean, device=self.device)[:, None, None]
        self._deviation = torch.tensor(family.deviation, device=self.device)[:, None, None]
        config: Any = self.network.config
        size = config.prompt_encoder_config.image_size
        self._side = int(size if isinstance(size, int) else size[0])

    @torch.inference_mode()
    def encode(self, images: Sequence[UInt8Array]) -> list[Embedding]:
        """See `MaskModel.encode`; every image may have its own size."""
        embeddings = []
        for start in range(0, len(images), self.images_per_pass):
            part = [checked_image(image) for image in images[start : start + self.images_per_pass]]
            batch = torch.stack([resized(image, self._side, self._side) for image in part]).to(self.device) / 255.0
            maps = self.network.get_image_embeddings((batch - self._mean) / self._deviation)
            embeddings += [
                Embedding(
                    tuple(level[row : row + 1] for level in maps),
                    (image.shape[0], image.shape[1]),
                    (self._side, self._side),
                )
                for row, image in enumerate(part)
            ]
        return embeddings

    @torch.inference_mode()
    def candidates(self, embedding: Embedding, prompts: PixelPrompts) -> Candidates:
        """See `MaskModel.candidates`."""
        boxes, points, labels = to_input_frame(embedding, prompts, self.device)
        answers = []
        for rows in passes(len(prompts), embedding.image_shape):
            answer = self.network(
                image_embeddings=list(embedding.maps),
                input_boxes=None if boxes is None else boxes[None, rows],
                input_points=None if points is None else points[None, rows],
                input_labels=None if labels is None else labels[None, rows],
                multimask_output=True,
            )
            low = answer.pred_masks[0]
            logits = functional.interpolate(low, embedding.image_shape, mode="bilinear", align_corners=False)
            answers.append(from_logits(logits, answer.iou_scores[0]))
        return joined(answers)

    def features(self, embedding: Embedding) -> Tensor:
        """See `MaskModel.features`."""
        return functional.normalize(embedding.maps[-1][0], dim=0)


def load_transformers_mask_model(
    name: str, folder: Path, device: str = "cpu", images_per_pass: int = 4
) -> TransformersMaskModel:
    """The network of `FAMILIES[name]` with the weights in `folder`; errors as in `transformers_import.load_network`."""
    family = FAMILIES[name]
    network = load_network(family.class_name, folder, f"the segmenter '{name}'", family.model_types)
    return TransformersMaskModel(network, family, device, images_per_pass)
