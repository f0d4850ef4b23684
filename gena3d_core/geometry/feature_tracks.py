"""Points of the scene followed through several views by SIFT features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ..types import BoolArray, Float32Array, Float64Array, View
from . import transforms

MAX_FEATURES = 2500
MAX_RATIO = 0.85
"""Greatest distance of the best match relative to the second best (Lowe's ratio test)."""
POSE_TOLERANCE_PX = 25.0
"""Distance from the epipolar line of the given poses beyond which a match cannot be explained by pose error."""
RANSAC_PX = 1.5
MIN_PAIR_MATCHES = 15
PARTNERS = 7
"""Views that each view is matched with, nearest in viewing direction and place first."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """M observations of N points: view and track index (M,) int64 each, pixels (M, 2) float64 as (u, v)."""

    view: np.ndarray
    track: np.ndarray
    pixels: Float64Array
    count: int


def find_tracks(views: Sequence[View]) -> Tracks:
    """Points seen in at least two of the views; a point is seen at most once a view. Poses only gate the matches."""
    features = [_features(view) for view in views]
    first = np.cumsum([0] + [len(pixels) for pixels, _ in features])
    links = []
    for i, j in _pairs(views):
        a, b = _match(features[i][1], features[j][1])
        keep = _verify(views[i], views[j], features[i][0][a], features[j][0][b])
        links.append(np.stack([first[i] + a[keep], first[j] + b[keep]]))
    ends = np.concatenate(links, axis=1) if links else np.zeros((2, 0), dtype=np.int64)
    total = int(first[-1])
    graph = coo_matrix((np.ones(ends.shape[1], dtype=bool), (ends[0], ends[1])), shape=(total, total))
    _, component = connected_components(graph, directed=False)

    node = np.unique(ends)
    view = np.searchsorted(first, node, side="right") - 1
    track = component[node]
    size = np.bincount(track, minlength=1)
    # A track with two features in one view mixes two points.
    key = np.unique(track.astype(np.int64) * len(views) + view)
    distinct = np.bincount(key // len(views), minlength=len(size))
    clean = (size == distinct)[track]
    node, view = node[clean], view[clean]
    unique, track = np.unique(track[clean], return_inverse=True)
    pixels = np.concatenate([p for p, _ in features]) if total else np.zeros((0, 2))
    return Tracks(view.astype(np.int64), track.astype(np.int64).reshape(-1), pixels[node], len(unique))


def _features(view: View) -> tuple[Float64Array, Float32Array]:
    """Pixels (F, 2) and root-normalised descriptors (F, 128)."""
    gray = cv2.cvtColor(view.color, cv2.COLOR_RGB2GRAY)
    sift = cv2.SIFT_create(nfeatures=MAX_FEATURES, contrastThreshold=0.02)  # type: ignore[attr-defined]
    keypoints, descriptors = sift.detectAndCompute(gray, None)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), dtype=np.float32)
    pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)
    descriptors = np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6))
    return pixels, descriptors.astype(np.float32)


def _pairs(views: Sequence[View]) -> list[tuple[int, int]]:
    """Pairs of views to match: all of a few views, else each with its nearest in place and direction."""
    centers = np.stack([view.T_world_camera[:3, 3] for view in views])
    forward = np.stack([view.T_world_camera[:3, 2] for view in views])
    distance = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
    cosine = forward @ forward.T
    cost = distance / max(float(np.median(distance)), 1e-9) + 2.0 * (1.0 - cosine)
    np.fill_diagonal(cost, np.inf)
    nearest = np.argsort(cost, axis=1, kind="stable")[:, : min(PARTNERS, len(views) - 1)]
    pairs = {(min(i, int(j)), max(i, int(j))) for i, row in enumerate(nearest) for j in row if cosine[i, j] > 0.3}
    return sorted(pairs)


def _match(one: Float32Array, other: Float32Array) -> tuple[np.ndarray, np.ndarray]:
    """Indices of mutually nearest descriptors that pass the ratio test."""
    if len(one) < 2 or len(other) < 2:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    similarity = one @ other.T
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    index = np.arange(len(one))
    best = similarity[index, forth]
    similarity[index, forth] = -np.inf
    second = similarity.max(axis=1)
    distinct = (1.0 - best) < MAX_RATIO**2 * (1.0 - second)
    mutual = back[forth] == index
    keep = np.flatnonzero(mutual & distinct)
    return keep, forth[keep]


def _verify(one: View, other: View, pixels_one: Float64Array, pixels_other: Float64Array) -> BoolArray:
    """(m,) matches that fit the given poses loosely and one epipolar geometry tightly."""
    K_one, K_other = one.intrinsics.matrix, other.intrinsics.matrix
    rays_one = np.column_stack([pixels_one, np.ones(len(pixels_one))]) @ np.linalg.inv(K_one).T
    rays_other = np.column_stack([pixels_other, np.ones(len(pixels_other))]) @ np.linalg.inv(K_other).T
    T = transforms.inverse(other.T_world_camera) @ one.T_world_camera
    x, y, z = T[:3, 3]
    E = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3]
    line = rays_one @ E.T
    focal = float(np.sqrt(one.intrinsics.fx * other.intrinsics.fx))
    distance_px = np.abs((rays_other * line).sum(axis=1)) / (np.linalg.norm(line[:, :2], axis=1) + 1e-12) * focal
    good = distance_px < POSE_TOLERANCE_PX
    if good.sum() < MIN_PAIR_MATCHES:
        return np.zeros(len(good), dtype=bool)
    _, mask = cv2.findEssentialMat(
        rays_one[good, :2], rays_other[good, :2], np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=RANSAC_PX / focal
    )
    inlier = np.zeros(len(good), dtype=bool)
    if mask is not None and mask.sum() >= MIN_PAIR_MATCHES:
        inlier[np.flatnonzero(good)[mask.ravel() > 0]] = True
    return inlier
