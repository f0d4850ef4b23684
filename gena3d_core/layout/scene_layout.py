"""Generated assets with a relative layout to placed objects: into metres, fused with measured poses, kept apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.similarity import SimilarityEstimate
from ..types import CompletedObject, Float64Array, ReconstructedObject, SupportPlane
from .contacts import ContactConfig, ContactResolution, resolve_contacts
from .evidence import Evidence, ObjectPose, SupportContact
from .fusion import FusedPose, FusionLimits, fuse_objects
from .placement import object_of_world_mesh
from .relative_layout import RelativeLayout
from .world_alignment import AlignmentConfig, WorldAlignment, align_to_world, placed_assets


@dataclass(frozen=True)
class SceneLayoutConfig:
    """Settings of the steps, and how far the layout of a network errs."""

    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    fusion: FusionLimits = field(default_factory=FusionLimits)
    contacts: ContactConfig = field(default_factory=ContactConfig)
    layout_angle_rad: float = 0.1
    layout_log_scale: float = 0.05
    """With `alignment.layout_sigma`, the standard deviations of an asset's pose relative to the query."""
    measured_mobility: float = 0.1
    """How easily an object with a measured pose gives way to one without (1)."""


@dataclass(frozen=True, eq=False)
class PlacedScene:
    """Objects in the world and how they came there.

    objects    in the order of the assets. Residuals: `layout_sigma_m`, `layout_sigma_deg` and `layout_sigma_ratio` (of
               the pose), `contact_shift_m`; with a measured pose `disagreement_m`, `_deg` and `_ratio` too
    alignment  `alignment.metric` says whether lengths are metres
    poses      `S_world_grid` of each asset before contacts were resolved
    """

    objects: tuple[ReconstructedObject, ...]
    alignment: WorldAlignment
    poses: tuple[FusedPose, ...]
    contacts: ContactResolution
    warnings: tuple[str, ...] = ()


def place_scene(
    completed: Sequence[CompletedObject],
    layout: RelativeLayout,
    evidence: Sequence[Evidence] = (),
    *,
    labels: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    support: SupportPlane | None = None,
    measured: Mapping[int, SimilarityEstimate] | None = None,
    covariances: np.ndarray | None = None,
    alignment: WorldAlignment | None = None,
    config: SceneLayoutConfig | None = None,
) -> PlacedScene:
    """Objects from assets in the order of the layout, each mesh in the frame of its grid [-0.5, 0.5]^3.

    evidence: what is known in metres; without any, lengths are in units of the query's size and a warning says so.
    support: plane that objects rest on; default: that of a `SupportContact`, else contacts are resolved without one.
    measured: `S_world_grid` by object id where the metric path has registered the same mesh; where no evidence is given
    they place the scene as well. covariances (N, 7, 7) of
    the layout's poses, units of the query's size; default: as `config` says. alignment: of the same layout, if it is
    known already. Raises `InputError` for lists of different
    lengths, an asset without a mesh, or bad evidence.
    """
    config = config or SceneLayoutConfig()
    labels, scores = labels or [""] * len(completed), scores or [1.0] * len(completed)
    if not len(completed) == len(layout) == len(labels) == len(scores):
        raise InputError(
            f"{len(completed)} assets, a layout of {len(layout)}, {len(labels)} labels and {len(scores)} scores do not "
            "match"
        )
    ids = [item.id for item in completed]
    if len(set(ids)) < len(ids):
        raise InputError(f"assets need ids of their own, got {ids}")
    if unknown := sorted({*(measured or {})} - {*ids}):
        raise InputError(f"measured poses of objects {unknown} that are not in the layout, which has {ids}")
    if not evidence:
        evidence = [ObjectPose(ids.index(number), pose) for number, pose in (measured or {}).items()]
    if alignment is None:
        alignment = align_to_world(layout, [item.mesh for item in completed], evidence, config.alignment)
    spread = layout_covariances(layout, config) if covariances is None else covariances
    predicted = dict(zip(ids, placed_assets(alignment, layout, spread), strict=True))
    fused, warnings = fuse_objects(predicted, measured or {}, config.fusion)
    poses = [fused[number] for number in ids]

    meshes = [mesh_ops.transformed(c.mesh, p.estimate.S) for c, p in zip(completed, poses, strict=True)]
    if support is None:
        support = next((item.plane for item in evidence if isinstance(item, SupportContact)), None)
    mobility = [1.0 if pose.source == "layout" else config.measured_mobility for pose in poses]
    contacts = resolve_contacts(meshes, support, mobility=mobility, config=config.contacts)
    objects = []
    for number, (item, mesh, pose) in enumerate(zip(completed, meshes, poses, strict=True)):
        mesh = mesh_ops.transformed(mesh, transforms.rigid(t=contacts.shifts_m[number]))
        figures = {**item.residuals, **_figures(pose), "contact_shift_m": float(contacts.moved_m[number])}
        objects.append(object_of_world_mesh(item.id, labels[number], scores[number], mesh, figures))
    return PlacedScene(
        tuple(objects), alignment, tuple(poses), contacts, (*alignment.warnings, *warnings, *contacts.warnings)
    )


def layout_covariances(layout: RelativeLayout, config: SceneLayoutConfig) -> Float64Array:
    """(N, 7, 7) of the poses of a layout, as far as `config` knows: the query's is exact by definition."""
    sigma = config.alignment.layout_sigma
    deviation = np.array([sigma] * 3 + [config.layout_angle_rad] * 3 + [config.layout_log_scale])
    out = np.repeat(np.diag(deviation**2)[None], len(layout), axis=0)
    out[layout.query] = 0.0
    return out


def _figures(pose: FusedPose) -> dict[str, float]:
    covariance = pose.estimate.covariance
    largest = [float(np.sqrt(np.linalg.eigvalsh(covariance[part, part])[-1])) for part in (np.s_[:3], np.s_[3:6])]
    figures = {
        "layout_sigma_m": largest[0],
        "layout_sigma_deg": float(np.degrees(largest[1])),
        "layout_sigma_ratio": float(np.exp(np.sqrt(covariance[6, 6]))),
    }
    if pose.disagreement is not None:
        apart = pose.disagreement
        figures |= {
            "disagreement_m": apart.shift_m,
            "disagreement_deg": apart.angle_deg,
            "disagreement_ratio": apart.ratio,
        }
    return figures
