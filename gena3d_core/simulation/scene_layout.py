"""A scene as a layout: which meshes stand where, and what they stand on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..types import Float64Array, Intrinsics, SupportPlane, require_rigid, require_shape


@dataclass(frozen=True, eq=False)
class SceneObject:
    """mesh: id in a set of meshes; S_world_object (4, 4): similarity of its mesh (unit cube) to the world, metres."""

    mesh: str
    S_world_object: Float64Array


@dataclass(frozen=True, eq=False)
class SceneCamera:
    """A pinhole camera; T_world_camera (4, 4), optical frame."""

    T_world_camera: Float64Array
    intrinsics: Intrinsics


@dataclass(frozen=True, eq=False)
class SceneLayout:
    """Objects in a world with z up, metres.

    support  plane on which they rest, directly or on one another; None if unknown
    cameras  those that came with the layout, maybe none
    query    number of the object that counts as the query where nothing else says so
    """

    id: str
    objects: tuple[SceneObject, ...]
    support: SupportPlane | None = None
    cameras: tuple[SceneCamera, ...] = ()
    query: int = 0

    def __post_init__(self) -> None:
        if not self.objects:
            raise InputError(f"scene '{self.id}' has no object")
        if not 0 <= self.query < len(self.objects):
            raise InputError(f"scene '{self.id}': query {self.query} is none of its {len(self.objects)} objects")
        for number, item in enumerate(self.objects):
            _require_similarity(f"S_world_object of object {number} of scene '{self.id}'", item.S_world_object)
        for number, camera in enumerate(self.cameras):
            require_rigid(f"T_world_camera {number} of scene '{self.id}'", camera.T_world_camera)


def _require_similarity(name: str, S: np.ndarray) -> None:
    require_shape(name, S, (4, 4))
    determinant = float(np.linalg.det(S[:3, :3])) if np.isfinite(S).all() else 0.0
    if determinant <= 0:
        raise InputError(f"{name} is no similarity with a positive scale")
    unscaled = S.copy()
    unscaled[:3, :3] /= np.cbrt(determinant)
    require_rigid(f"{name}, without its scale,", unscaled)
