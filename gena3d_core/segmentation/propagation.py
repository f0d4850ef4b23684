"""Objects known in some views carried to the others: geometry says where, a mask network says how far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..types import BoolArray, View
from .guided import choose
from .mask_models import MaskModel
from .transport import Evidence, Lookups, evidence, main_part

MIN_PIXELS = 40
"""Fewer transported pixels are not enough to prompt with."""

Masks = list[list[BoolArray | None]]
"""[object][view] -> (H, W) bool; None where not decided yet."""


def propagate(
    model: MaskModel, embeddings: Sequence[Any], views: Sequence[View], masks: Masks, min_agreement: float
) -> tuple[list[list[BoolArray]], list[str]]:
    """Masks of every object in every view, all False where it is not seen, and warnings.

    masks: what is known, at least one view for each object. Views that see enough of what is known come first; those
    that only see what is found on the way follow in later rounds. Where no answer of the network agrees with the
    geometry by `min_agreement`, the transported pixels themselves are taken, with a warning.
    """
    found: Masks = [list(row) for row in masks]
    warnings: list[str] = []
    lookups = Lookups(views)
    for _ in range(len(views)):
        decided = _round(model, embeddings, views, lookups, found, min_agreement, warnings)
        if not decided:
            break
        for number, view, mask in decided:
            found[number][view] = mask
    return [
        [np.zeros(view.color.shape[:2], dtype=bool) if m is None else m for m, view in zip(row, views, strict=True)]
        for row in found
    ], warnings


def _round(
    model: MaskModel,
    embeddings: Sequence[Any],
    views: Sequence[View],
    lookups: Lookups,
    found: Masks,
    min_agreement: float,
    warnings: list[str],
) -> list[tuple[int, int, BoolArray]]:
    """(object, view, mask) of all that the views known so far decide; all objects of a view go as one batch."""
    decided = []
    for target, view in enumerate(views):
        open_objects = [number for number, row in enumerate(found) if row[target] is None]
        known = {number: _evidence_for(found[number], lookups, target) for number in open_objects}
        enough = [number for number, one in known.items() if one is not None and one.inside.sum() >= MIN_PIXELS]
        cleaned = [Evidence(main_part(one.inside), one.outside) for n in enough if (one := known[n]) is not None]
        for number, one, choice in zip(enough, cleaned, choose(model, embeddings[target], cleaned), strict=True):
            mask = choice.mask
            if choice.agreement < min_agreement:
                warnings.append(
                    f"object {number + 1} in view '{view.name}': no answer of the mask network agrees with the "
                    f"geometry (best IoU {choice.agreement:.2f}); the pixels carried over by depth are used"
                )
                mask = one.inside
            decided.append((number, target, mask))
    return decided


def _evidence_for(row: Sequence[BoolArray | None], lookups: Lookups, target: int) -> Evidence | None:
    sources = [(index, mask) for index, mask in enumerate(row) if mask is not None and mask.any()]
    if not sources:
        return None
    return evidence([lookups(target, index) for index, _ in sources], [mask for _, mask in sources])
