"""Mode `scene` of the pipeline: a scene's pictures to assets that are generated together, and these into the world."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np

from .errors import InputError
from .generation import SceneGenerator
from .geometry import mesh as mesh_ops
from .geometry.camera import upright_axes
from .geometry.scene_poses import similarities_from_poses
from .geometry.similarity import change_between
from .layout import PlacedScene, RelativeLayout, SceneLayoutConfig, place_scene
from .layout.evidence import (
    Evidence,
    FacingAssets,
    KnownSize,
    ObjectPose,
    SupportContact,
    UprightAssets,
    points_of_observations,
    rays_of_masks,
)
from .layout.measured_poses import measured_poses
from .layout.placement import object_of_world_mesh
from .layout.relative_layout import world_similarities
from .layout.scene_layout import layout_covariances
from .layout.world_alignment import WorldAlignment, align_to_world, placed_assets
from .meshing.appearance import with_appearance
from .observed import ObservedSurface
from .types import (
    CancelCheck,
    Float64Array,
    GeneratedScene,
    Mesh,
    ObjectObservation,
    ProgressCallback,
    ReconstructedObject,
    SceneObservation,
    Segmentation,
    SupportPlane,
    UInt8Array,
    View,
)
from .views.scene_masks import CheckedScene, checked_scene

log = logging.getLogger("gena3d")

AHEAD = np.array([0.0, 1.0, 0.0])
"""Where the camera of a photograph looks, level, in the world that is made for it."""
GUESSED_SIGMA = 3.0
"""Standard deviation, in units of the query's size, of the place of an asset that was not seen together with it."""


@dataclass(frozen=True, eq=False)
class SceneKnowledge:
    """What is known of a scene besides its pictures.

    views         posed cameras of the pictures, in their order; empty where there are none
    observations  points in metres, by id of the object
    support       plane on which objects rest
    sizes_m       longest side by id of the object
    scores        trust in the object as found, in [0, 1], by its id; 1 by default
    """

    views: tuple[View, ...] = ()
    observations: Mapping[int, ObjectObservation] = field(default_factory=dict)
    support: SupportPlane | None = None
    sizes_m: Mapping[int, float] = field(default_factory=dict)
    scores: Mapping[int, float] = field(default_factory=dict)


def scene_of_views(
    views: Sequence[View], segmentation: Segmentation, observations: Sequence[ObjectObservation]
) -> tuple[CheckedScene, SceneKnowledge]:
    """The scene that posed views with depth show, and what they tell besides. Raises `InputError` if it is empty."""
    found = segmentation.objects
    checked = checked_scene(
        [item.id for item in found],
        [item.label for item in found],
        [view.color for view in views],
        [np.stack([item.visible_masks[n] for item in found]) for n in range(len(views))],
    )
    known = SceneKnowledge(
        views=tuple(views),
        observations={observation.id: observation for observation in observations},
        support=segmentation.support,
        scores={item.id: item.score for item in found},
    )
    return checked, known


@dataclass(frozen=True, eq=False)
class SceneRun:
    """How a scene is made: with what, and whom to tell.

    stage     a context in which a stage by that name runs
    finish    what becomes of each mesh
    """

    generator: SceneGenerator
    stage: Callable[[str], AbstractContextManager[None]]
    finish: Callable[[Mesh], Mesh]
    seed: int = 0
    hypotheses: int = 1
    progress: ProgressCallback | None = None
    cancelled: CancelCheck | None = None


@dataclass(frozen=True, eq=False)
class SceneResult:
    """Objects of a scene, figures of their layout, whether lengths are metres, and what went amiss."""

    objects: tuple[ReconstructedObject, ...]
    residuals: Mapping[str, float]
    metric: bool
    warnings: tuple[str, ...]


