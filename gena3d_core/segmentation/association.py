"""One id for one object: masks of single views joined across views, by geometry or by appearance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..types import BoolArray, Float32Array, View
from .transport import look_up

Similarity = Mapping[tuple[int, int], Float32Array]
"""(i, j), i < j, two views -> (N_i, N_j) similarity in [0, 1] of their masks."""

MIN_SHARED_PIXELS = 30


def geometric_similarity(views: Sequence[View], masks: Sequence[Sequence[np.ndarray]]) -> Similarity:
    """IoU of the masks of each two views, over the pixels that both views see; 0 where they share too few.

    masks: for each view its N_v masks (H, W) bool. Raises `InputError` for views without depth.
    """
    stacks = [_stack(view_masks, view) for view_masks, view in zip(masks, views, strict=True)]
    similarity = {}
    for i, j in combinations(range(len(views)), 2):
        shared = np.zeros((len(masks[i]), len(masks[j])))
        in_i, in_j = np.zeros(len(masks[i])), np.zeros(len(masks[j]))
        # Each view is looked up in the other: a mask that is small in one is large in the other.
        for a, b in ((i, j), (j, i)):
            lookup = look_up(views[a], views[b])
            own = stacks[a][:, lookup.seen].astype(np.float32)
            flat = stacks[b].reshape(len(stacks[b]), views[b].color[..., 0].size)
            carried = flat[:, lookup.pixel[lookup.seen]].astype(np.float32)
            overlap = own @ carried.T
            shared += overlap if a == i else overlap.T
            in_i += own.sum(1) if a == i else carried.sum(1)
            in_j += carried.sum(1) if a == i else own.sum(1)
        union = in_i[:, None] + in_j[None, :] - shared
        iou = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
        similarity[i, j] = np.where(shared >= MIN_SHARED_PIXELS, iou, 0.0).astype(np.float32)
    return similarity


def _stack(masks: Sequence[np.ndarray], view: View) -> BoolArray:
    return np.stack(masks) if len(masks) else np.zeros((0, *view.color.shape[:2]), dtype=bool)


def mask_descriptors(features: Tensor, masks: Sequence[np.ndarray]) -> Float32Array:
    """(N, C) unit vectors: the mean over each mask (H, W) of a feature map (C, h, w) that covers the image.

    The map's own mean is taken off first: what all of the picture has in common tells nothing apart.
    """
    features = features.float()
    channels, height, width = features.shape
    if not len(masks):
        return np.zeros((0, channels), dtype=np.float32)
    stack = torch.from_numpy(np.stack(masks)).to(features.device).float()[None]
    weights = functional.interpolate(stack, (height, width), mode="area")[0].reshape(len(masks), -1)
    flat = features.reshape(channels, -1)
    flat = flat - flat.mean(1, keepdim=True)
    pooled = (weights @ flat.T) / weights.sum(1, keepdim=True).clamp(min=1e-6)
    return functional.normalize(pooled, dim=1).cpu().numpy()


def appearance_similarity(descriptors: Sequence[np.ndarray]) -> Similarity:
    """Cosine, floored at 0, of the descriptors (N_v, C) of each two views."""
    return {
        (i, j): np.clip(descriptors[i] @ descriptors[j].T, 0.0, 1.0).astype(np.float32)
        for i, j in combinations(range(len(descriptors)), 2)
    }


def join(counts: Sequence[int], similarity: Similarity, threshold: float) -> list[dict[int, int]]:
    """Masks joined to objects: for each object the index of its mask by view, at most one a view.

    counts: masks in each view. Pairs join in the order of their similarity, down to `threshold`; a pair that would
    give an object two masks in one view is passed over. Every mask belongs to one object; objects in the order of
    their first mask.
    """
    objects: list[dict[int, int]] = [{view: index} for view, count in enumerate(counts) for index in range(count)]
    owner = {(view, index): number for number, entry in enumerate(objects) for view, index in entry.items()}
    pairs = [
        (float(matrix[a, b]), (i, int(a)), (j, int(b)))
        for (i, j), matrix in similarity.items()
        for a, b in np.argwhere(matrix >= threshold)
    ]
    for _, one, other in sorted(pairs, key=lambda pair: -pair[0]):
        first, second = sorted((owner[one], owner[other]))
        if first == second or objects[first].keys() & objects[second].keys():
            continue
        for key in objects[second].items():
            owner[key] = first
        objects[first] |= objects[second]
        objects[second] = {}
    return [entry for entry in objects if entry]
