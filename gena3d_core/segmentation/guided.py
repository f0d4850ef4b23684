"""A mask network's answers judged by geometry: prompts made of what is known, the answer that agrees with it chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import BoolArray
from .mask_models import MaskModel, PixelPrompts
from .transport import Evidence, agreement, box_of, inner_points, main_part

POINTS = 3
BOX_MARGIN = 0.06
"""Boxes are this share of their longer side larger than what is known of the object, on each side."""
SCORE_WEIGHT = 0.05
"""Weight of the network's own score beside the agreement: it decides between answers that agree alike."""


@dataclass(frozen=True, eq=False)
class Choice:
    """One object's mask (H, W) in one view, and its IoU with what was known where that decides."""

    mask: BoolArray
    agreement: float


def prompts_of(known: Sequence[Evidence]) -> PixelPrompts:
    """N prompts, for each object a box and points; the evidence of each must have a pixel inside."""
    boxes, points, labels = [], [], []
    for one in known:
        inside = main_part(one.inside)
        height, width = inside.shape
        box = box_of(inside)
        margin = BOX_MARGIN * float(max(box[2] - box[0], box[3] - box[1])) + 1.0
        grown = box + np.array([-margin, -margin, margin, margin], np.float32)
        xy, flags = inner_points(inside, POINTS)
        boxes.append(np.clip(grown, 0.0, np.array([width - 1, height - 1] * 2, np.float32)))
        points.append(xy)
        labels.append(flags)
    return PixelPrompts(np.stack(boxes), np.stack(points), np.stack(labels))


def choose(model: MaskModel, embedding: Any, known: Sequence[Evidence]) -> list[Choice]:
    """For each of N objects the network's mask that agrees best with the evidence; N may be 0.

    Each object is asked for twice: with its box and points, and with the points alone. The box holds where all of the
    object is known, and would cut it off where only a part is.
    """
    if not known:
        return []
    prompts = prompts_of(known)
    answers = [
        model.candidates(embedding, prompts),
        model.candidates(embedding, PixelPrompts(points_xy=prompts.points_xy, labels=prompts.labels)),
    ]
    choices = []
    for number, one in enumerate(known):
        masks = np.concatenate([answer.masks[number] for answer in answers])
        scores = np.concatenate([answer.scores[number] for answer in answers])
        agreements = agreement(masks, one)
        best = int((agreements + SCORE_WEIGHT * np.clip(scores, 0.0, 1.0)).argmax())
        choices.append(Choice(masks[best], float(agreements[best])))
    return choices
