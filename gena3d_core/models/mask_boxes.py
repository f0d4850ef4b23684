"""Where the masks of a scene lie in its image, in numbers: what position tokens of our small SceneGen start from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..nn.initialisation import zero

BOX_WIDTH = 5
"""Numbers of a box: middle of the mask's pixels (x, y), width and height of its bounds, root of its area."""
LEAST_SIZE = 0.02
"""Smallest root of an area, as a share of the image, that others are measured against."""


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
