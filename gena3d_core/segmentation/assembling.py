"""From masks that a network gave to a `Segmentation`: refined, without overlaps, with the support plane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..types import BoolArray, ObjectMask, Segmentation, SupportPlane, View
from .depth_edges import refine_to_depth_edges
from .support import find_support_planes, surface_of

MAX_TILT_DEG = 10.0
MIN_PIXELS = 30
"""Masks of fewer pixels in a view are dropped there."""


@dataclass(frozen=True, eq=False)
class FoundObject:
    """One object before it is finished: what it is called, how sure, and its mask (H, W) in each view."""

    label: str
    score: float
    masks: Sequence[BoolArray]


def assemble(
    views: Sequence[View],
    objects: Sequence[FoundObject],
    support: SupportPlane | None,
    refine: bool,
    warnings: Sequence[str] = (),
) -> Segmentation:
    """The finished segmentation; ids follow `objects`, from 1. Objects that nothing is left of are named in warnings.

    A pixel that several objects claim goes to the one with the fewest pixels in that view: of nested masks the inner
    one is the object in front.
    """
    problems = list(warnings)
    claimed: list[list[BoolArray]] = [
        [
            refine_to_depth_edges(mask, view.depth_m) if refine and view.depth_m is not None else mask
            for mask, view in zip(item.masks, views, strict=True)
        ]
        for item in objects
    ]
    for index in range(len(views)):
        for number, mask in enumerate(without_overlaps([row[index] for row in claimed])):
            claimed[number][index] = mask if mask.sum() >= MIN_PIXELS else np.zeros_like(mask)
    found = []
    for number, (item, row) in enumerate(zip(objects, claimed, strict=True), start=1):
        if not any(mask.any() for mask in row):
            problems.append(f"object {number} ('{item.label}') has no pixels in any view; it was left out")
            continue
        found.append(ObjectMask(number, item.label, float(np.clip(item.score, 0.0, 1.0)), tuple(row)))
    return Segmentation(tuple(found), support, tuple(problems))


def without_overlaps(masks: Sequence[BoolArray]) -> list[BoolArray]:
    """The masks (H, W) with each shared pixel left to the smallest that claims it."""
    if not masks:
        return []
    order = np.argsort([-int(mask.sum()) for mask in masks], kind="stable")
    owner = np.full(masks[0].shape, -1, dtype=np.int32)
    for number in order:
        owner[masks[number]] = number
    return [owner == number for number in range(len(masks))]


def scene_support(views: Sequence[View]) -> SupportPlane | None:
    """The level plane that the views look at; None without depth or without such a plane."""
    surfaces = [surface_of(v) for v in views if v.depth_m is not None and np.isfinite(v.depth_m).any()]
    planes = find_support_planes(surfaces, MAX_TILT_DEG) if surfaces else []
    return planes[0].plane if planes else None
