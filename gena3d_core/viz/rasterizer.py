"""Z-buffered triangles in numpy: which face each pixel sees. No GPU, no window, any machine."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..types import Float32Array, Int32Array

CHUNK = 2_000_000
"""Pixels tested at a time, which bounds the memory."""
EDGE = 1e-5
"""Slack of the inside test, so that rounding opens no gaps between neighbours."""


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


def _candidates(
    xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, width: int, height: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(face, pixel, depth) of every pixel centre inside a face, a chunk of faces at a time."""
    with np.errstate(invalid="ignore"):
        usable = (np.isfinite(xy).all(axis=1) & np.isfinite(depth) & (depth > 0))[faces].all(axis=1)
    index = np.flatnonzero(usable)
    corners = xy[faces[index]]
    low = np.clip(np.ceil(corners.min(axis=1)), 0, None).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.int64)
    columns, rows = np.maximum(high - low + 1, 0).T
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    drawn = (columns * rows > 0) & (np.abs(area) > 1e-9)
    index, low, columns, rows, a, b, area = (x[drawn] for x in (index, low, columns, rows, a, b, area))
    # Weights and inverse depth are linear in the picture: their steps per pixel, and their values at the low corner.
    inverse = 1.0 / depth[faces[index]]
    step_b = np.stack([b[:, 1], -b[:, 0]], axis=1) / area[:, None]
    step_c = np.stack([-a[:, 1], a[:, 0]], axis=1) / area[:, None]
    offset = low - corners[drawn][:, 0]
    start_b, start_c = np.einsum("fk,fk->f", step_b, offset), np.einsum("fk,fk->f", step_c, offset)
    rise_b, rise_c = inverse[:, 1] - inverse[:, 0], inverse[:, 2] - inverse[:, 0]
    first_pixel = low[:, 1] * width + low[:, 0]
    counts = columns * rows
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + CHUNK, side="right")))
        which = np.repeat(np.arange(start, stop), counts[start:stop])
        place = np.arange(len(which)) - (ends - counts - before)[which]
        y = place // columns[which]
        x = place - y * columns[which]
        x32, y32 = x.astype(np.float32), y.astype(np.float32)
        w_b = start_b[which] + step_b[which, 0] * x32 + step_b[which, 1] * y32
        w_c = start_c[which] + step_c[which, 0] * x32 + step_c[which, 1] * y32
        inside = np.flatnonzero((w_b >= -EDGE) & (w_c >= -EDGE) & (w_b + w_c <= 1 + EDGE))
        which = which[inside]
        inverse_z = inverse[which, 0] + rise_b[which] * w_b[inside] + rise_c[which] * w_c[inside]
        pixel = first_pixel[which] + y[inside] * width + x[inside]
        yield index[which], pixel, (1.0 / np.maximum(inverse_z, 1e-9)).astype(np.float32)
        start = stop


def _weights(xy: np.ndarray, depth: np.ndarray, faces: np.ndarray, nearest: np.ndarray, width: int) -> Float32Array:
    """Perspective-correct weights (P, 3) of the corners of each pixel's face; 0 where it sees none."""
    weights = np.zeros((len(nearest), 3), dtype=np.float32)
    pixel = np.flatnonzero(nearest >= 0)
    seen = faces[nearest[pixel]]
    y, x = np.divmod(pixel, width)
    ax, bx, cx = (xy[seen[:, k], 0] - x for k in range(3))
    ay, by, cy = (xy[seen[:, k], 1] - y for k in range(3))
    flat = np.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], axis=1) / depth[seen]
    flat /= flat[:, 0:1] + flat[:, 1:2] + flat[:, 2:3]
    weights[pixel] = np.clip(flat, 0.0, 1.0)
    return weights
