"""What masks and crops of a scene say by their geometry alone, in numbers that a small network need not learn to read.

Ours, besides SceneGen's features: where masks lie in the image, for position tokens, and crops pixel by pixel, for the
latent tokens that lie where a camera from the front would see that pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.initialisation import zero

BOX_WIDTH = 5
"""Numbers of a box: middle of the mask's pixels (x, y), width and height of its bounds, root of its area."""
LEAST_SIZE = 0.02
"""Smallest root of an area, as a share of the image, that others are measured against."""
CROP_SIDE, CROP_CHANNELS = 16, 5
"""Crops are averaged to so many pixels a side: a multiple of the tokens along a side."""
WIDTHS = (64, 128)


@dataclass(frozen=True)
class SceneHints:
    """boxes (S·A, 5) as `mask_boxes` gives them, zeros: not known; crops (S·A, 5, 16, 16) in [0, 1], averaged crops."""

    boxes: Tensor
    crops: Tensor

    def of_assets(self, rows: Tensor) -> SceneHints:
        """Those of the rows (n,) int64."""
        return SceneHints(self.boxes[rows], self.crops[rows])

    def without(self, rows: Tensor) -> SceneHints:
        """With nothing known of the rows where (S·A,) bool is True."""
        return SceneHints(
            self.boxes.masked_fill(rows[:, None], 0.0), self.crops.masked_fill(rows[:, None, None, None], 0.0)
        )

    def guided(self, rows: int) -> SceneHints:
        """For a pass over `rows`: as they are, or followed by as many of which nothing is known."""
        if rows == len(self.boxes):
            return self
        return SceneHints(*(torch.cat([own, torch.zeros_like(own)]) for own in (self.boxes, self.crops)))


def scene_hints(masks: Tensor, crops: Tensor) -> SceneHints:
    """Hints of assets by their masks (P, h, w) bool in the whole image and their crops (P, 5, s, s) in [0, 1]."""
    return SceneHints(mask_boxes(masks), F.adaptive_avg_pool2d(crops.float(), CROP_SIDE))


def no_hints(rows: int, like: Tensor) -> SceneHints:
    """Hints that say nothing, on the device of `like`."""
    return SceneHints(like.new_zeros(rows, BOX_WIDTH), like.new_zeros(rows, CROP_CHANNELS, CROP_SIDE, CROP_SIDE))


def mask_boxes(masks: Tensor) -> Tensor:
    """(P, 5) float32 of masks (P, h, w) bool, each number a share of the image's side; zeros for an empty mask."""
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    area = masks.sum(dim=(1, 2)).float()
    numbers = []
    for edge, count in ((columns, masks.sum(dim=1)), (rows, masks.sum(dim=2))):
        place = (torch.arange(edge.shape[1], device=masks.device) + 0.5) / edge.shape[1]
        numbers.append((count * place).sum(dim=1) / area.clamp_min(1.0))
    for edge in (columns, rows):
        index = torch.arange(edge.shape[1], device=masks.device)
        last = torch.where(edge, index, -1).amax(dim=1)
        first = torch.where(edge, index, edge.shape[1]).amin(dim=1)
        numbers.append((last - first + 1).clamp_min(0) / edge.shape[1])
    numbers.append((area / (masks.shape[1] * masks.shape[2])).sqrt())
    return torch.stack(numbers, dim=1) * (area > 0)[:, None]


class MaskBoxEmbedding(nn.Module):
    """Boxes of a scene's assets -> what is added to their position tokens: each beside the query's, and against it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * BOX_WIDTH + 3, width)
        self.last = nn.Linear(width, width)

    def initialise(self) -> None:
        """Fresh parameters for training, which add nothing yet."""
        self.first.reset_parameters()
        zero(self.last)

    def forward(self, boxes: Tensor, query: Tensor) -> Tensor:
        """boxes (S·A, 5), zeros: not known; query (S·A,) bool, one of each scene -> (S·A, width) float32."""
        boxes = boxes.to(self.first.weight)
        theirs = boxes[query].repeat_interleave(len(boxes) // int(query.sum()), dim=0)
        size, unit = (of[:, 4:].clamp_min(LEAST_SIZE) for of in (boxes, theirs))
        known = ((boxes[:, 4:] > 0) & (theirs[:, 4:] > 0)).to(boxes)
        against = torch.cat([(boxes[:, :2] - theirs[:, :2]) / unit, (size / unit).log()], dim=1) * known
        return self.last(F.gelu(self.first(torch.cat([boxes, theirs, against], dim=1))))


class AlignedCropEmbedding(nn.Module):
    """Crops -> what is added to latent tokens of upright grids, x to the right, y ahead, z up: a column of pixels
    belongs to tokens of one x, a row to those of one z, and tokens one behind the other get different parts of it."""

    def __init__(self, width: int, side: int) -> None:
        """side: tokens along a side of the grid, which divides `CROP_SIDE`."""
        super().__init__()
        self.side = side
        step = CROP_SIDE // side
        self.pixels = nn.Conv2d(CROP_CHANNELS, WIDTHS[0], 3, padding=1)
        self.cells = nn.Conv2d(WIDTHS[0], WIDTHS[1], step, stride=step)
        self.around = nn.Conv2d(WIDTHS[1], WIDTHS[1], 3, padding=1)
        self.last = nn.Conv2d(WIDTHS[1], side * width, 1)

    def initialise(self) -> None:
        """Fresh parameters for training, which add nothing yet."""
        for layer in (self.pixels, self.cells, self.around):
            layer.reset_parameters()
        zero(self.last)

    def forward(self, crops: Tensor) -> Tensor:
        """crops (P, 5, 16, 16) -> (P, side³, width) float32, tokens in the order (x, y, z)."""
        h = F.gelu(self.cells(F.gelu(self.pixels(crops.to(self.last.weight)))))
        h = self.last(h + F.gelu(self.around(h))).flip(2)  # rows of pixels go down, z goes up
        return h.unflatten(1, (self.side, -1)).permute(0, 4, 1, 3, 2).flatten(1, 3)
