"""Observations to what the networks read: crops with masks, partial clouds as voxels, and the grids around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..checkpoints.bundle import GridFrame
from ..errors import InputError
from ..geometry.partial_cloud import observed_grid, prepare_cloud, tight_grid
from ..types import BoolArray, Float32Array, Float64Array, ObjectObservation
from ..views.object_crops import object_crop


@dataclass(frozen=True, eq=False)
class ObjectInputs:
    """A batch of B objects with P pairs of an object and a view that sees it.

    crops          (P, 5, S, S) float32: red, green, blue in [0, 1] over black, visible, occluded mask in {0, 1};
                   2D completions show their colours in the occluded part
    owner          (P,) int64: object of each pair, ascending
    visibility     (P,) float32: visible / (visible + occluded) pixels (GENA3D eq. 3)
    clouds         (B, 64, 64, 64) bool: voxels of the partial clouds (GENA3D A.1)
    has_cloud      (B,) bool
    S_world_grid   (B, 4, 4): similarity of each object's grid [-0.5, 0.5]³ to the world, metres
    """

    crops: Float32Array
    owner: np.ndarray
    visibility: Float32Array
    clouds: BoolArray
    has_cloud: BoolArray
    S_world_grid: Float64Array


def prepare_inputs(
    observations: Sequence[ObjectObservation],
    image_size: int,
    resolution: int,
    frame: GridFrame,
    max_views: int = 20,
) -> ObjectInputs:
    """Inputs of all observations; of each object the `max_views` views that see most of it.

    frame 'observed' places grids around the likely full extent, 'canonical' tightly around the cloud (GENA3D A.1).
    Raises `InputError` for an object that no view sees.
    """
    crops, owner, visibility, clouds, has_cloud, grids = [], [], [], [], [], []
    for number, observation in enumerate(observations):
        shown = observation.visibility
        kept = np.sort(np.argsort(-_visible_pixels(observation), kind="stable")[:max_views])
        kept = kept[shown[kept] > 0]
        if not len(kept):
            raise InputError(f"object {observation.id} ('{observation.label}') is visible in none of its views")
        for view in kept:
            masks = observation.visible_masks[view], observation.occlusion_masks[view]
            completed = None if observation.completed_masks is None else observation.completed_masks[view]
            crops.append(object_crop(observation.views[view].color, *masks, image_size, completed=completed))
            owner.append(number)
            visibility.append(shown[view])
        if frame == "observed":
            S_world_grid = observed_grid(observation)
        else:
            S_world_grid = tight_grid(observation.points_m)
        voxels = prepare_cloud(observation.points_m, S_world_grid, resolution)
        clouds.append(voxels)
        has_cloud.append(bool(voxels.any()))
        grids.append(S_world_grid)
    return ObjectInputs(
        np.stack(crops).astype(np.float32),
        np.array(owner, dtype=np.int64),
        np.array(visibility, dtype=np.float32),
        np.stack(clouds),
        np.array(has_cloud),
        np.stack(grids),
    )


def without_clouds(inputs: ObjectInputs) -> ObjectInputs:
    """The same without partial clouds; the grids stay where they are."""
    return replace(inputs, clouds=np.zeros_like(inputs.clouds), has_cloud=np.zeros_like(inputs.has_cloud))


def _visible_pixels(observation: ObjectObservation) -> np.ndarray:
    return np.array([mask.sum() for mask in observation.visible_masks])