def reconstruct_scene(run: SceneRun, scene: SceneObservation, known: SceneKnowledge) -> SceneResult:
    """Generate the assets of a scene together and place them; errors as of the stages."""
    if missing := sorted(set(known.sizes_m) - set(scene.ids)):
        raise InputError(f"sizes are known of objects {missing}, but the scene has {list(scene.ids)}")
    with run.stage("generation"):
        generated = run.generator.generate(
            scene, seed=run.seed, hypotheses=run.hypotheses, progress=run.progress, cancelled=run.cancelled
        )
    with run.stage("meshing"):
        assets = tuple(replace(item, mesh=run.finish(item.mesh)) for item in generated.assets)
        generated = replace(generated, assets=assets)
    with run.stage("layout"):
        placed = place_generated(generated, scene, known)
        objects = [
            with_appearance(item, known.observations[item.id]) if item.id in known.observations else item
            for item in placed.objects
        ]
        colors = _mean_colors(scene)
        objects = [_colored(item, colors[item.id]) for item in objects]
        objects += _seen_only([known.observations[id] for id in generated.failures if id in known.observations])
    failures = [
        f"object {id} did not come out{', only what was seen is shown' if id in known.observations else ''}: {reason}"
        for id, reason in generated.failures.items()
    ]
    guessed = [item.id for item, seen in zip(generated.assets, generated.seen, strict=True) if not seen]
    if guessed:
        failures.append(f"objects {guessed} are in no picture together with the query: the layout of these is a guess")
    if not known.views and len(generated.views) < len(scene.images):
        shown = ", ".join(str(n) for n in generated.views)
        failures.append(f"of {len(scene.images)} pictures only number {shown} is shown to this generator")
    warnings = (*generated.warnings, *failures, *placed.warnings)
    return SceneResult(tuple(objects), layout_residuals(placed), placed.alignment.metric, warnings)


def place_generated(generated: GeneratedScene, scene: SceneObservation, known: SceneKnowledge) -> PlacedScene:
    """The generated assets in the world, in metres where anything that is known tells them, without their colours.

    Warnings and residuals as of `place_scene`.
    """
    layout = RelativeLayout(generated.poses, generated.query, generated.R_model_grid)
    ids = [item.id for item in generated.assets]
    evidence = scene_evidence(generated, scene, known)
    config = SceneLayoutConfig()
    covariances = _covariances(generated, layout_covariances(layout, config))
    meshes = [item.mesh for item in generated.assets]
    alignment = align_to_world(layout, meshes, evidence, config.alignment)
    if not known.views and "position" in alignment.undetermined:
        alignment = _grounded(alignment, layout, generated)
    measured = {}
    if known.observations:
        predicted = placed_assets(alignment, layout, covariances)
        measured = measured_poses(generated.assets, predicted, known.observations, upright=generated.upright)
        if measured and not alignment.metric:
            # The layout fits no points as a whole, but its assets do.
            evidence += [ObjectPose(ids.index(id), pose) for id, pose in measured.items()]
            alignment = align_to_world(layout, meshes, evidence, config.alignment)
    if not alignment.metric:
        log.warning("scene: nothing tells its size in metres; lengths are in units of the query object's size")
    return place_scene(
        generated.assets,
        layout,
        evidence,
        labels=[scene.labels[scene.ids.index(id)] for id in ids],
        scores=[known.scores.get(id, 1.0) for id in ids],
        support=known.support,
        measured=measured,
        covariances=covariances,
        alignment=alignment,
        config=config,
    )


def scene_evidence(generated: GeneratedScene, scene: SceneObservation, known: SceneKnowledge) -> list[Evidence]:
    """Everything that ties the assets of a generated scene to the world."""
    ids = [item.id for item in generated.assets]
    found: list[Evidence] = []
    found += points_of_observations([known.observations.get(id) for id in ids])
    found += [KnownSize(ids.index(id), size_m) for id, size_m in known.sizes_m.items() if id in ids]
    if known.views:
        order = [scene.ids.index(id) for id in ids]
        rays = rays_of_masks(
            [[own[n] for n in order] for own in scene.masks],
            [view.intrinsics for view in known.views],
            [view.T_world_camera for view in known.views],
        )
        found += [] if rays is None else [rays]
    if known.support is not None:
        found.append(SupportContact(known.support))
    if found and generated.upright:
        up = np.array([0.0, 0.0, 1.0]) if known.support is None else known.support.normal
        everyone = tuple(range(len(ids)))
        found.append(UprightAssets(everyone, up))
        ahead = upright_axes(known.views[generated.views[0]].T_world_camera)[:, 1] if known.views else AHEAD
        found.append(FacingAssets((generated.query,), ahead))
    return found


