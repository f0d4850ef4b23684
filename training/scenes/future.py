"""3D-FUTURE-scene as published: photorealistic pictures of rooms, with the models in them and their poses.

Expected, as the archives unpack:
FOLDER/GT/train_set.json, test_set.json   COCO-like: `images` [{"id", "file_name", "width", "height"}] and
    `annotations` [{"image_id", "model_id", "pose": {"translation": [x, y, z], "euler": [a, b, c]}, "fov"}, ...]
MODELS/<model_id>/raw_model.obj           3D-FUTURE-model: y-up, metres; the mesh source is that folder

Annotations without a model, without a pose, or whose model is not there are left out, as doors and walls are. A pose
places the raw model in the camera's frame (x right, y up, looking along -z), metres, angles in degrees about the fixed
axes x, y, z; `fov` is the full angle of view of the longer side, radians.

The published poses know no room: here the world has z up as most of the models stand, the camera looks along +y, and
z = 0 is the lowest point of any object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from gena3d_core.errors import DataFormatError, InputError
from gena3d_core.geometry import mesh as mesh_ops
from gena3d_core.geometry import transforms
from gena3d_core.io.scene_layouts import UP
from gena3d_core.meshing.solid_closing import LONGEST_SIDE
from gena3d_core.simulation.scene_layout import SceneCamera, SceneLayout, SceneObject
from gena3d_core.types import Float64Array, Intrinsics, SupportPlane

from ..mesh_files import load_surface
from ..mesh_folder import T_ZUP_YUP, MeshFolder
from ..mesh_source import MeshSource, innermost

ANNOTATIONS = "GT"
DEFAULT_FOV = np.deg2rad(60.0)
T_OPTICAL_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""The same matrix both ways: y and z change sign."""


@dataclass(frozen=True)
class FutureScenes:
    """Images of one split; `images` and `annotations` by image id."""

    folder: Path
    split: str
    meshes: MeshFolder
    images: Mapping[str, dict[str, Any]] = field(repr=False)
    annotations: Mapping[str, list[dict[str, Any]]] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{self.folder.resolve()}:{self.split}"

    def ids(self) -> Sequence[str]:
        return list(self.images)

    def load(self, id: str) -> SceneLayout:
        if id not in self.images:
            raise InputError(f"{self.folder}: no image '{id}' with placed models in split '{self.split}'")
        try:
            return self._layout(id)
        except (KeyError, TypeError, ValueError) as error:
            raise DataFormatError(f"{self.folder}: annotation of image '{id}' is not as published ({error})") from error

    def _layout(self, id: str) -> SceneLayout:
        image, found = self.images[id], self.annotations[id]
        files = [self.meshes.files[item["model_id"]] for item in found]
        T_camera_raw = np.stack([_pose(item["pose"]) for item in found])
        T_world_camera = _upright(T_camera_raw)
        T_world_raw = T_world_camera @ T_camera_raw
        S_world_object = T_world_raw @ np.stack([_raw_frame(file) for file in files])
        corners = np.stack(
            [transforms.apply(T, _raw_corners(file)) for T, file in zip(T_world_raw, files, strict=True)]
        )
        floor = float(corners[..., 2].min())
        lift = transforms.rigid(t=-floor * UP)
        width, height = int(image["width"]), int(image["height"])
        fov = float(next((item["fov"] for item in found if item.get("fov")), DEFAULT_FOV))
        focal = 0.5 * max(width, height) / float(np.tan(0.5 * fov))
        camera = SceneCamera(
            lift @ T_world_camera @ T_OPTICAL_OPENGL,
            Intrinsics(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0),
        )
        objects = tuple(SceneObject(item["model_id"], lift @ S) for item, S in zip(found, S_world_object, strict=True))
        return SceneLayout(id, objects, SupportPlane(UP, 0.0), (camera,))


def open_future(folder: Path, split: str, meshes: MeshSource) -> FutureScenes:
    """The images of `split` that show at least one model of `meshes`, a folder of 3D-FUTURE-model.

    Raises `InputError` for other meshes or a split that is not there, `DataFormatError` for an unreadable file.
    """
    source = innermost(meshes)
    if not isinstance(source, MeshFolder):
        raise InputError(f"{folder}: its scenes need the folder of 3D-FUTURE-model as meshes, not {meshes.name}")
    path = folder / ANNOTATIONS / f"{split}_set.json"
    if not path.is_file():
        raise InputError(f"{folder}: no split '{split}': there is no {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {str(image["id"]): image for image in content["images"]}
        annotations: dict[str, list[dict[str, Any]]] = {}
        for item in content["annotations"]:
            placed = (item.get("pose") or {}).get("translation") is not None
            if placed and item.get("model_id") in source.files:
                annotations.setdefault(str(item["image_id"]), []).append(item)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataFormatError(f"{path}: not the annotations of 3D-FUTURE ({error})") from error
    shown = {id: image for id, image in images.items() if id in annotations}
    if not shown:
        raise InputError(f"{path}: none of its models is in {source.folder}")
    return FutureScenes(folder, split, source, shown, annotations)


def _pose(pose: Mapping[str, Any]) -> Float64Array:
    """(4, 4): raw model to the camera's frame."""
    R = Rotation.from_euler("xyz", pose["euler"], degrees=True).as_matrix()
    return transforms.rigid(R, np.array(pose["translation"], dtype=np.float64))


def _upright(poses: Float64Array) -> Float64Array:
    """(4, 4) of the camera's frame in a world whose z is up as in most models, of poses (N, 4, 4)."""
    up = np.median(poses[:, :3, 1], axis=0)
    if np.linalg.norm(up) < 0.5:
        raise ValueError("its models do not agree where up is")
    up /= np.linalg.norm(up)
    forward = np.array([0.0, 0.0, -1.0])
    forward = forward - up * (forward @ up)
    if np.linalg.norm(forward) < 1e-3:  # straight down: the top of the image is ahead
        forward = np.array([0.0, 1.0, 0.0]) - up * up[1]
    forward /= np.linalg.norm(forward)
    return transforms.rigid(np.stack([np.cross(forward, up), forward, up]))


@lru_cache(maxsize=4096)
def _raw_bounds(path: Path) -> tuple[Float64Array, Float64Array]:
    """Bounds of the file's mesh turned z-up, as `MeshFolder` turns it."""
    return mesh_ops.bounds(mesh_ops.transformed(load_surface(path).mesh, T_ZUP_YUP))


def _raw_frame(path: Path) -> Float64Array:
    """(4, 4): the mesh as the source loads it (unit cube, z up) to the raw model (y up, metres)."""
    low, high = _raw_bounds(path)
    scale = float((high - low).max()) / LONGEST_SIDE
    return transforms.inverse(T_ZUP_YUP) @ transforms.rigid(scale * np.eye(3), (low + high) / 2.0)


def _raw_corners(path: Path) -> Float64Array:
    """(8, 3) corners of the raw model's box, y up."""
    ends = np.stack(_raw_bounds(path))
    choice = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    return transforms.apply(transforms.inverse(T_ZUP_YUP), ends[choice, [0, 1, 2]])
