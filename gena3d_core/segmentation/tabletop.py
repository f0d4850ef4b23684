"""INTERIM first version by the lead so that others can run end to end; the owner of segmentation/ replaces it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..geometry import camera
from ..types import BoxPrompt, ObjectMask, Segmentation, SupportPlane, View


@dataclass(frozen=True)
class TabletopConfig:
    min_height_m: float = 0.012
    max_height_m: float = 0.5
    voxel_m: float = 0.01
    min_pixels: int = 150


class Tabletop:
    def __init__(self, config: TabletopConfig | None = None) -> None:
        self.config = config or TabletopConfig()

    def __call__(self, views: Sequence[View], prompts: Sequence[BoxPrompt] = ()) -> Segmentation:
        c = self.config
        worlds = [camera.world_points(v) for v in views]
        pts = np.concatenate([w[np.isfinite(w[..., 2])][::7] for w in worlds])
        if len(pts) < 500:
            raise InputError("no depth to find a support plane in")
        hist, edges = np.histogram(pts[:, 2], bins=np.arange(pts[:, 2].min(), pts[:, 2].max() + 0.01, 0.005))
        best = hist.argmax()
        z = float(np.median(pts[np.abs(pts[:, 2] - edges[best]) < 0.015, 2]))
        plane = SupportPlane(np.array([0.0, 0.0, 1.0]), -z)
        table = pts[np.abs(pts[:, 2] - z) < 0.01]
        low, high = np.percentile(table[:, :2], [1, 99], axis=0)
        masks = []
        for w in worlds:
            with np.errstate(invalid="ignore"):
                h = w[..., 2] - z
                masks.append(
                    (h > c.min_height_m) & (h < c.max_height_m)
                    & (w[..., :2] > low).all(-1) & (w[..., :2] < high).all(-1)
                )
        cells = [np.floor(w[m] / c.voxel_m).astype(int) for w, m in zip(worlds, masks, strict=True)]
        every = np.concatenate(cells)
        if not len(every):
            return Segmentation((), plane, ("nothing stands on the support plane",))
        origin = every.min(0) - 1
        grid = np.zeros(every.max(0) - origin + 2, bool)
        grid[tuple((every - origin).T)] = True
        labels, count = ndimage.label(grid, np.ones((3, 3, 3)))
        sizes = np.bincount(labels[tuple((every - origin).T)], minlength=count + 1)
        objects = []
        for k in np.argsort(-sizes[1:]) + 1:
            if sizes[k] < c.min_pixels:
                break
            visible = []
            for m, cell in zip(masks, cells, strict=True):
                mask = np.zeros_like(m)
                mask[m] = labels[tuple((cell - origin).T)] == k
                visible.append(mask)
            objects.append(ObjectMask(len(objects) + 1, "", 0.5, tuple(visible)))
        if prompts:
            chosen = []
            names = [v.name for v in views]
            for p in prompts:
                x0, y0, x1, y1 = (round(x) for x in p.box_xyxy)
                i = names.index(p.view)
                inside = [o.visible_masks[i][y0 : y1 + 1, x0 : x1 + 1].sum() for o in objects]
                if inside and max(inside):
                    o = objects[int(np.argmax(inside))]
                    chosen.append(ObjectMask(o.id, p.label, o.score, o.visible_masks))
            objects = chosen
        return Segmentation(tuple(objects), plane)