def layout_residuals(placed: PlacedScene) -> dict[str, float]:
    """Figures of the alignment for the scene: how well it fits, metres a unit, and how sure that is."""
    estimate = placed.alignment.estimate
    if not placed.alignment.metric:
        return {"layout_metric": 0.0}
    return {
        "layout_metric": 1.0,
        "layout_residual_m": placed.alignment.residual_m,
        "layout_unit_m": float(np.cbrt(np.linalg.det(estimate.S[:3, :3]))),
        "layout_unit_sigma_ratio": float(np.exp(np.sqrt(estimate.covariance[6, 6]))),
        "layout_sigma_m": float(np.sqrt(np.linalg.eigvalsh(estimate.covariance[:3, :3])[-1])),
    }


def _seen_only(observations: Sequence[ObjectObservation]) -> list[ReconstructedObject]:
    """The measured surfaces of objects that no generator completed."""
    surfaces = ObservedSurface().generate(observations)
    return [
        object_of_world_mesh(item.id, seen.label, seen.score, item.mesh, {})
        for item, seen in zip(surfaces, observations, strict=True)
    ]


def _grounded(alignment: WorldAlignment, layout: RelativeLayout, generated: GeneratedScene) -> WorldAlignment:
    """The query above the origin and nothing below z = 0, where nobody knows of a world."""
    S = alignment.estimate.S.copy()
    poses = world_similarities(S, layout.S_scene_grid)
    lowest = min(
        float(mesh_ops.transformed(item.mesh, pose).vertices[:, 2].min())
        for item, pose in zip(generated.assets, poses, strict=True)
    )
    S[:3, 3] -= [*poses[layout.query, :2, 3], lowest]
    return replace(alignment, estimate=replace(alignment.estimate, S=S))


def _covariances(generated: GeneratedScene, usual: Float64Array) -> Float64Array:
    """(A, 7, 7) of the poses: at least what hypotheses differ by; those of assets that no picture shows together with
    the query are mere guesses."""
    found = usual.copy()
    if len(generated.pose_samples) > 1:
        shown, samples = similarities_from_poses(generated.poses), similarities_from_poses(generated.pose_samples)
        apart = [[change_between(S, other[n]) ** 2 for n, S in enumerate(shown)] for other in samples]
        spread = np.sum(apart, axis=0) / (len(samples) - 1)
        for own, variance in zip(found, spread, strict=True):
            np.fill_diagonal(own, np.maximum(np.diag(own), variance))
    found[~generated.seen] += np.diag([GUESSED_SIGMA**2] * 3 + [1.0] * 3 + [1.0])
    return found


def _mean_colors(scene: SceneObservation) -> dict[int, UInt8Array]:
    """Median colour of the pixels of each asset, by id."""
    colors = {}
    for number, id in enumerate(scene.ids):
        pixels = [image[masks[number]] for image, masks in zip(scene.images, scene.masks, strict=True)]
        colors[id] = np.median(np.concatenate(pixels), axis=0).astype(np.uint8)
    return colors


def _colored(item: ReconstructedObject, color: UInt8Array) -> ReconstructedObject:
    """The object in one colour where its generator gave none; what no posed camera saw counts as imagined."""
    if item.mesh.vertex_observed is None:
        nothing = np.zeros(len(item.mesh.vertices), dtype=bool)
        item = replace(item, mesh=replace(item.mesh, vertex_observed=nothing), observed_fraction=0.0)
    if item.mesh.vertex_colors is not None:
        return item
    colors: UInt8Array = np.tile(color, (len(item.mesh.vertices), 1))
    return replace(item, mesh=replace(item.mesh, vertex_colors=colors))
