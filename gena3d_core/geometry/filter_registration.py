"""Registration of two point clouds by FilterReg (Gao and Tedrake 2019): expectation maximisation with Gaussian filters.

Each point is drawn to the mean of the other cloud under a Gaussian around it, which a filter gives at once for all
points; the width of the Gaussian is estimated along with the transform and shrinks as the clouds come together. The
filter is computed directly: over all pairs of a thinned cloud while the Gaussian is wide, over fixed numbers of
nearest neighbours once it is narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..types import Float64Array, require_shape
from . import transforms
from .similarity_fit import fit_similarity

MIN_POINTS = 10


@dataclass(frozen=True)
class FilterRegConfig:
    """Lengths are shares of the target's root mean square radius.

    scaled         estimate a scale, too; else the transform is rigid
    both_ways      each cloud is drawn to the other. False: the source to the target only, as published, so that a
                   source may cover a part of the target; a scale needs both ways, for one-sided clouds collapse
    outlier_share  prior share of points without a partner
    start_width    width of the Gaussian at the start: about the largest misplacement
    coarse_points, fine_points  points of each cloud in both phases
    coarse_rounds  (steps, starts that are left after them) of the first phase
    neighbours     of each point in the fine phase
    """

    scaled: bool = False
    both_ways: bool = True
    outlier_share: float = 0.1
    start_width: float = 0.5
    coarse_points: int = 200
    fine_points: int = 3000
    coarse_rounds: tuple[tuple[int, int], ...] = ((8, 3), (20, 1))
    neighbours: int = 10
    fine_steps: int = 25
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.scaled and not self.both_ways:
            raise InputError("FilterReg with a scale needs both_ways: one-sided clouds collapse")
        if not 0.0 < self.outlier_share < 1.0 or not self.start_width > 0.0:
            raise InputError(
                f"FilterReg needs an outlier_share in (0, 1) and a positive start_width, "
                f"got {self.outlier_share} and {self.start_width}"
            )
        if min(self.coarse_points, self.fine_points) < MIN_POINTS or self.neighbours < 1:
            raise InputError(f"FilterReg needs at least {MIN_POINTS} points of each cloud and one neighbour")
        if not self.coarse_rounds or any(kept < 1 for _, kept in self.coarse_rounds):
            raise InputError(f"every coarse round must keep a start, got {self.coarse_rounds}")


@dataclass(frozen=True, eq=False)
class CloudFit:
    """A registration; lengths in the unit of the target.

    S_target_source  (4, 4) similarity, or rigid
    width            of the Gaussian at the end: how far the clouds lie apart where they agree
    rmse             root mean square of the nearest distances of inliers, both ways
    inlier_share     share of the points that count as such
    start            number of the start that led here
    """

    S_target_source: Float64Array
    width: float
    rmse: float
    inlier_share: float
    start: int


def filter_register(
    source: np.ndarray,
    target: np.ndarray,
    *,
    starts: np.ndarray | None = None,
    config: FilterRegConfig | None = None,
    seed: int = 0,
) -> CloudFit:
    """Transform that lays source (N, 3) on target (M, 3), both spread evenly over their surfaces.

    starts (C, 4, 4): where to begin (`S_target_source`); the one that leads nearest wins. None: as they lie. Without
    `config.scaled` the starts' scales stay as they are. Raises `InputError` for fewer than `MIN_POINTS` finite points
    or clouds without extent.
    """
    config = config or FilterRegConfig()
    begin = np.eye(4)[None] if starts is None else np.asarray(starts, dtype=np.float64)
    if begin.ndim != 3 or begin.shape[1:] != (4, 4) or not len(begin):
        raise InputError(f"starts must be (C, 4, 4), at least one, got {begin.shape}")
    rng = np.random.default_rng(seed)
    moving, fixed = (_shuffled(name, cloud, rng) for name, cloud in (("source", source), ("target", target)))
    # All work happens where both clouds are centred and have radius 1, so that no unit matters.
    fixed, S_target_unit = _normalised("target", fixed)
    moving, S_source_unit = _normalised("source", moving)
    radius = float(S_target_unit[0, 0])
    S = transforms.inverse(S_target_unit) @ begin @ S_source_unit
    best, width, start = _coarse(S, moving[: config.coarse_points], fixed[: config.coarse_points], config)
    clouds = _Pair.of(moving[: config.fine_points], fixed[: config.fine_points])
    best, best_width = _fine(best, width, clouds, config)
    distance = clouds.nearest(best)
    inlier = distance < 3.0 * best_width + clouds.spacing
    rmse = float(np.sqrt((distance[inlier] ** 2).mean())) if inlier.any() else float("inf")
    S_target_source = S_target_unit @ best @ transforms.inverse(S_source_unit)
    return CloudFit(S_target_source, best_width * radius, rmse * radius, float(inlier.mean()), start)


def _shuffled(name: str, cloud: np.ndarray, rng: np.random.Generator) -> Float64Array:
    require_shape(f"{name} cloud", cloud, (None, 3))
    points = np.asarray(cloud, dtype=np.float64)
    points = points[np.isfinite(points).all(axis=1)]
    if len(points) < MIN_POINTS:
        raise InputError(f"registration needs at least {MIN_POINTS} finite points in the {name}, got {len(points)}")
    return rng.permutation(points)


def _normalised(name: str, points: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Points (N, 3) centred and of root mean square radius 1, and the similarity (4, 4) back."""
    center = points.mean(axis=0)
    radius = float(np.sqrt(((points - center) ** 2).sum(axis=1).mean()))
    if not radius > 0:
        raise InputError(f"registration needs a {name} whose points are not all the same")
    return (points - center) / radius, transforms.rigid(radius * np.eye(3), center)


