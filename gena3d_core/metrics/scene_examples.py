"""Scenes to evaluate on: rendered pictures of a layout with masks, and the truth of what they show."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry.mesh import transformed
from ..simulation.scene_layout import SceneLayout
from ..simulation.scene_views import SceneView, SceneViewSettings, draw_cameras, render_scene_views, resized_camera
from ..types import Mesh, SceneObservation, SupportPlane
from .scene_objects import PlacedMesh
from .scene_pictures import ScenePicture, masked_photo
from .scene_scores import TrueScene

MIN_PIXELS = 64
"""An object with fewer visible pixels in every picture is not asked for, and not missed."""
MIN_ASSETS = 2
VIEW_SETTINGS = SceneViewSettings(image_width=480, image_height=360)


@dataclass(frozen=True, eq=False)
class SceneExample:
    """One scene as methods see it, and its truth.

    observation  its pictures with masks of the assets that they show; their ids are the object's number + 1
    views        the same with true cameras and depth, for methods that are told these
    support      the plane that it stands on
    truth        these assets in the world: metres, z up
    pictures     what is to be seen in each, everything but the assets blackened
    hidden       how many objects no picture shows
    """

    id: str
    observation: SceneObservation
    views: tuple[SceneView, ...]
    support: SupportPlane | None
    truth: TrueScene
    pictures: tuple[ScenePicture, ...]
    hidden: int


def scene_example(layout: SceneLayout, load: Callable[[str], Mesh], views: int = 1, seed: int = 0) -> SceneExample:
    """Pictures by the first `views` cameras of the layout, or drawn ones where it has none; looks belong to the seed.

    load: mesh in the unit cube by its id. Raises `InputError` where the pictures show fewer than two objects.
    """
    placed = [transformed(load(item.mesh), item.S_world_object) for item in layout.objects]
    rng = np.random.default_rng(zlib.crc32(f"{layout.id}|{seed}".encode()))
    longer = max(VIEW_SETTINGS.image_width, VIEW_SETTINGS.image_height)
    cameras = [resized_camera(camera, longer) for camera in layout.cameras[:views]]
    if len(cameras) < views:
        cameras += draw_cameras(placed, views - len(cameras), VIEW_SETTINGS, rng)
    shots = render_scene_views(placed, layout.support, cameras, VIEW_SETTINGS, rng)
    shown = [k for k in range(len(placed)) if max(int(shot.pixels[k]) for shot in shots) >= MIN_PIXELS]
    if len(shown) < MIN_ASSETS:
        raise InputError(
            f"scene '{layout.id}': its pictures show {len(shown)} of {len(placed)} objects, two are needed"
        )
    masks = tuple(np.stack([shot.instances == k + 1 for k in shown]) for shot in shots)
    observation = SceneObservation(
        tuple(k + 1 for k in shown),
        tuple(layout.objects[k].mesh for k in shown),
        tuple(shot.color for shot in shots),
        masks,
    )
    truth = TrueScene.measure([PlacedMesh(k + 1, placed[k], np.eye(4)) for k in shown], seed)
    pictures = tuple(
        masked_photo(shot.color, list(own), shot.camera.T_world_camera, shot.camera.intrinsics)
        for shot, own in zip(shots, masks, strict=True)
    )
    return SceneExample(layout.id, observation, tuple(shots), layout.support, truth, pictures, len(placed) - len(shown))
