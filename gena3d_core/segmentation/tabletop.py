"""Objects on a support plane, found by geometry alone: no weights needed.

The largest level surface that the views look at is the support; what rises above it is gathered in a top-down map,
split along its valleys, and accepted as an object when the support is seen around its foot. The regions of the map
are shared by all views, which keeps ids consistent; each view's pixels fall into them by their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..types import (
    BoxPrompt,
    Int32Array,
    ObjectMask,
    PointPrompt,
    Prompt,
    Segmentation,
    SupportPlane,
    TextPrompt,
    View,
)
from . import acceptance, height_map, masks, merging, prompting, support


@dataclass(frozen=True)
class TabletopConfig:
    """Thresholds of the tabletop segmenter, in metres unless said."""

    min_height_m: float = 0.010
    """Lowest pixels that count as above the plane, where noise allows it."""
    max_height_m: float = 0.6
    noise_sigmas: float = 4.0
    """A pixel is above the plane when it is so many deviations of its height above it."""
    cell_m: float = 0.006
    """Side of the cells of the top-down map."""
    join_m: float = 0.012
    """Gaps up to this are bridged inside one object; nearer objects may merge when no valley parts them."""
    max_tilt_deg: float = 10.0
    """Largest angle between the support's normal and the world's z axis."""
    max_bias_m: float = 0.02
    """Largest offset between one view's plane and the common one."""
    max_bias_deg: float = 2.0
    min_score: float = 0.15
    """Objects with a lower score are left out."""
    merge: merging.MergeConfig = field(default_factory=merging.MergeConfig)
    accept: acceptance.AcceptanceConfig = field(default_factory=acceptance.AcceptanceConfig)


@dataclass(frozen=True, eq=False)
class _Split:
    """What one candidate plane carries: the map, its regions (I, J), the regions of the pixels of each view."""

    plane: SupportPlane
    grid: height_map.HeightMap
    heights: list[support.Heights]
    regions: Int32Array
    labels: list[Int32Array]
    scores: np.ndarray


class Tabletop:
    """`Segmenter` of objects on a level support plane; the world's z axis must point up. Takes boxes and points."""

    prompt_kinds: frozenset[type] = frozenset({BoxPrompt, PointPrompt})

    def __init__(self, config: TabletopConfig | None = None) -> None:
        self.config = config or TabletopConfig()
        if not 0.0 < self.config.min_height_m < self.config.max_height_m:
            raise InputError("tabletop: heights must satisfy 0 < min_height_m < max_height_m")

    def __call__(self, views: Sequence[View], prompts: Sequence[Prompt] = ()) -> Segmentation:
        """Objects on the support plane, the one seen in most pixels first; ids count from 1.

        Views need depth. With `prompts`, one object for each box or point, in their order; prompts without an object
        give a warning. Raises `InputError` without views, depth, or any level surface. An empty table is a result
        without objects, with a warning.
        """
        if not views:
            raise InputError("no views to segment")
        names = [view.name for view in views]
        given = [prompt for prompt in prompts if not isinstance(prompt, TextPrompt)]
        if len(given) != len(prompts):
            raise InputError("segmenter 'tabletop' takes boxes and points, not texts")
        for prompt in given:
            if prompt.view not in names:
                raise InputError(f"a prompt names view '{prompt.view}', which is not among {names}")
        surfaces = [support.surface_of(view) for view in views]
        candidates = support.find_support_planes(surfaces, self.config.max_tilt_deg)
        if not candidates:
            raise InputError(
                f"no support plane: the {len(views)} views show no level surface (within {self.config.max_tilt_deg:g} "
                "degrees of level) below the cameras; check that world z points up and that the table is in view"
            )
        split = self._choose(surfaces, [c.plane for c in candidates if c.weight > 0.25 * candidates[0].weight])
        if split is None:
            return Segmentation((), candidates[0].plane, ("the support plane is too small to carry objects",))
        if given:
            return prompting.prompted(views, surfaces, split.heights, split.grid, split.regions, given, split.plane)
        keep = np.flatnonzero(split.scores >= self.config.min_score)
        if not len(keep):
            return Segmentation((), split.plane, ("nothing stands on the support plane: no objects found",))
        labels = finish_labels(split.labels, split.regions, split.grid.frame, surfaces, split.heights)
        sizes = sum(np.bincount(image.ravel(), minlength=len(split.scores)) for image in labels)
        order = keep[np.argsort(-np.asarray(sizes)[keep], kind="stable")]
        objects = tuple(
            ObjectMask(number, "object", float(split.scores[region]), tuple(image == region for image in labels))
            for number, region in enumerate(order, start=1)
        )
        return Segmentation(objects, split.plane)

    def _choose(self, surfaces: list[support.Surface], planes: list[SupportPlane]) -> _Split | None:
        """The best plane that carries objects, else the best plane."""
        first = None
        for plane in planes:
            split = self._split(surfaces, plane)
            if split is not None and (split.scores >= self.config.min_score).any():
                return split
            first = first or split
        return first

    def _split(self, surfaces: list[support.Surface], plane: SupportPlane) -> _Split | None:
        config = self.config
        heights = [support.heights_above(s, plane, config.max_bias_m, config.max_bias_deg) for s in surfaces]
        frame = height_map.frame_of(surfaces, heights, plane, config.cell_m)
        if frame is None:
            return None
        above = [
            height_map.object_pixels(h, config.min_height_m, config.max_height_m, config.noise_sigmas) for h in heights
        ]
        grid = height_map.build_height_map(frame, plane, surfaces, heights, above)
        regions = height_map.split_regions(grid, config.join_m, config.merge.prominence, 0.012)
        labels = [masks.pixel_labels(regions, frame, s, a) for s, a in zip(surfaces, above, strict=True)]
        relabel = merging.merge_regions(labels, surfaces, heights, config.merge)
        regions, labels = relabel[regions], [relabel[image] for image in labels]
        facts = acceptance.measure(regions, grid, labels, surfaces, heights, config.accept)
        return _Split(plane, grid, heights, regions, labels, acceptance.scores(facts, config.accept))


def finish_labels(
    labels: Sequence[Int32Array],
    regions: Int32Array,
    frame: height_map.Frame2D,
    surfaces: Sequence[support.Surface],
    heights: Sequence[support.Heights],
) -> list[Int32Array]:
    """The labels (H, W) of each view extended to the feet of the objects and to the outlines."""
    finished = []
    for image, surface, height in zip(labels, surfaces, heights, strict=True):
        footed = masks.foot_pixels(image, regions, frame, surface, height)
        finished.append(masks.fill_to_edges(footed, surface))
    return finished