def _moved(S: np.ndarray, points: np.ndarray) -> Float64Array:
    """(C, N, 3) points under each of S (C, 4, 4)."""
    return np.einsum("cij,nj->cni", S[:, :3, :3], points) + S[:, None, :3, 3]


@dataclass(frozen=True, eq=False)
class _Filtered:
    """What the filter gives for points (..., N, 3): mass of the other cloud, its mean, its mean squared distance."""

    mass: Float64Array
    mean: Float64Array
    squared: Float64Array


def _filtered(kernel: Float64Array, squared: Float64Array, points: np.ndarray) -> _Filtered:
    """kernel, squared (..., N, K): weights and squared distances of points (..., K, 3) or (..., N, K, 3)."""
    mass = kernel.sum(axis=-1)
    share = kernel / np.maximum(mass, 1e-300)[..., None]
    mean = share @ points if points.ndim == kernel.ndim else np.einsum("...nk,...nki->...ni", share, points)
    return _Filtered(mass, mean, (share * squared).sum(axis=-1))


def _step(
    S: np.ndarray,
    width: np.ndarray,
    ahead: tuple[np.ndarray, _Filtered],
    back: tuple[np.ndarray, _Filtered],
    config: FilterRegConfig,
) -> tuple[Float64Array, Float64Array]:
    """Maximisation for C candidates: new S (C, 4, 4) and width (C,).

    ahead: moved points (C, N, 3) and the target around them; back: target points (C, M, 3) and the moved ones.
    """
    sides = ((*ahead, False), (*back, True)) if config.both_ways else ((*ahead, False),)
    weights, sources, targets, spread = [], [], [], []
    for points, found, reverse in sides:
        # Uniform outliers fill the volume of a ball of about twice the target's radius.
        background = config.outlier_share / (1.0 - config.outlier_share) * (2.0 * np.pi * width**2) ** 1.5 / 32.0
        weight = found.mass / (found.mass + background[:, None])
        weights.append(weight / points.shape[1])
        sources.append(found.mean if reverse else points)
        targets.append(points if reverse else found.mean)
        spread.append(found.squared)
    weight = np.concatenate(weights, axis=1)
    total = weight.sum(axis=1)
    # A candidate that lost all its partners stays where it is.
    alive = total > 1e-9
    step = np.tile(np.eye(4), (len(S), 1, 1))
    if alive.any():
        drawn, to = (np.concatenate(part, axis=1)[alive] for part in (sources, targets))
        step[alive] = fit_similarity(drawn, to, weight[alive], upright=False, scaled=config.scaled)
    variance = (weight * np.concatenate(spread, axis=1)).sum(axis=1) / np.maximum(3.0 * total, 1e-300)
    return step @ S, np.where(alive, np.sqrt(variance), width)


