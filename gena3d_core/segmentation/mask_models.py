"""What promptable mask networks have in common: images encoded once, prompts answered with candidate masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import InputError
from ..types import BoolArray, Float32Array, UInt8Array, require_shape

PADDING = -1
"""Label of a point that only fills up a row of points."""
PROMPTS_PER_PASS = 64
PIXELS_PER_PASS = 64 * 640 * 480


@dataclass(frozen=True, eq=False)
class PixelPrompts:
    """N prompts in one image, in its pixels; each is a box, or points, or both.

    boxes_xyxy  (N, 4) float32 x_min, y_min, x_max, y_max; None without boxes
    points_xy   (N, P, 2) float32; None without points
    labels      (N, P) int: 1 on the object, 0 off it, -1 no point at all
    """

    boxes_xyxy: Float32Array | None = None
    points_xy: Float32Array | None = None
    labels: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.boxes_xyxy is None and self.points_xy is None:
            raise InputError("prompts need boxes, points or both")
        if self.boxes_xyxy is not None:
            require_shape("boxes_xyxy", self.boxes_xyxy, (None, 4))
        if self.points_xy is not None:
            require_shape("points_xy", self.points_xy, (None, None, 2))
            if self.labels is None or self.labels.shape != self.points_xy.shape[:2]:
                raise InputError(f"points {self.points_xy.shape} need labels of shape {self.points_xy.shape[:2]}")
            if self.boxes_xyxy is not None and len(self.boxes_xyxy) != len(self.points_xy):
                raise InputError(f"{len(self.boxes_xyxy)} boxes and {len(self.points_xy)} rows of points differ")

    def __len__(self) -> int:
        rows = self.boxes_xyxy if self.boxes_xyxy is not None else self.points_xy
        assert rows is not None
        return len(rows)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Answers to N prompts: M masks each.

    masks      (N, M, H, W) bool
    scores     (N, M) float32, the network's own estimate of each mask's IoU
    stability  (N, M) float32 in [0, 1]: IoU of the mask cut a little higher with the mask cut a little lower
    """

    masks: BoolArray
    scores: Float32Array
    stability: Float32Array


class MaskModel(Protocol):
    """A promptable mask network."""

    def encode(self, images: Sequence[UInt8Array]) -> list[Any]:
        """One embedding for each image (H, W, 3) uint8 RGB; images go through the network in batches."""
        ...

    def candidates(self, embedding: Any, prompts: PixelPrompts) -> Candidates:
        """Masks for the prompts in the image of `embedding`, at the image's own size."""
        ...

    def features(self, embedding: Any) -> Tensor:
        """(C, h, w) feature map that covers exactly the image of `embedding`, without padding."""
        ...


@dataclass(frozen=True, eq=False)
class Embedding:
    """An encoded image.

    maps         what the network's decoder wants, batch of one
    image_shape  (H, W) of the image
    input_shape  (h, w) of the part of the network's input that the image fills
    """

    maps: tuple[Tensor, ...]
    image_shape: tuple[int, int]
    input_shape: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Network input pixels for each image pixel, in x and y."""
        return self.input_shape[1] / self.image_shape[1], self.input_shape[0] / self.image_shape[0]


def to_input_frame(embedding: Embedding, prompts: PixelPrompts, device: torch.device) -> tuple[Tensor | None, ...]:
    """Boxes (N, 4), points (N, P, 2) and labels (N, P) as tensors, in pixels of the network's input."""
    scale = np.asarray(embedding.scale_xy, dtype=np.float32)
    boxes = points = labels = None
    if prompts.boxes_xyxy is not None:
        boxes = torch.from_numpy(np.asarray(prompts.boxes_xyxy, np.float32) * np.tile(scale, 2)).to(device)
    if prompts.points_xy is not None:
        assert prompts.labels is not None
        points = torch.from_numpy(np.asarray(prompts.points_xy, np.float32) * scale).to(device)
        labels = torch.from_numpy(np.asarray(prompts.labels, np.int32)).to(device)
    return boxes, points, labels


def resized(image: UInt8Array, height: int, width: int) -> Tensor:
    """(3, height, width) float32 in [0, 255]: the image smoothed and resized bilinearly."""
    tensor = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    if tensor.shape[-2:] == (height, width):
        return tensor[0]
    out = functional.interpolate(tensor, (height, width), mode="bilinear", antialias=True, align_corners=False)
    return out[0].round().clamp(0, 255)


def from_logits(logits: Tensor, scores: Tensor, offset: float = 1.0) -> Candidates:
    """Candidates of logits (N, M, H, W) cut at 0, and of scores (N, M)."""
    inner = (logits > offset).sum((-1, -2))
    outer = (logits > -offset).sum((-1, -2))
    stability = torch.where(outer > 0, inner / outer.clamp(min=1), torch.zeros_like(scores))
    return Candidates(
        (logits > 0.0).cpu().numpy(),
        scores.float().cpu().numpy(),
        stability.float().cpu().numpy(),
    )


def passes(count: int, image_shape: tuple[int, int]) -> list[slice]:
    """Slices of `count` prompts that go through a decoder together: fewer for larger images, to bound memory."""
    size = int(np.clip(PIXELS_PER_PASS // (image_shape[0] * image_shape[1]), 1, PROMPTS_PER_PASS))
    return [slice(start, start + size) for start in range(0, count, size)]


def joined(parts: Sequence[Candidates]) -> Candidates:
    """The answers to several passes of prompts, in order."""
    return Candidates(
        np.concatenate([part.masks for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.stability for part in parts]),
    )


def checked_image(image: UInt8Array) -> UInt8Array:
    """The image; raises `InputError` unless it is (H, W, 3) uint8."""
    require_shape("image", image, (None, None, 3))
    if image.dtype != np.uint8:
        raise InputError(f"image must be uint8 RGB, got {image.dtype}")
    return image
