"""What a synthetic scene consists of: frozen dataclasses, world frame with z up and the table top at z = 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataFormatError, InputError
from ..geometry import transforms
from ..types import Float64Array, Intrinsics, Mesh, require_rigid
from .noise import NoiseSpec
from .primitives import make_primitive
from .textures import Texture, paint

DEFAULT_INTRINSICS = Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)
DEFAULT_NOISE = NoiseSpec()
GREY = Texture()
LIGHT_WOOD = Texture(
    "wood", ((0.86, 0.75, 0.60), (0.78, 0.65, 0.49), (0.66, 0.52, 0.37)), scale_m=0.014, grain=0.06, gloss=0.0
)
DARK_WOOD = Texture("wood", ((0.50, 0.47, 0.45), (0.42, 0.39, 0.37)), scale_m=0.03, grain=0.05, gloss=0.0)
PLASTER = Texture("noise", ((0.93, 0.92, 0.89), (0.89, 0.88, 0.86)), scale_m=0.5, grain=0.02, gloss=0.0)


@dataclass(frozen=True, eq=False)
class ObjectSpec:
    """One object: a primitive (`kind`, `params`) or a mesh file, its look and its place.

    name            unique in the scene; becomes the label
    kind, params    see `primitives.PRIMITIVES`; kind "mesh" reads `mesh_path` (ply, glb, obj, stl in metres)
    T_world_object  (4, 4); the object frame has its origin at the centre of the mesh's bounding box
    texture         solid texture in the object frame; ignored for a mesh file that has vertex colours
    """

    name: str
    kind: str
    T_world_object: Float64Array = field(default_factory=lambda: np.eye(4))
    params: Mapping[str, object] = field(default_factory=dict)
    texture: Texture = GREY
    mesh_path: Path | None = None

    def __post_init__(self) -> None:
        require_rigid(f"T_world_object of object '{self.name}'", self.T_world_object)


@dataclass(frozen=True)
class TableSpec:
    """Table top: a slab centred at the origin whose upper side is z = 0; extents in x and y, thickness."""

    size_m: tuple[float, float] = (1.3, 0.9)
    thickness_m: float = 0.03
    texture: Texture = LIGHT_WOOD


@dataclass(frozen=True)
class RoomSpec:
    """Floor and four walls around the table; seen in the colour image, out of the depth camera's reach.

    size_m extents in x, y, z; floor_z_m height of the floor.
    """

    size_m: tuple[float, float, float] = (5.0, 5.0, 2.8)
    floor_z_m: float = -0.74
    floor: Texture = DARK_WOOD
    walls: Texture = PLASTER


@dataclass(frozen=True)
class LightSpec:
    """Lamp: a disc of radius `radius_m` at `position_m` that shines everywhere; `intensity` at one metre."""

    position_m: tuple[float, float, float]
    intensity: float = 1.0
    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    radius_m: float = 0.12


@dataclass(frozen=True)
class OrbitPath:
    """Camera on a circle around `target_m`, looking at it.

    radius_m      distance to the target
    elevation_deg above the horizontal; `elevation_swing_deg` is added as a sine with two periods a turn
    start_deg, sweep_deg  azimuth (from +x, counter-clockwise) of the first pose, and the angle travelled
    frames        poses in one pass; a sweep below 360 degrees runs there and back so that it can loop
    """

    target_m: tuple[float, float, float] = (0.0, 0.0, 0.05)
    radius_m: float = 0.85
    elevation_deg: float = 38.0
    elevation_swing_deg: float = 0.0
    start_deg: float = -90.0
    sweep_deg: float = 360.0
    frames: int = 240

    def __post_init__(self) -> None:
        if self.radius_m <= 0 or self.frames < 1:
            raise InputError(f"an orbit needs a positive radius and frames, got {self.radius_m} and {self.frames}")
        if abs(self.elevation_deg) + abs(self.elevation_swing_deg) >= 89.9:
            raise InputError(f"an orbit's elevation must stay below 90 degrees, got {self.elevation_deg}")

    def poses(self, count: int | None = None) -> Float64Array:
        """(count, 4, 4) `T_world_camera`; without `count` one pass of `frames` poses."""
        count = self.frames if count is None else count
        fraction = np.arange(count) / count
        # a smooth return leaves no jump where the path repeats
        travelled = fraction if abs(self.sweep_deg) >= 360.0 else 0.5 - 0.5 * np.cos(2 * np.pi * fraction)
        azimuth = np.deg2rad(self.start_deg + self.sweep_deg * travelled)
        elevation = np.deg2rad(self.elevation_deg + self.elevation_swing_deg * np.sin(4 * np.pi * fraction))
        direction = np.stack(
            [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=1
        )
        target = np.asarray(self.target_m)
        return np.stack([transforms.look_at(target + self.radius_m * d, target) for d in direction])


@dataclass(frozen=True, eq=False)
class PosePath:
    """Recorded or hand-written camera poses: `T_world_camera` (N, 4, 4)."""

    T_world_camera: Float64Array

    def __post_init__(self) -> None:
        if self.T_world_camera.ndim != 3 or not len(self.T_world_camera):
            raise InputError(f"a camera path needs poses of shape (N, 4, 4), got {self.T_world_camera.shape}")
        for index, T in enumerate(self.T_world_camera):
            require_rigid(f"camera pose {index}", T)

    def poses(self, count: int | None = None) -> Float64Array:
        """(count, 4, 4): the poses, or `count` of them spread evenly over the path."""
        total = len(self.T_world_camera)
        if count is None:
            return self.T_world_camera
        return self.T_world_camera[np.arange(count) * total // count]


CameraPath = OrbitPath | PosePath


@dataclass(frozen=True, eq=False)
class SceneSpec:
    """A tabletop scene: everything that the renderer needs. Raises `InputError` for object names that repeat."""

    objects: tuple[ObjectSpec, ...] = ()
    name: str = "scene"
    table: TableSpec = TableSpec()
    room: RoomSpec | None = RoomSpec()
    lights: tuple[LightSpec, ...] = (
        LightSpec((-0.9, -0.6, 1.4), 2.7, (1.0, 0.96, 0.90), 0.09),
        LightSpec((1.1, 0.5, 1.3), 0.8, (0.90, 0.95, 1.0), 0.25),
    )
    ambient: float = 0.44
    intrinsics: Intrinsics = DEFAULT_INTRINSICS
    camera_path: CameraPath = OrbitPath()
    noise: NoiseSpec | None = DEFAULT_NOISE

    def __post_init__(self) -> None:
        names = [o.name for o in self.objects]
        repeated = sorted({n for n in names if names.count(n) > 1})
        if repeated:
            raise InputError(f"scene '{self.name}' has several objects named {', '.join(repeated)}")


def object_mesh(spec: ObjectSpec) -> Mesh:
    """The object's mesh in its own frame, metres, with vertex colours.

    Raises `InputError` for a bad primitive and `DataFormatError` for a mesh file that cannot be read.
    """
    if spec.kind != "mesh":
        return paint(make_primitive(spec.kind, spec.params), spec.texture)
    mesh = _load_mesh(spec)
    return mesh if mesh.vertex_colors is not None else paint(mesh, spec.texture)


def _load_mesh(spec: ObjectSpec) -> Mesh:
    import trimesh

    if spec.mesh_path is None or not spec.mesh_path.is_file():
        raise DataFormatError(f"object '{spec.name}': mesh file {spec.mesh_path} does not exist")
    try:
        loaded: Any = trimesh.load(spec.mesh_path, force="mesh")
        vertices, faces = np.asarray(loaded.vertices), np.asarray(loaded.faces)
    except Exception as error:  # the readers of the formats raise whatever they like
        raise DataFormatError(f"object '{spec.name}': cannot read mesh {spec.mesh_path}: {error}") from error
    if not len(faces) or not np.isfinite(vertices).all():
        raise DataFormatError(f"object '{spec.name}': mesh {spec.mesh_path} has no faces or holds NaN")
    colors = None
    if getattr(loaded.visual, "kind", None) == "vertex":
        colors = np.ascontiguousarray(loaded.visual.vertex_colors[:, :3], dtype=np.uint8)
    middle = (vertices.min(axis=0) + vertices.max(axis=0)) / 2.0
    return Mesh((vertices - middle).astype(np.float32), faces.astype(np.int32), vertex_colors=colors)