def _coarse(
    S: np.ndarray, moving: Float64Array, fixed: Float64Array, config: FilterRegConfig
) -> tuple[Float64Array, float, int]:
    """The best of the candidates (C, 4, 4) after filters over all pairs of points, its width and its number."""
    width, number = np.full(len(S), config.start_width), np.arange(len(S))
    clouds = _Pair.of(moving, fixed)
    for steps, kept in config.coarse_rounds:
        for _ in range(steps):
            S, found = _dense_step(S, width, moving, fixed, config)
            width = np.clip(found, 0.5 * clouds.spacing, width)
        best = np.argsort([clouds.distance(one) for one in S], kind="stable")[:kept]
        S, width, number = S[best], width[best], number[best]
    return S[0], float(width[0]), int(number[0])


def _dense_step(
    S: np.ndarray, width: np.ndarray, moving: Float64Array, fixed: Float64Array, config: FilterRegConfig
) -> tuple[Float64Array, Float64Array]:
    """One step of candidates S (C, 4, 4) with Gaussians over all pairs."""
    points, everywhere = _moved(S, moving), np.broadcast_to(fixed, (len(S), *fixed.shape))
    squared = (points**2).sum(axis=-1)[:, :, None] + (fixed**2).sum(axis=-1) - 2.0 * points @ fixed.T
    squared = np.maximum(squared, 0.0)
    kernel = np.exp(squared / (-2.0 * width**2)[:, None, None])
    ahead = _filtered(kernel / len(fixed), squared, everywhere)
    back = _filtered(kernel.transpose(0, 2, 1) / len(moving), squared.transpose(0, 2, 1), points)
    return _step(S, width, (points, ahead), (everywhere, back), config)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Both clouds with their trees; the source's in its own frame."""

    moving: Float64Array
    fixed: Float64Array
    moving_tree: cKDTree
    fixed_tree: cKDTree
    spacing: float

    @staticmethod
    def of(moving: Float64Array, fixed: Float64Array) -> _Pair:
        return _Pair(moving, fixed, cKDTree(moving), cKDTree(fixed), _spacing(fixed))

    def neighbours(
        self, S: np.ndarray, count: int
    ) -> tuple[Float64Array, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Moved points (N, 3); distances and indices (N, K) of the target's nearest, (M, K) of the moved source's."""
        points = transforms.apply(S, self.moving)
        ahead = self.fixed_tree.query(points, k=min(count, len(self.fixed)))
        distance, index = self.moving_tree.query(
            transforms.apply(transforms.inverse(S), self.fixed), k=min(count, len(self.moving))
        )
        scale = np.cbrt(np.linalg.det(S[:3, :3]))
        return points, ahead, (distance * scale, index)

    def nearest(self, S: np.ndarray) -> Float64Array:
        """(N + M,) nearest distances both ways."""
        _, (ahead, _), (back, _) = self.neighbours(S, 1)
        return np.concatenate([ahead, back])

    def distance(self, S: np.ndarray) -> float:
        """How far apart the clouds lie: mean of the nearest distances both ways, far ones bounded."""
        return float(np.minimum(self.nearest(S), 0.3).mean())


def _fine(S: Float64Array, width: float, clouds: _Pair, config: FilterRegConfig) -> tuple[Float64Array, float]:
    """S (4, 4) and width after filters over the nearest neighbours."""
    floor = 0.5 * clouds.spacing
    for _ in range(config.fine_steps):
        points, ahead, back = clouds.neighbours(S, config.neighbours)
        sides = []
        for (distance, index), others in ((ahead, clouds.fixed), (back, points)):
            squared = distance.reshape(len(distance), -1) ** 2
            kernel = np.exp(squared / (-2.0 * width**2)) / len(others)
            sides.append(_filtered(kernel[None], squared[None], others[index.reshape(squared.shape)][None]))
        before = S
        moved, found = _step(
            S[None], np.array([width]), (points[None], sides[0]), (clouds.fixed[None], sides[1]), config
        )
        S, shrunk = moved[0], float(np.clip(found[0], floor, width))
        settled = np.abs(S - before).max() < config.tolerance and width - shrunk < 0.01 * width
        width = shrunk
        if settled:
            break
    return S, width


def _spacing(points: Float64Array) -> float:
    """Median distance to the nearest other point."""
    return float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))
