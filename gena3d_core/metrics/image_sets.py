"""Sets of pictures: Fréchet and kernel Inception distance, similarity of pairs by embedding, perceptual distance.

Sources: Heusel et al. 2017 (FID), Bińkowski et al. 2018 (KID), Radford et al. 2021 (CLIP), Zhang et al. 2018 (LPIPS).
The networks are the user's own files: see `image_networks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import linalg

from ..errors import InputError
from ..types import Float64Array, UInt8Array, require_shape

KID_SUBSETS, KID_SUBSET_SIZE = 100, 1000


class ImageFeatures(Protocol):
    """Pictures (N, H, W, 3) uint8 to features (N, D) float64."""

    def __call__(self, pictures: UInt8Array) -> Float64Array: ...


class PictureDistance(Protocol):
    """Distances (N,) of pairs of pictures (N, H, W, 3) uint8."""

    def __call__(self, pictures: UInt8Array, references: UInt8Array) -> Float64Array: ...


class CoherenceJudge(Protocol):
    """Score in [0, 100] of the pictures (8, H, W, 3) uint8 of one object (GENA3D's perceptual coherence score)."""

    def __call__(self, pictures: UInt8Array) -> float: ...


@dataclass(frozen=True)
class ImageNetworks:
    """What the user has weights for; None leaves a figure out."""

    inception: ImageFeatures | None = None
    clip: ImageFeatures | None = None
    lpips: PictureDistance | None = None
    judge: CoherenceJudge | None = None
    dino: ImageFeatures | None = None


@dataclass(frozen=True, eq=False)
class PictureFigures:
    """What the networks say of the pictures of one object; None where there is no network.

    features, reference_features  (8, D) for FID and KID
    clip, dino  mean cosine of its embeddings with those of the true object's pictures; lpips mean distance to these
    pcs     score of its coherence
    """

    features: Float64Array | None = None
    reference_features: Float64Array | None = None
    clip: float | None = None
    lpips: float | None = None
    pcs: float | None = None
    dino: float | None = None


def picture_figures(pictures: UInt8Array, references: UInt8Array, networks: ImageNetworks) -> PictureFigures:
    """Figures of pictures (8, H, W, 3) of one object against those of its true shape, from the same cameras."""
    require_shape("pictures", pictures, references.shape)
    inception, clip, lpips, judge = networks.inception, networks.clip, networks.lpips, networks.judge
    dino = networks.dino
    return PictureFigures(
        features=None if inception is None else inception(pictures),
        reference_features=None if inception is None else inception(references),
        clip=None if clip is None else float(cosine_similarity(clip(pictures), clip(references)).mean()),
        lpips=None if lpips is None else float(lpips(pictures, references).mean()),
        pcs=None if judge is None else judge(pictures),
        dino=None if dino is None else float(cosine_similarity(dino(pictures), dino(references)).mean()),
    )


def set_figures(objects: Sequence[PictureFigures]) -> dict[str, float]:
    """`fid` and `kid` of the pictures of all objects together; means of the others. Only those known."""
    found: dict[str, float] = {}
    ours = [own.features for own in objects if own.features is not None]
    theirs = [own.reference_features for own in objects if own.reference_features is not None]
    if ours and theirs:
        one, other = np.concatenate(ours), np.concatenate(theirs)
        found["fid"], found["kid"] = frechet_distance(one, other), kernel_distance(one, other)
    for name in ("clip", "dino", "lpips", "pcs"):
        values = [value for own in objects if (value := getattr(own, name)) is not None]
        if values:
            found[name] = float(np.mean(values))
    return found


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """FID: squared Fréchet distance of Gaussians fitted to features (N, D) and (M, D).

    |μ1 - μ2|² + tr(C1 + C2 - 2 (C1 C2)^½). Raises `InputError` for fewer than two rows, other shapes or NaN.
    """
    _check(one, other)
    (mu1, cov1), (mu2, cov2) = ((x.mean(axis=0), np.atleast_2d(np.cov(x, rowvar=False))) for x in (one, other))
    return gaussian_distance(mu1, cov1, mu2, cov2)


def gaussian_distance(mu1: np.ndarray, cov1: np.ndarray, mu2: np.ndarray, cov2: np.ndarray) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two Gaussians of means (D,) and covariances (D, D)."""
    # tr (C1 C2)^½ is the sum of roots of the eigenvalues of C1^½ C2 C1^½, which is symmetric: no complex rounding.
    values, vectors = linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    cross = np.sqrt(np.maximum(linalg.eigvalsh(root @ cov2 @ root), 0.0)).sum()
    distance = ((mu1 - mu2) ** 2).sum() + np.trace(cov1) + np.trace(cov2) - 2.0 * cross
    return float(max(distance, 0.0))


def kernel_distance(
    one: np.ndarray, other: np.ndarray, subsets: int = KID_SUBSETS, size: int = KID_SUBSET_SIZE, seed: int = 0
) -> float:
    """KID: mean unbiased squared maximum mean discrepancy of features (N, D), (M, D), kernel (x·y / D + 1)³.

    Over `subsets` random subsets of `size` rows, or once over all where there are no more. May be slightly negative.
    Raises `InputError` for fewer than two rows, other shapes or NaN.
    """
    _check(one, other)
    if max(len(one), len(other)) <= size:
        return _discrepancy(one, other)
    rng = np.random.default_rng(seed)
    return float(np.mean([_discrepancy(_choice(one, size, rng), _choice(other, size, rng)) for _ in range(subsets)]))


def _choice(rows: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rows[rng.choice(len(rows), min(size, len(rows)), replace=False)]


def _discrepancy(one: np.ndarray, other: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.asarray((a @ b.T / a.shape[1] + 1.0) ** 3)

    def among(a: np.ndarray) -> float:
        values = kernel(a, a)
        return float((values.sum() - np.trace(values)) / (len(a) * (len(a) - 1)))

    return among(one) + among(other) - 2.0 * float(kernel(one, other).mean())


def cosine_similarity(one: np.ndarray, other: np.ndarray) -> Float64Array:
    """(N,) cosines between rows of (N, D) and (N, D); 0 for rows without length."""
    if one.shape != other.shape or one.ndim != 2:
        raise InputError(f"embeddings of pairs must be alike, got {one.shape} and {other.shape}")
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.divide((one * other).sum(axis=1), length, out=np.zeros_like(length), where=length > 0)


def _check(one: np.ndarray, other: np.ndarray) -> None:
    for features in (one, other):
        require_shape("image features", features, (None, other.shape[-1] if other.ndim else None))
        if len(features) < 2 or not np.isfinite(features).all():
            raise InputError("distances between sets of pictures need two or more of each, with finite features")
