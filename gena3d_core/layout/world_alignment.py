"""From a relative layout to metres: the similarity `S_world_scene` that fits whatever is known of the scene best.

Robust weighted least squares over all pieces of evidence together: Gauss-Newton steps with Levenberg-Marquardt damping
under a redescending (Geman-McClure) weight that is sharpened in stages, from several starts; pieces that the others
contradict are left out of the last fit and named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..geometry import similarity
from ..geometry.similarity import SimilarityEstimate
from ..types import Float64Array, Mesh
from .alignment_start import start_candidates, upright_start
from .evidence import Evidence, ObjectPoints, named_assets, thinned
from .evidence_terms import Equations, LayoutError, equations_of
from .relative_layout import RelativeLayout
from .scene_assets import SceneAssets, scene_assets

COARSE_POINTS, MIN_COARSE_POINTS = 300, 20
"""Points of all objects together, and at least of each, with which starts are compared."""
MAX_SHARP_STARTS = 50
"""Candidates that the first stage leaves to the last."""
PRIOR_SIGMAS = np.array([10.0, 10.0, 10.0, np.pi, np.pi, np.pi, 3.0])
"""Standard deviations of what nothing is known about: metres, radians, logarithm of the scale."""
DETERMINED = {"position": (np.s_[:3], 1.0), "orientation": (np.s_[3:6], 0.5), "scale": (np.s_[6:], 0.5)}
"""A part of the transform is determined if no direction of it has a larger standard deviation."""


@dataclass(frozen=True)
class AlignmentConfig:
    """How far to trust the layout, and how to search."""

    layout_sigma: float = 0.03
    """Error of the layout's places, in units of the query's size."""
    kernel: float = 3.0
    """Standard deviations at which an equation has lost three quarters of its weight."""
    stages: tuple[float, ...] = (8.0, 3.0, 1.0)
    """Factors on all standard deviations, from the first stage to the last."""
    starts: int = 3
    """Candidates refined from the first stage on, and as many at the last stage alone."""
    iterations: int = 12
    """Most steps in each stage."""
    min_inliers: float = 0.3
    """A piece of evidence with a smaller share of equations within `kernel` deviations is left out."""

    def __post_init__(self) -> None:
        if not self.stages or self.stages[-1] != 1.0 or min(self.stages) < 1.0:
            raise InputError(f"stages of an alignment must be factors of at least 1 that end with 1, got {self.stages}")
        if not (self.layout_sigma > 0 and self.kernel > 0) or self.starts < 1 or self.iterations < 1:
            raise InputError("alignment: layout_sigma, kernel, starts and iterations must be positive")


@dataclass(frozen=True)
class EvidenceReport:
    """What became of one piece of evidence.

    used          False: the others contradict it, and the result does not depend on it
    residual_m    root mean square of its equations within the kernel, metres; NaN if they are no lengths or none is
    inlier_share  share of its equations within the kernel
    """

    kind: str
    assets: tuple[int, ...]
    used: bool
    residual_m: float
    inlier_share: float


@dataclass(frozen=True, eq=False)
class WorldAlignment:
    """`S_world_scene` and how sure it is.

    estimate      the similarity (its scale: metres per unit of the scene, the query's size) with covariance (7, 7) in
                  the order of `similarity.TANGENT`; what nothing tells has the variance of `PRIOR_SIGMAS`
    residual_m    root mean square over all equations used that are lengths; NaN without any
    undetermined  which of "position", "orientation", "scale" the evidence leaves open
    evidence      one report for each piece, in the order given
    """

    estimate: SimilarityEstimate
    residual_m: float
    undetermined: tuple[str, ...]
    evidence: tuple[EvidenceReport, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def metric(self) -> bool:
        """Whether lengths are metres; else they are in units of the query's size."""
        return "scale" not in self.undetermined


def align_to_world(
    layout: RelativeLayout,
    meshes: Sequence[Mesh],
    evidence: Sequence[Evidence],
    config: AlignmentConfig | None = None,
) -> WorldAlignment:
    """The similarity from the layout's scene frame to the world that fits the evidence best.

    meshes: of the N assets, each in the frame of its own grid, [-0.5, 0.5]^3. Without evidence the scene keeps its own
    unit, the query upright above the world's origin, and a warning says so. Deterministic. Raises `InputError` for
    meshes that do not match the layout, or evidence about assets that are not in it.
    """
    config = config or AlignmentConfig()
    assets = scene_assets(layout, meshes)
    for item in evidence:
        if wrong := [a for a in named_assets(item) if not 0 <= a < len(layout)]:
            raise InputError(
                f"{type(item).__name__} names asset {wrong[0]}, but the layout's assets are 0 to {len(layout) - 1}"
            )
    if not evidence:
        return _without_evidence(assets)
    problem, S = _search(assets, tuple(evidence), config)
    inliers = [problem.inlier_share(item, S) for item in evidence]
    keep = [share >= config.min_inliers for share in inliers]
    if not any(keep):
        keep[int(np.argmax(inliers))] = True
    if not all(keep):
        problem = replace(problem, evidence=tuple(e for e, kept in zip(evidence, keep, strict=True) if kept))
        S = _refine(problem, S, (1.0,))
    return _result(problem, S, evidence, keep)


def placed_assets(
    alignment: WorldAlignment, layout: RelativeLayout, covariances: np.ndarray | None = None
) -> list[SimilarityEstimate]:
    """`S_world_grid` of each asset with its covariance.

    covariances (N, 7, 7): those of the layout's `S_scene_grid` (units of the query's size); None: exactly known.
    """
    inner = [None] * len(layout) if covariances is None else list(covariances)
    return [similarity.chained(alignment.estimate, S, cov) for S, cov in zip(layout.S_scene_grid, inner, strict=True)]


@dataclass(frozen=True, eq=False)
class _Problem:
    """scale: metres per unit of the scene, roughly."""

    assets: SceneAssets
    evidence: tuple[Evidence, ...]
    config: AlignmentConfig
    scale: float

    def equations(self, item: Evidence, S: Float64Array) -> Equations:
        sigma = self.config.layout_sigma
        return equations_of(item, self.assets, S, LayoutError(sigma * self.scale, sigma))

    def inlier_share(self, item: Evidence, S: Float64Array) -> float:
        return float(np.mean(_deviations(self.equations(item, S)) <= self.config.kernel))

    def coarse(self) -> _Problem:
        """The same with few points of each object."""
        clouds = sum(isinstance(item, ObjectPoints) for item in self.evidence)
        count = max(MIN_COARSE_POINTS, COARSE_POINTS // max(clouds, 5))
        items = tuple(
            replace(item, points_m=thinned(item.points_m, count)) if isinstance(item, ObjectPoints) else item
            for item in self.evidence
        )
        return replace(self, evidence=items)

    def cost(self, S: Float64Array, factor: float) -> float:
        """Robust cost with standard deviations times `factor`."""
        total, k2 = 0.0, self.config.kernel**2
        for item in self.evidence:
            rows = self.equations(item, S)
            z2 = (_deviations(rows) / factor) ** 2
            total += float((rows.weights * z2 * k2 / (k2 + z2)).sum())
        return total

    def normal_equations(self, S: Float64Array, factor: float) -> tuple[Float64Array, Float64Array]:
        """H (7, 7) and g (7,) of the weighted least-squares problem at S."""
        H, g = np.zeros((7, 7)), np.zeros(7)
        for item in self.evidence:
            rows = self.equations(item, S)
            weight = self.robust_weights(rows, factor) / (rows.sigmas * factor) ** 2
            weighted = rows.jacobian * weight[:, None]
            H += weighted.T @ rows.jacobian
            g -= weighted.T @ rows.residuals
        return H, g

    def robust_weights(self, rows: Equations, factor: float) -> Float64Array:
        z2 = (_deviations(rows) / factor) ** 2
        return np.asarray(rows.weights * (self.config.kernel**2 / (self.config.kernel**2 + z2)) ** 2)


def _deviations(rows: Equations) -> Float64Array:
    """(M,) size of each row's residual in standard deviations; rows of one group share the largest."""
    z = np.abs(rows.residuals) / rows.sigmas
    largest = np.zeros(int(rows.group.max()) + 1)
    np.maximum.at(largest, rows.group, z)
    return np.asarray(largest[rows.group])


def _search(
    assets: SceneAssets, evidence: tuple[Evidence, ...], config: AlignmentConfig
) -> tuple[_Problem, Float64Array]:
    """The best of the candidates, refined, and the problem at its scale."""
    candidates = start_candidates(evidence, assets)
    problem = _Problem(assets, evidence, config, float(np.median(similarity.parts(candidates)[2])))
    coarse = problem.coarse()
    refined = []
    # Wide stages forgive rough starts, but wrong evidence pulls good starts away: those begin at the last stage.
    for stages in (config.stages, config.stages[-1:]):
        order = np.argsort([coarse.cost(S, stages[0]) for S in candidates], kind="stable")
        candidates = candidates[order[:MAX_SHARP_STARTS]]
        refined += [_refine(coarse, S, stages) for S in candidates[: config.starts]]
    best = refined[int(np.argmin([coarse.cost(S, 1.0) for S in refined]))]
    problem = replace(problem, scale=float(similarity.parts(best)[2]))
    return problem, _refine(problem, best, (1.0,))


def _refine(problem: _Problem, S: Float64Array, stages: Sequence[float]) -> Float64Array:
    """S after Levenberg-Marquardt steps in each stage."""
    for factor in stages:
        damping, cost = 1e-4, problem.cost(S, factor)
        H, g = problem.normal_equations(S, factor)
        for _ in range(problem.config.iterations):
            prior = PRIOR_SIGMAS**-2.0
            step = np.linalg.solve(H + damping * np.diag(np.diag(H)) + np.diag(prior), g)
            step *= min(1.0, 0.7 / max(float(np.abs(step[3:]).max()), 1e-12))
            moved = similarity.changed(S, step)
            new_cost = problem.cost(moved, factor)
            if new_cost > cost * (1 + 1e-12):
                damping *= 10.0
                if damping > 1e6:
                    break
                continue
            converged = cost - new_cost < 1e-6 * cost and float(np.abs(step).max()) < 1e-4
            S, cost, damping = moved, new_cost, max(damping / 10.0, 1e-9)
            if converged:
                break
            H, g = problem.normal_equations(S, factor)
    return S


def _result(problem: _Problem, S: Float64Array, evidence: Sequence[Evidence], keep: Sequence[bool]) -> WorldAlignment:
    kernel = problem.config.kernel
    H = np.diag(PRIOR_SIGMAS**-2.0)
    chi2, weight_sum, squares, lengths = 0.0, 0.0, 0.0, 0.0
    reports, warnings = [], []
    for number, (item, kept) in enumerate(zip(evidence, keep, strict=True)):
        rows = problem.equations(item, S)
        inside = _deviations(rows) <= kernel
        length = inside & np.isfinite(rows.to_metres)
        squared = (rows.residuals * rows.to_metres)[length] ** 2
        weights = problem.robust_weights(rows, 1.0)
        residual = float(np.sqrt(squared.mean())) if length.any() else float("nan")
        name = type(item).__name__
        reports.append(EvidenceReport(name, named_assets(item), kept, residual, float(inside.mean())))
        if not kept:
            about = f" of asset {named_assets(item)[0]}" if len(named_assets(item)) == 1 else ""
            warnings.append(f"layout: {name}{about} (number {number}) contradicts the other evidence and is not used")
            continue
        weighted = rows.jacobian * (weights / rows.sigmas**2)[:, None]
        H += weighted.T @ rows.jacobian
        chi2 += float((weights * (rows.residuals / rows.sigmas) ** 2).sum())
        weight_sum += float(weights.sum())
        squares += float((rows.weights[length] * squared).sum())
        lengths += float(rows.weights[length].sum())
    covariance = np.linalg.inv(H) * max(1.0, chi2 / max(weight_sum, 1.0))
    covariance = 0.5 * (covariance + covariance.T)
    undetermined = tuple(
        name
        for name, (part, limit) in DETERMINED.items()
        if np.sqrt(np.linalg.eigvalsh(covariance[part, part])[-1]) > limit
    )
    if undetermined:
        warnings.append(f"layout: the evidence does not determine {', '.join(undetermined)} in the world")
    return WorldAlignment(
        estimate=SimilarityEstimate(S, covariance),
        residual_m=float(np.sqrt(squares / lengths)) if lengths > 0 else float("nan"),
        undetermined=undetermined,
        evidence=tuple(reports),
        warnings=tuple(warnings),
    )


def _without_evidence(assets: SceneAssets) -> WorldAlignment:
    return WorldAlignment(
        estimate=SimilarityEstimate(upright_start(assets), np.diag(PRIOR_SIGMAS**2)),
        residual_m=float("nan"),
        undetermined=tuple(DETERMINED),
        warnings=("layout: no metric evidence; lengths are in units of the query object's size, not in metres",),
    )
