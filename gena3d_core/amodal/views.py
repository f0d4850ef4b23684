"""From objects in views to what the open-world procedure takes, and from its completions back to observations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..types import BoolArray, ObjectObservation, View
from .open_world import Completion, HiddenObject
from .order import hiding_order, in_front

MIN_VISIBLE_PIXELS = 50
"""Of an object that shows less, a network cannot tell what it is."""


def hidden_objects(
    observations: Sequence[ObjectObservation], view: int, seed: int, prompt: str
) -> dict[int, HiddenObject]:
    """Number of each observation that view number `view` shows well enough -> what may hide it there.

    prompt: with `{label}` for the object's label. Seeds depend on `seed`, the object's id and the view alone.
    """
    masks = [observation.visible_masks[view] for observation in observations]
    shown = [number for number, mask in enumerate(masks) if mask.any()]
    if not shown:
        return {}
    # Objects of one scene share pictures and depth; only their poses may differ.
    depth_m = observations[0].views[view].depth_m
    order = hiding_order([masks[number] for number in shown], depth_m)
    found = {}
    for place, number in enumerate(shown):
        observation = observations[number]
        if masks[number].sum() < MIN_VISIBLE_PIXELS:
            continue
        front = in_front(order, [masks[n] for n in shown], depth_m, place)
        occluders = [masks[shown[n]] for n in front]
        found[number] = HiddenObject(
            color=observation.views[view].color,
            visible=masks[number],
            occluders=np.stack(occluders) if occluders else np.zeros((0, *masks[number].shape), dtype=bool),
            occlusion=observation.occlusion_masks[view],
            prompt=prompt.format(label=observation.label or "object"),
            seed=int(np.random.SeedSequence([seed, abs(observation.id), view]).generate_state(1)[0] >> 1),
        )
    return found


def with_completions(observation: ObjectObservation, completions: Mapping[int, Completion]) -> ObjectObservation:
    """The observation with the pictures of completed views, by number of the view; the others stay.

    Where the image's edge cut the object off, a view becomes larger: its principal point moves, its masks and depth
    are padded (False, NaN). What was completed counts as occluded too. Depth and points stay what was measured.
    """
    if not any(completion.completed.any() for completion in completions.values()):
        return observation
    views, visible, occluded, completed = [], [], [], []
    for number, view in enumerate(observation.views):
        masks = observation.visible_masks[number], observation.occlusion_masks[number]
        found = completions.get(number)
        if found is None:
            views.append(view)
            visible.append(masks[0])
            occluded.append(masks[1])
            completed.append(np.zeros_like(masks[0]))
            continue
        views.append(extended_view(view, found))
        visible.append(_placed(masks[0], found, False))
        occluded.append(_placed(masks[1], found, False) | found.completed)
        completed.append(found.completed)
    return replace(
        observation,
        views=tuple(views),
        visible_masks=tuple(visible),
        occlusion_masks=tuple(occluded),
        completed_masks=tuple(completed),
    )


def extended_view(view: View, completion: Completion) -> View:
    """The view with the completion's picture, and intrinsics to match."""
    height, width = completion.completed.shape
    x, y = completion.origin_xy
    lens = view.intrinsics
    depth_m, confidence = view.depth_m, view.depth_confidence
    return replace(
        view,
        color=completion.picture,
        intrinsics=replace(lens, width=width, height=height, cx=lens.cx + x, cy=lens.cy + y),
        depth_m=None if depth_m is None else _placed(depth_m, completion, np.float32(np.nan)),
        depth_confidence=None if confidence is None else _placed(confidence, completion, np.float32(0.0)),
    )


def _placed(array: np.ndarray, completion: Completion, fill: object) -> np.ndarray:
    x, y = completion.origin_xy
    out = np.full(completion.completed.shape, fill, dtype=array.dtype)
    out[y : y + array.shape[0], x : x + array.shape[1]] = array
    return out


def amodal_mask(observation: ObjectObservation, view: int) -> BoolArray:
    """(H, W) bool: the whole object in a view, as seen and as completed."""
    visible = observation.visible_masks[view]
    return visible if observation.completed_masks is None else visible | observation.completed_masks[view]
