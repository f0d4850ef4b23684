"""Z-buffered triangles in numpy: which face each pixel sees. No GPU, no window, any machine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..types import Float32Array, Int32Array

CHUNK = 3_000_000
"""Pixels tested at a time, which bounds the memory."""


class Fragments(NamedTuple):
    """Per pixel: face (H, W) int32, -1: none; weights (H, W, 3) of its corners; depth (H, W), inf: none."""

    face: Int32Array
    weights: Float32Array
    depth: Float32Array


def rasterize(xy_px: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int) -> Fragments:
    """Nearest face at each pixel centre (integer coordinates); both sides of a face count.

    xy_px (V, 2) pixel coordinates; depth (V,) > 0 (a corner with another depth, or NaN, drops its faces); faces (F, 3).
    Weights are perspective-correct when `depth` is the distance along the optical axis.
    """
    best = np.full(width * height, np.inf, dtype=np.float32)
    hits: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for face, pixel, z in _candidates(xy_px.astype(np.float32), depth.astype(np.float32), faces, width, height):
        np.minimum.at(best, pixel, z)
        kept = z <= best[pixel]
        hits.append((face[kept], pixel[kept], z[kept]))
    nearest = np.full(width * height, -1, dtype=np.int32)
    for face, pixel, z in hits:
        won = z == best[pixel]
        nearest[pixel[won]] = face[won]
    weights = _weights(xy_px, depth, faces, nearest, width)
    shape = (height, width)
    return Fragments(nearest.reshape(shape), weights.reshape(*shape, 3), best.reshape(shape))


def _candidates(xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int):
    """Yields (face, pixel, depth) of every pixel centre inside a face, a chunk of faces at a time."""
    with np.errstate(invalid="ignore"):
        usable = (np.isfinite(xy).all(axis=1) & np.isfinite(depth) & (depth > 0))[faces].all(axis=1)
    index = np.flatnonzero(usable)
    corners = xy[faces[index]]
    low = np.clip(np.ceil(corners.min(axis=1)), 0, None).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    drawn = (extent.prod(axis=1) > 0) & (np.abs(area) > 1e-9)
    index, corners, low, extent, area = index[drawn], corners[drawn], low[drawn], extent[drawn], area[drawn]
    counts = extent.prod(axis=1)
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        which = np.repeat(np.arange(start, stop), counts[start:stop])
        place = np.arange(len(which)) - np.repeat(ends[start:stop] - counts[start:stop] - before, counts[start:stop])
        x = low[which, 0] + place % extent[which, 0]
        y = low[which, 1] + place // extent[which, 0]
        a, b, c = (corners[which, k] - np.stack([x, y], axis=1).astype(np.float32) for k in range(3))
        w = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1) / area[which, None]
        inside = (w >= -1e-6).all(axis=1)
        which, w = which[inside], w[inside]
        z = 1.0 / np.einsum("nk,nk->n", w, 1.0 / depth[faces[index[which]]])
        yield index[which], (y * width + x)[inside], z.astype(np.float32)
        start = stop


def _weights(xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, nearest: np.ndarray, width: int) -> Float32Array:
    weights = np.zeros((len(nearest), 3), dtype=np.float32)
    pixel = np.flatnonzero(nearest >= 0)
    corners = xy[faces[nearest[pixel]]]
    center = np.stack([pixel % width, pixel // width], axis=1)
    a, b, c = (corners[:, k] - center for k in range(3))
    flat = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1) / depth[faces[nearest[pixel]]]
    weights[pixel] = np.clip(flat / flat.sum(axis=1, keepdims=True), 0.0, 1.0)
    return weights


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
