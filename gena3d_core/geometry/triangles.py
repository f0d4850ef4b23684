"""Distances between points and triangles."""

from __future__ import annotations

import numpy as np

from ..types import Float64Array


def distance_to_triangles(points: np.ndarray, corners: np.ndarray) -> Float64Array:
    """(...) distances from points (..., 3) to triangles with corners (..., 3, 3); shapes broadcast."""
    points = np.broadcast_to(points, (*corners.shape[:-2], 3))
    a, ab, ac = corners[..., 0, :], corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    ap = points - a
    aa, bb, cross = (np.einsum("...i,...i->...", u, v) for u, v in ((ab, ab), (ac, ac), (ab, ac)))
    pa, pb = np.einsum("...i,...i->...", ap, ab), np.einsum("...i,...i->...", ap, ac)
    area = aa * bb - cross * cross
    flat = area > 1e-12 * np.maximum(aa * bb, 1e-300)
    scale = np.divide(1.0, area, out=np.zeros_like(area), where=flat)
    v, w = (bb * pa - cross * pb) * scale, (aa * pb - cross * pa) * scale
    inside = flat & (v >= 0) & (w >= 0) & (v + w <= 1)
    squared = ((ap - v[..., None] * ab - w[..., None] * ac) ** 2).sum(axis=-1)
    edges = np.stack([_squared_to_segment(points, corners[..., k, :], corners[..., (k + 1) % 3, :]) for k in range(3)])
    return np.sqrt(np.where(inside, squared, edges.min(axis=0)))


def _squared_to_segment(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> Float64Array:
    along = end - start
    length = (along**2).sum(axis=-1)
    share = np.einsum("...i,...i->...", points - start, along)
    share = np.clip(np.divide(share, length, out=np.zeros_like(share), where=length > 0), 0.0, 1.0)
    return np.asarray(((points - start - share[..., None] * along) ** 2).sum(axis=-1))
