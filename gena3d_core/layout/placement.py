"""Completed objects to placed ones: metric pose, contact with the support, no penetration, residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..types import CompletedObject, Mesh, ObjectObservation, ReconstructedObject, SupportPlane
from . import collisions, settle
from .registration import register_similarity


@dataclass(frozen=True)
class LayoutLimits:
    """How far layout may move objects, in metres.

    Observed surface is measured and stays within `observed_shift_m`; a mesh that layout itself registered (its scale
    and pose are estimates) may move by `imagined_shift_m`.
    """

    observed_shift_m: float = 0.005
    imagined_shift_m: float = 0.03
    resting_gap_m: float = 0.03
    """A closed mesh that hovers higher than this over the support is not resting on it; open ones are not lowered."""
    penetration_tolerance_m: float = 0.002
    """Penetration that measuring noise alone explains."""


def place_objects(
    completed: Sequence[CompletedObject],
    observations: Sequence[ObjectObservation],
    support: SupportPlane | None,
    limits: LayoutLimits | None = None,
) -> list[ReconstructedObject]:
    """Objects with meshes in their own frame and poses in the world, in the order of `completed`.

    The object frame is parallel to the world and lies at the centre of the mesh's bounding box. Meshes without a known
    relation to the world are registered to their observed points first. Residuals: `fit_rmse_m` (observed points to
    mesh), `support_gap_m` (before settling), `support_shift_m`, `collision_shift_m`, `penetration_m` (what remains);
    for registered meshes `registration_rmse_m` and `registration_scale`; and the residuals of the generator.
    Raises `InputError` if ids differ between the lists or a mesh is empty.
    """
    limits = limits or LayoutLimits()
    if [c.id for c in completed] != [o.id for o in observations]:
        raise InputError(
            f"completed objects {[c.id for c in completed]} do not match observations {[o.id for o in observations]}"
        )
    for item in completed:
        if not len(item.mesh.faces):
            raise InputError(f"object {item.id} has a mesh without faces; nothing can be placed")
    up = np.array([0.0, 0.0, 1.0]) if support is None else np.asarray(support.normal, dtype=np.float64)
    meshes: list[Mesh] = []
    residuals: list[dict[str, float]] = []
    for item, observation in zip(completed, observations, strict=True):
        mesh, figures = _in_world(item, observation, up)
        meshes.append(mesh)
        residuals.append(figures)
    bounds = [limits.observed_shift_m if c.S_world_mesh is not None else limits.imagined_shift_m for c in completed]

    for number, mesh in enumerate(meshes):
        if support is None:
            continue
        gap = settle.support_gap_m(mesh, support)
        max_gap = limits.resting_gap_m if mesh_ops.is_watertight(mesh) else 0.0
        shift = settle.settle_shift_m(gap, support, bounds[number], max_gap)
        meshes[number] = mesh_ops.transformed(mesh, transforms.rigid(t=shift))
        residuals[number].update(support_gap_m=gap, support_shift_m=float(np.linalg.norm(shift)))

    samples = [collisions.sample_object(mesh) for mesh in meshes]
    shifts, remaining = collisions.resolve(samples, up, bounds, limits.penetration_tolerance_m)
    placed = []
    for number, (item, observation) in enumerate(zip(completed, observations, strict=True)):
        mesh = mesh_ops.transformed(meshes[number], transforms.rigid(t=shifts[number]))
        residuals[number].update(
            collision_shift_m=float(np.linalg.norm(shifts[number])),
            penetration_m=float(remaining[number]),
            fit_rmse_m=fit_rmse_m(mesh, observation.points_m),
        )
        placed.append(object_of_world_mesh(item.id, observation.label, observation.score, mesh, residuals[number]))
    return placed


def fit_rmse_m(mesh: Mesh, points_m: np.ndarray, trim: float = 0.9) -> float:
    """Root mean square distance in metres of the nearest `trim` share of points (N, 3) to a mesh in the world."""
    points = points_m[np.isfinite(points_m).all(axis=1)]
    if not len(points):
        return float("nan")
    points = points[:: max(1, len(points) // 4000)]
    samples, _ = mesh_ops.sample_surface(mesh, 8000, np.random.default_rng(0))
    distance = np.sort(cKDTree(np.concatenate([samples, mesh.vertices])).query(points)[0])
    kept = distance[: max(1, int(np.ceil(trim * len(distance))))]
    return float(np.sqrt(np.mean(kept**2)))


def _in_world(item: CompletedObject, observation: ObjectObservation, up: np.ndarray) -> tuple[Mesh, dict[str, float]]:
    if item.S_world_mesh is not None:
        return mesh_ops.transformed(item.mesh, item.S_world_mesh), dict(item.residuals)
    fit = register_similarity(item.mesh, observation.points_m, up=up)
    figures = {**item.residuals, "registration_rmse_m": fit.rmse_m, "registration_scale": fit.scale}
    return mesh_ops.transformed(item.mesh, fit.S_world_mesh), figures


def object_of_world_mesh(
    number: int, label: str, score: float, mesh: Mesh, residuals: Mapping[str, float]
) -> ReconstructedObject:
    """The object with a mesh in the world; its frame lies at the middle of the mesh's box, parallel to the world.

    score in [0, 1] is that of finding the object; where the mesh says how sure it is, the result's score is lower.
    """
    low, high = mesh_ops.bounds(mesh)
    T_world_object = transforms.rigid(t=(low + high) / 2.0)
    trust = 1.0 if mesh.vertex_confidence is None else float(np.mean(mesh.vertex_confidence))
    return ReconstructedObject(
        id=number,
        label=label,
        score=float(np.clip(score * (0.5 + 0.5 * trust), 0.0, 1.0)),
        mesh=mesh_ops.transformed(mesh, transforms.inverse(T_world_object)),
        T_world_object=T_world_object,
        size_m=high - low,
        observed_fraction=mesh_ops.observed_fraction(mesh),
        residuals=residuals,
    )
