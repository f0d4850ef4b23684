"""Segmenters on promptable mask networks: SAM, SAM 2 and SAM 3, told where to look by boxes, clicks or depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from ..types import BoolArray, BoxPrompt, PointPrompt, Prompt, Segmentation, TextPrompt, View
from .assembling import FoundObject, assemble, scene_support
from .association import appearance_similarity, geometric_similarity, join, mask_descriptors
from .automatic import AutomaticConfig, automatic_masks
from .guided import choose
from .mask_models import PADDING, MaskModel, PixelPrompts
from .propagation import Masks, propagate
from .tabletop import Tabletop, TabletopConfig
from .transport import guide

Proposals = Literal["tabletop", "automatic"]


@dataclass(frozen=True)
class PromptableConfig:
    """How prompts are made and answers are judged."""

    proposals: Proposals = "tabletop"
    """Without prompts: `tabletop` refines the clusters of depth above the support plane, `automatic` asks the network
    for everything and joins the answers across views."""
    min_agreement: float = 0.5
    """Answers that agree less with the geometry (IoU over the pixels that it decides) are not believed."""
    min_join_iou: float = 0.3
    """Masks of two views are one object above this IoU, over the pixels that both views see."""
    min_join_cosine: float = 0.7
    """The same without depth: by the cosine of the mean features under the masks."""
    min_views: int = 1
    """Automatic objects that are seen in fewer views are left out."""
    refine: bool = True
    """Move outlines to depth edges."""
    automatic: AutomaticConfig = field(default_factory=AutomaticConfig)
    tabletop: TabletopConfig = field(default_factory=TabletopConfig)

    def __post_init__(self) -> None:
        if self.proposals not in ("tabletop", "automatic"):
            raise InputError(f"proposals must be 'tabletop' or 'automatic', got '{self.proposals}'")
        if not 0.0 <= self.min_agreement <= 1.0:
            raise InputError(f"min_agreement must lie in [0, 1], got {self.min_agreement}")


class Promptable:
    """`Segmenter` on a `MaskModel`; takes boxes and points. Holds the network: make it once."""

    prompt_kinds: frozenset[type] = frozenset({BoxPrompt, PointPrompt})

    def __init__(self, model: MaskModel, config: PromptableConfig | None = None, name: str = "sam") -> None:
        self.model = model
        self.config = config or PromptableConfig()
        self.name = name

    def __call__(self, views: Sequence[View], prompts: Sequence[Prompt] = ()) -> Segmentation:
        """With `prompts` one object for each, ids in their order from 1; else all objects.

        A prompt in one view is answered there, and the answer carried to the other views by depth; without depth, to
        masks that look alike. Raises `InputError` for prompts in unknown views or of a kind that it does not take.
        """
        check_prompts(views, prompts, self.prompt_kinds, self.name)
        embeddings = self.model.encode([view.color for view in views])
        if prompts:
            objects, warnings = self.prompted(views, embeddings, prompts)
            return assemble(views, objects, scene_support(views), self.config.refine, warnings)
        with_depth = has_depth(views)
        if self.config.proposals == "tabletop" and with_depth:
            return self._from_tabletop(views, embeddings)
        return self._automatic(views, embeddings, with_depth)

    def prompted(
        self, views: Sequence[View], embeddings: Sequence[Any], prompts: Sequence[Prompt]
    ) -> tuple[list[FoundObject], list[str]]:
        """One object for each box or point prompt, in all views, and warnings; see `__call__`."""
        names = [view.name for view in views]
        first: Masks = [[None] * len(views) for _ in prompts]
        scores = np.zeros(len(prompts))
        for view, name in enumerate(names):
            here = [(n, p) for n, p in enumerate(prompts) if not isinstance(p, TextPrompt) and p.view == name]
            for kind in (BoxPrompt, PointPrompt):
                rows = [(n, p) for n, p in here if isinstance(p, kind)]
                if not rows:
                    continue
                found = self.model.candidates(embeddings[view], pixel_prompts([p for _, p in rows]))
                for row, (number, prompt) in enumerate(rows):
                    best = best_answer(found.masks[row], found.scores[row], prompt)
                    first[number][view] = found.masks[row, best]
                    scores[number] = float(np.clip(found.scores[row, best], 0.0, 1.0))
        masks, warnings = self.carried(views, embeddings, first)
        objects = [
            FoundObject(_label(prompt), float(score), row)
            for prompt, score, row in zip(prompts, scores, masks, strict=True)
        ]
        return objects, warnings

    def carried(
        self, views: Sequence[View], embeddings: Sequence[Any], known: Masks
    ) -> tuple[list[list[BoolArray]], list[str]]:
        """Masks [object][view] that are `known` in some views carried to the others, and warnings."""
        if len(views) == 1 or not known:
            return [[_empty(v) if m is None else m for m, v in zip(row, views, strict=True)] for row in known], []
        if has_depth(views):
            return propagate(self.model, embeddings, views, known, self.config.min_agreement)
        return self._by_appearance(views, embeddings, known)

    def _from_tabletop(self, views: Sequence[View], embeddings: Sequence[Any]) -> Segmentation:
        try:
            clusters = Tabletop(self.config.tabletop)(views)
        except InputError as error:
            # Not every scene has a table; the network can look for objects by itself.
            found = self._automatic(views, embeddings, with_depth=True)
            return replace(found, warnings=(f"{error}; the network's automatic masks are used", *found.warnings))
        warnings = list(clusters.warnings)
        masks: list[list[BoolArray]] = [list(item.visible_masks) for item in clusters.objects]
        for view, embedding in enumerate(embeddings):
            seen = [number for number, row in enumerate(masks) if row[view].any()]
            known = [guide(masks[number][view]) for number in seen]
            for number, choice in zip(seen, choose(self.model, embedding, known), strict=True):
                if choice.agreement >= self.config.min_agreement:
                    masks[number][view] = choice.mask
                else:
                    warnings.append(
                        f"object {number + 1} in view '{views[view].name}': no answer of the mask network agrees with "
                        f"its depth cluster (best IoU {choice.agreement:.2f}); the cluster is used"
                    )
        objects = [FoundObject(item.label, item.score, row) for item, row in zip(clusters.objects, masks, strict=True)]
        return assemble(views, objects, clusters.support, self.config.refine, warnings)

    def _automatic(self, views: Sequence[View], embeddings: Sequence[Any], with_depth: bool) -> Segmentation:
        found = [
            automatic_masks(self.model, embedding, view.color.shape[:2], self.config.automatic)
            for view, embedding in zip(views, embeddings, strict=True)
        ]
        masks: list[list[np.ndarray]] = [list(view_masks) for view_masks, _ in found]
        joined = self.join_masks(views, embeddings, masks, with_depth)
        kept = [entry for entry in joined if len(entry) >= self.config.min_views]
        objects = [
            FoundObject(
                "object",
                float(np.mean([np.clip(found[view][1][index], 0.0, 1.0) for view, index in entry.items()])),
                [masks[v][entry[v]] if v in entry else _empty(view) for v, view in enumerate(views)],
            )
            for entry in kept
        ]
        warnings = [] if objects else [f"{self.name}: the network found no mask that it is sure enough of"]
        return assemble(views, objects, scene_support(views), self.config.refine, warnings)

    def join_masks(
        self,
        views: Sequence[View],
        embeddings: Sequence[Any],
        masks: Sequence[Sequence[np.ndarray]],
        with_depth: bool,
    ) -> list[dict[int, int]]:
        """Masks of single views joined to objects: for each the index of its mask by view."""
        counts = [len(view_masks) for view_masks in masks]
        if with_depth:
            return join(counts, geometric_similarity(views, masks), self.config.min_join_iou)
        descriptors = [
            mask_descriptors(self.model.features(embedding), view_masks)
            for embedding, view_masks in zip(embeddings, masks, strict=True)
        ]
        return join(counts, appearance_similarity(descriptors), self.config.min_join_cosine)

    def _by_appearance(
        self, views: Sequence[View], embeddings: Sequence[Any], first: Sequence[Sequence[BoolArray | None]]
    ) -> tuple[list[list[BoolArray]], list[str]]:
        """Prompted masks joined with the automatic masks of the other views."""
        masks: list[list[np.ndarray]] = []
        prompted_at: dict[tuple[int, int], int] = {}
        for view, embedding in enumerate(embeddings):
            own = [(number, mask) for number, row in enumerate(first) if (mask := row[view]) is not None]
            others, _ = automatic_masks(self.model, embedding, views[view].color.shape[:2], self.config.automatic)
            prompted_at |= {(view, index): number for index, (number, _) in enumerate(own)}
            masks.append([mask for _, mask in own] + list(others))
        out = [[_empty(view) for view in views] for _ in first]
        for entry in self.join_masks(views, embeddings, masks, with_depth=False):
            numbers = [prompted_at[key] for key in entry.items() if key in prompted_at]
            # Two prompts are two objects, whatever they look like.
            for number in numbers:
                for view, index in entry.items():
                    if (view, index) not in prompted_at or prompted_at[view, index] == number:
                        out[number][view] = masks[view][index]
        return out, ["views without depth: objects were matched across views by their looks"]


def pixel_prompts(prompts: Sequence[Prompt]) -> PixelPrompts:
    """Prompts of one kind, boxes or points, of one view."""
    if all(isinstance(prompt, BoxPrompt) for prompt in prompts):
        return PixelPrompts(np.array([p.box_xyxy for p in prompts if isinstance(p, BoxPrompt)], np.float32))
    clicks = [prompt for prompt in prompts if isinstance(prompt, PointPrompt)]
    longest = max(len(prompt.points_xy) for prompt in clicks)
    points = np.zeros((len(clicks), longest, 2), np.float32)
    labels = np.full((len(clicks), longest), PADDING, np.int32)
    for row, prompt in enumerate(clicks):
        points[row, : len(prompt.points_xy)] = prompt.points_xy
        labels[row, : len(prompt.points_xy)] = prompt.on_object
    return PixelPrompts(points_xy=points, labels=labels)


def check_prompts(views: Sequence[View], prompts: Sequence[Prompt], kinds: frozenset[type], name: str) -> None:
    """Raise `InputError` without views, for prompts in unknown views, or of kinds that the segmenter does not take."""
    if not views:
        raise InputError("no views to segment")
    sizes = {view.name: view.color.shape[:2] for view in views}
    for prompt in prompts:
        if type(prompt) not in kinds:
            takes = ", ".join(sorted(PROMPT_NAMES[kind] for kind in kinds))
            raise InputError(f"segmenter '{name}' takes {takes}, not {PROMPT_NAMES[type(prompt)]}")
        if isinstance(prompt, TextPrompt):
            continue
        if prompt.view not in sizes:
            raise InputError(
                f"{PROMPT_NAMES[type(prompt)]} name view '{prompt.view}', which is not among {list(sizes)}"
            )
        if not _in_image(prompt, sizes[prompt.view]):
            height, width = sizes[prompt.view]
            raise InputError(f"{prompt} does not lie in its image of {width}x{height} pixels")


PROMPT_NAMES = {BoxPrompt: "boxes", PointPrompt: "points", TextPrompt: "texts"}


def _in_image(prompt: BoxPrompt | PointPrompt, shape: tuple[int, ...]) -> bool:
    """Whether a box has area in the image, or all points lie in it."""
    height, width = shape
    if isinstance(prompt, PointPrompt):
        return all(-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5 for x, y in prompt.points_xy)
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    return max(x_min, 0.0) < min(x_max, width - 1.0) and max(y_min, 0.0) < min(y_max, height - 1.0)


def has_depth(views: Sequence[View]) -> bool:
    """Whether every view has depth somewhere."""
    return all(view.depth_m is not None and bool(np.isfinite(view.depth_m).any()) for view in views)


def best_answer(masks: np.ndarray, scores: np.ndarray, prompt: Prompt) -> int:
    """Which of the M answers (M, H, W) to take: the network's favourite, weighed down by what lies outside a box."""
    if not isinstance(prompt, BoxPrompt):
        return int(scores.argmax())
    x_min, y_min, x_max, y_max = prompt.box_xyxy
    rows, cols = np.arange(masks.shape[1])[:, None], np.arange(masks.shape[2])[None, :]
    inside = (rows >= y_min) & (rows <= y_max) & (cols >= x_min) & (cols <= x_max)
    share = (masks & inside).sum((1, 2)) / np.maximum(masks.sum((1, 2)), 1)
    return int((scores * share).argmax())


def _label(prompt: Prompt) -> str:
    return prompt.text if isinstance(prompt, TextPrompt) else prompt.label or "object"


def _empty(view: View) -> BoolArray:
    return np.zeros(view.color.shape[:2], dtype=bool)
