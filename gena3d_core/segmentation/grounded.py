"""Segmenter that takes words: a text detector draws boxes, a promptable mask network fills them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..types import BoolArray, BoxPrompt, PointPrompt, Prompt, Segmentation, TextPrompt, View
from .assembling import FoundObject, assemble, scene_support
from .automatic import distinct
from .florence2 import Detection, TextDetector
from .promptable import Promptable, best_answer, check_prompts, has_depth, pixel_prompts
from .propagation import Masks

MAX_IOU = 0.7
"""Of two boxes for one text whose masks overlap more, the first stays."""
MAX_BOX_SHARE = 0.9
"""Larger boxes are the picture, not an object: detectors draw them when they find nothing."""


class Grounded:
    """`Segmenter` that takes texts, boxes and points; without prompts, all that the detector names."""

    prompt_kinds: frozenset[type] = frozenset({BoxPrompt, PointPrompt, TextPrompt})

    def __init__(self, detector: TextDetector, segmenter: Promptable) -> None:
        self.detector = detector
        self.segmenter = segmenter

    def __call__(self, views: Sequence[View], prompts: Sequence[Prompt] = ()) -> Segmentation:
        """First one object for each box or point, then the objects that the texts find, ids from 1 in this order.

        Detections of one text in several views are one object when their masks overlap in space (by looks without
        depth); views in which the detector missed it get its mask carried over. Texts that nothing answers give a
        warning. Raises `InputError` as `Promptable` does.
        """
        check_prompts(views, prompts, self.prompt_kinds, "grounded")
        images = [view.color for view in views]
        embeddings = self.segmenter.model.encode(images)
        given = [prompt for prompt in prompts if not isinstance(prompt, TextPrompt)]
        texts = [prompt.text.strip() for prompt in prompts if isinstance(prompt, TextPrompt)]
        objects, warnings = self.segmenter.prompted(views, embeddings, given) if given else ([], [])
        if texts or not given:
            detections = self.detector.detect(images, texts)
            named, remarks = self._named(views, embeddings, detections)
            objects, warnings = [*objects, *named], [*warnings, *remarks]
            labels = {entry.label for entry in named}
            missing = [text for text in texts if text not in labels]
            warnings += [f"grounded: '{text}' was not found in any view" for text in missing]
            if not texts and not named:
                warnings.append("grounded: the detector named no object in any view")
        return assemble(views, objects, scene_support(views), self.segmenter.config.refine, warnings)

    def _named(
        self, views: Sequence[View], embeddings: Sequence[Any], detections: Sequence[Sequence[Detection]]
    ) -> tuple[list[FoundObject], list[str]]:
        """Objects of all detections, those of one label together, and warnings."""
        answered = [
            self._masks(view, embedding, found)
            for view, embedding, found in zip(views, embeddings, detections, strict=True)
        ]
        labels = list(dict.fromkeys(label for entries in answered for label, _, _ in entries))
        rows: Masks = []
        facts: list[tuple[str, float]] = []
        for label in labels:
            own = [[(mask, score) for name, mask, score in entries if name == label] for entries in answered]
            masks = [[mask for mask, _ in entries] for entries in own]
            for entry in self.segmenter.join_masks(views, embeddings, masks, has_depth(views)):
                rows.append([masks[v][entry[v]] if v in entry else None for v in range(len(views))])
                facts.append((label, float(np.mean([own[v][index][1] for v, index in entry.items()]))))
        carried, warnings = self.segmenter.carried(views, embeddings, rows)
        return [FoundObject(*fact, row) for fact, row in zip(facts, carried, strict=True)], warnings

    def _masks(self, view: View, embedding: Any, found: Sequence[Detection]) -> list[tuple[str, BoolArray, float]]:
        """(label, mask, score) of each detection in one view; all boxes go to the mask network as one batch."""
        height, width = view.color.shape[:2]
        prompts = [
            BoxPrompt(view.name, item.box_xyxy, item.label)
            for item in found
            if _area(item) <= MAX_BOX_SHARE * height * width
        ]
        if not prompts:
            return []
        answers = self.segmenter.model.candidates(embedding, pixel_prompts(prompts))
        best = [best_answer(*row) for row in zip(answers.masks, answers.scores, prompts, strict=True)]
        chosen = np.arange(len(prompts))
        masks, scores = answers.masks[chosen, best], np.clip(answers.scores[chosen, best], 0.0, 1.0)
        entries = []
        for label in dict.fromkeys(prompt.label for prompt in prompts):
            own = np.array([number for number, prompt in enumerate(prompts) if prompt.label == label])
            own = own[masks[own].any((1, 2))]
            entries += [(label, masks[number], float(scores[number])) for number in own[distinct(masks[own], MAX_IOU)]]
        return entries


def _area(item: Detection) -> float:
    x_min, y_min, x_max, y_max = item.box_xyxy
    return (x_max - x_min) * (y_max - y_min)
