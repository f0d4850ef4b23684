"""Scenes as evaluation sees them: meshes with their places, and the boxes and voxels that they take up together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.mesh_voxelization import voxelize_surface
from ..geometry.scene_poses import split_similarities
from ..geometry.solid_voxelization import is_solid, solid_occupancy
from ..types import BoolArray, Float64Array, Mesh
from .voxels import enclosed

COLLISION_RESOLUTION = 64
"""Voxels along the longest side of the scene, as in SceneGen's measure of collisions."""


@dataclass(frozen=True, eq=False)
class PlacedMesh:
    """One object of a scene.

    id              what a predicted and a true object have in common
    mesh            in its own frame and unit
    S_world_object  (4, 4) similarity from there to the scene's frame
    """

    id: int | str
    mesh: Mesh
    S_world_object: Float64Array

    def __post_init__(self) -> None:
        if np.shape(self.S_world_object) != (4, 4):
            raise InputError(f"S_world_object of object {self.id} must be (4, 4), got {np.shape(self.S_world_object)}")
        split_similarities(self.S_world_object)

    def in_world(self) -> Mesh:
        """The mesh in the scene's frame."""
        return mesh_ops.transformed(self.mesh, self.S_world_object)

    @property
    def empty(self) -> bool:
        """Whether it has no surface."""
        return not len(self.mesh.faces) or not mesh_ops.area(self.mesh) > 0


def require_distinct(objects: Sequence[PlacedMesh], what: str) -> None:
    """Raise `InputError` where two objects share an id."""
    ids = [item.id for item in objects]
    if len(set(ids)) < len(ids):
        raise InputError(f"the objects of a {what} scene need ids of their own, got {ids}")


def whole(objects: Sequence[PlacedMesh]) -> Mesh:
    """All objects as one mesh in the scene's frame."""
    return mesh_ops.concatenate([item.in_world() for item in objects])


def box_iou(one: Mesh, other: Mesh) -> float:
    """Intersection over union of the axis-aligned bounding boxes; 0 for a mesh without vertices or without overlap."""
    if not (len(one.vertices) and len(other.vertices)):
        return 0.0
    (low, high), (other_low, other_high) = mesh_ops.bounds(one), mesh_ops.bounds(other)
    shared = np.maximum(np.minimum(high, other_high) - np.maximum(low, other_low), 0.0).prod()
    together = (high - low).prod() + (other_high - other_low).prod() - shared
    return float(shared / together) if together > 0 else 0.0


def surface_collision(objects: Sequence[PlacedMesh], resolution: int = COLLISION_RESOLUTION) -> float:
    """SceneGen's IoU_scene: voxels that the surfaces of several objects touch, over those that any touches.

    Voxels measure 1 / `resolution` of the longest side of the scene. Objects that stand side by side share the voxels
    between them, so that even true scenes are seldom at 0; `solid_overlap` is. 0 for less than two objects.
    """
    meshes = _present(objects)
    if len(meshes) < 2:
        return 0.0
    S_world_grid = _grid_around(meshes)
    S_grid_world = transforms.inverse(S_world_grid)
    count = np.zeros((resolution,) * 3, dtype=np.int32)
    for mesh in meshes:
        count += voxelize_surface(
            transforms.apply(S_grid_world, mesh.vertices.astype(np.float64)), mesh.faces, resolution
        )
    return float((count > 1).sum() / max(int((count > 0).sum()), 1))


def solid_overlap(objects: Sequence[PlacedMesh], resolution: int = 2 * COLLISION_RESOLUTION) -> float:
    """Voxels more than half inside several objects, over those more than half inside any; contact does not count.

    Of an open mesh, what it encloses at the grid's spacing is inside. 0 for less than two objects.
    """
    meshes = _present(objects)
    if len(meshes) < 2:
        return 0.0
    S_world_grid = _grid_around(meshes)
    count = np.zeros((resolution,) * 3, dtype=np.int32)
    for mesh in meshes:
        count += _inside(mesh, S_world_grid, resolution)
    return float((count > 1).sum() / max(int((count > 0).sum()), 1))


def _inside(mesh: Mesh, S_world_grid: np.ndarray, resolution: int) -> BoolArray:
    if is_solid(mesh):
        return solid_occupancy(mesh, S_world_grid, resolution, subsamples=1) > 0.5
    local = transforms.apply(transforms.inverse(S_world_grid), mesh.vertices.astype(np.float64))
    return enclosed(voxelize_surface(local, mesh.faces, resolution))


def _present(objects: Sequence[PlacedMesh]) -> list[Mesh]:
    return [item.in_world() for item in objects if not item.empty]


def _grid_around(meshes: Sequence[Mesh]) -> Float64Array:
    """(4, 4) similarity of the cube [-0.5, 0.5]³ to the scene's frame, centred on the meshes and as long as they."""
    bounds = np.array([mesh_ops.bounds(mesh) for mesh in meshes])
    low, high = bounds[:, 0].min(axis=0), bounds[:, 1].max(axis=0)
    return transforms.rigid(float((high - low).max()) * np.eye(3), (low + high) / 2.0)
