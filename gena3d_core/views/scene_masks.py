"""Masks of a scene's objects as people and networks make them, made fit for a `SceneObservation`, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import InputError
from ..types import BoolArray, SceneObservation, UInt8Array, require_shape
from .scene_images import MAX_ASSETS

MIN_PIXELS = 16
"""With fewer visible pixels in all images together an object is as good as hidden."""
TOLD_OVERLAP = 0.02
"""Overlaps of masks by a larger share of the smaller one are told."""


@dataclass(frozen=True, eq=False)
class CheckedScene:
    """A scene fit to be generated, and what was done to its masks."""

    scene: SceneObservation
    warnings: tuple[str, ...]


def checked_scene(
    ids: Sequence[int], labels: Sequence[str], images: Sequence[UInt8Array], masks: Sequence[np.ndarray]
) -> CheckedScene:
    """A scene of the objects that are seen; masks[k] (N, H, W) bool beside images[k] (H, W, 3).

    Pixels of several masks go to the smallest of them, which lies on top as a rule. Objects with hardly a pixel are
    left out. Both is told. Raises `InputError` if no object is left, for too many, or for masks of another size.
    """
    if not ids:
        raise InputError("a scene needs at least one mask: put mask_00.png, mask_01.png, ... beside the picture")
    if len(ids) > MAX_ASSETS:
        raise InputError(f"{len(ids)} masks are more than the {MAX_ASSETS} that a scene can have")
    names = [f"object {id} ('{label}')" if label else f"object {id}" for id, label in zip(ids, labels, strict=True)]
    warnings: list[str] = []
    disjoint = []
    for number, (image, own) in enumerate(zip(images, masks, strict=True)):
        require_shape(f"masks of image {number}", own, (len(ids), *image.shape[:2]))
        disjoint.append(_without_overlap(np.asarray(own, dtype=bool), names, warnings))
    pixels = np.sum([own.sum(axis=(1, 2)) for own in disjoint], axis=0)
    given = np.sum([np.asarray(own, dtype=bool).sum(axis=(1, 2)) for own in masks], axis=0)
    kept = np.flatnonzero(pixels >= MIN_PIXELS).tolist()
    for n in np.flatnonzero(pixels < MIN_PIXELS).tolist():
        if given[n] == 0:
            why = "its mask is empty"
        elif pixels[n] < given[n]:
            why = f"other masks cover all but {pixels[n]} of its {given[n]} pixels"
        else:
            why = f"its mask has only {given[n]} pixels"
        warnings.append(f"{names[n]} is left out: {why}")
    if not len(kept):
        raise InputError(f"no object of the scene is to be seen: none of {len(ids)} masks has {MIN_PIXELS} pixels")
    if len(kept) == 1:
        warnings.append(f"{names[kept[0]]} is the only one: a layout needs at least two objects")
    scene = SceneObservation(
        tuple(int(ids[n]) for n in kept),
        tuple(str(labels[n]) for n in kept),
        tuple(images),
        tuple(own[kept] for own in disjoint),
    )
    return CheckedScene(scene, tuple(warnings))


def _without_overlap(masks: BoolArray, names: Sequence[str], warnings: list[str]) -> BoolArray:
    """Masks (N, H, W) in which every pixel belongs to one object at most: the smallest, the first of equals."""
    sizes = masks.sum(axis=(1, 2))
    # The smallest come last and overwrite; of equals the first comes last.
    order = np.array(sorted(range(len(masks)), key=lambda n: (-sizes[n], -n)))
    owner = np.full(masks.shape[1:], -1, dtype=np.int64)
    for n in order:
        owner[masks[n]] = n
    found: BoolArray = owner[None] == np.arange(len(masks))[:, None, None]
    disputed = masks.sum(axis=0, dtype=np.int16) > 1
    if disputed.any():
        flat = masks[:, disputed].astype(np.float64)
        shared = flat @ flat.T
        for i, j in combinations(range(len(masks)), 2):
            smaller = min(sizes[i], sizes[j])
            if smaller and shared[i, j] > TOLD_OVERLAP * smaller:
                share = 100.0 * shared[i, j] / smaller
                warnings.append(
                    f"the masks of {names[i]} and {names[j]} overlap by {share:.0f} % of the smaller one, which keeps "
                    "the pixels"
                )
    return found
