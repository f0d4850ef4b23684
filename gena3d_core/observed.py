"""The `observed` generator: the surface that the views prove, closed where it rests on its support."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from .errors import InputError
from .geometry import transforms
from .meshing.cleaning import drop_small_components, fill_holes
from .meshing.closure import REACH_M, SupportClosure, close_on_support
from .meshing.coloring import vertex_colors
from .meshing.surface import surface_from_distance
from .meshing.surfels import surfels
from .meshing.tsdf import LAYERS_BELOW, TsdfVolume, choose_voxel_size, fuse, make_patches, without_strays
from .types import (
    BoolArray,
    CancelCheck,
    CompletedObject,
    Float32Array,
    Mesh,
    ObjectObservation,
    ProgressCallback,
    check_cancelled,
)

UNSEEN_CONFIDENCE = 0.1
"""Confidence of the walls and caps that close an object on its support."""
PIN_HOLE_VOXELS = 20.0
"""Perimeter, in voxels, up to which a hole in the surface counts as a gap of the fusion and is filled."""


@dataclass(frozen=True)
class ObservedSurface:
    """Fuses the masked depth of all views; unseen sides stay open. Deterministic: ignores `seed`."""

    voxel_size_m: float | None = None
    """Spacing of the volume; None chooses about one pixel's footprint for each object."""
    support_reach_m: float = REACH_M
    """A lower rim that ends within this height above the support is extended down to it; 0 leaves it open."""
    min_component_share: float = 0.03
    """Components with less than this share of the largest component's area are noise."""

    def __post_init__(self) -> None:
        if self.voxel_size_m is not None and not self.voxel_size_m > 0:
            raise InputError(f"voxel_size_m must be positive, got {self.voxel_size_m}")
        if self.support_reach_m < 0 or not 0 <= self.min_component_share < 1:
            raise InputError("support_reach_m must not be negative and min_component_share must lie in [0, 1)")

    def generate(
        self,
        observations: Sequence[ObjectObservation],
        *,
        seed: int = 0,
        hypotheses: int = 1,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> list[CompletedObject]:
        """See `ObjectGenerator`; meshes are in world metres. One hypothesis is enough: there is nothing to sample."""
        completed = []
        for number, observation in enumerate(observations):
            check_cancelled(cancelled)
            if progress is not None:
                progress("generation", number / len(observations))
            completed.append(CompletedObject(observation.id, self.surface(observation), np.eye(4)))
        if progress is not None:
            progress("generation", 1.0)
        return completed

    def surface(self, observation: ObjectObservation) -> Mesh:
        """The mesh (world metres) of one observation; raises `InputError` if it holds no points."""
        name = f"object {observation.id} ('{observation.label}')"
        if not len(observation.points_m) or not np.isfinite(observation.points_m).all():
            raise InputError(f"{name} has no observed points, or points that are not finite: check its masks and depth")
        kept = without_strays(observation.points_m)
        points_m, point_view = observation.points_m[kept], observation.point_view[kept]
        voxel = self.voxel_size_m or choose_voxel_size(observation.views, points_m, point_view)
        patches = make_patches(observation.views, observation.visible_masks, points_m)
        volume = fuse(patches, points_m, voxel, observation.support)
        closure = SupportClosure(volume, np.zeros(volume.weight.shape, dtype=bool))
        if observation.support is not None and self.support_reach_m > 0:
            closure = close_on_support(volume, patches, self.support_reach_m)
        mesh = surface_from_distance(closure.volume.distance_m, voxel, volume.T_world_grid)
        if not len(mesh.faces):
            # A few pixels make no surface, but they are proof that something is there.
            return surfels(points_m, observation.point_colors[kept], point_view, observation.views)
        mesh = drop_small_components(mesh, self.min_component_share)
        mesh = fill_holes(mesh, PIN_HOLE_VOXELS * voxel)
        confidence, observed = _trust(mesh, closure)
        colors, _ = vertex_colors(mesh, observation.views, observation.visible_masks)
        return replace(mesh, vertex_colors=colors, vertex_confidence=confidence, vertex_observed=observed)


def _trust(mesh: Mesh, closure: SupportClosure) -> tuple[Float32Array, BoolArray]:
    """Confidence (V,) in [0, 1] and observed flags (V,) of vertices, from the fused weights around them.

    Confidence rises with the summed view weight (1 - exp(-w): 0.63 for one frontal view, 0.86 for two) and falls with
    the spread between measurements, taken relative to the voxel size.
    """
    volume: TsdfVolume = closure.volume
    local = transforms.apply(transforms.inverse(volume.T_world_grid), mesh.vertices.astype(np.float64))
    local /= volume.voxel_size_m
    added = ndimage.map_coordinates(closure.added.astype(np.float32), local.T, order=1)
    weight = ndimage.map_coordinates(volume.weight, local.T, order=1)
    spread = ndimage.map_coordinates(volume.deviation_m, local.T, order=1) / volume.voxel_size_m
    height = local[:, 2] - (LAYERS_BELOW - 0.5)
    observed = (weight > 0) & (added < 0.5)
    if closure.added.any():
        observed &= height > 0.25
    confidence = (1.0 - np.exp(-weight)) * np.exp(-0.5 * spread**2)
    confidence = np.where(observed, np.clip(confidence, UNSEEN_CONFIDENCE, 1.0), UNSEEN_CONFIDENCE)
    return confidence.astype(np.float32), observed
