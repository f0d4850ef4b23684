"""Cameras around one object, each a window of a real camera's picture, and how much they see of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..geometry import transforms
from ..geometry.camera import pixel_rays
from ..types import Float64Array, Intrinsics
from .example_settings import ExampleSettings

SCOUT_SHAPE = (24, 32)
"""Rows and columns of the rays with which a camera is tried."""
BATCH = 4
MAX_CAMERAS = 160
LEAST_FILL = 0.55
"""An object that a real camera sees smaller than this, in heights of the window, is pictured this large."""
NEAREST = 1.15
"""Least distance of a camera in diameters of the object's bounding ball."""


@dataclass(frozen=True, eq=False)
class ExampleCamera:
    """T_world_camera (4, 4); `pixel_ratio` = size of the sensor's pixels in pixels of this window."""

    intrinsics: Intrinsics
    T_world_camera: Float64Array
    pixel_ratio: float


Scout = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Rays (N, 3) origins, (N, 3) directions -> whether the object alone is hit, and whether it is seen in the scene."""


def draw_camera(
    settings: ExampleSettings, center_m: np.ndarray, diameter_m: float, on_table: bool, rng: np.random.Generator
) -> ExampleCamera:
    """A camera that looks at a ball of `diameter_m` around `center_m` (3,), world z up."""
    low, high = np.deg2rad(settings.table_elevation_deg if on_table else settings.elevation_deg)
    # Even over the sphere in free space; on tables robots look down at all angles alike.
    elevation = rng.uniform(low, high) if on_table else np.arcsin(rng.uniform(np.sin(low), np.sin(high)))
    azimuth = rng.uniform(0.0, 2.0 * np.pi)
    distance = max(rng.uniform(*settings.distance_m), diameter_m * NEAREST * rng.uniform(1.0, 1.6))
    direction = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    eye = center_m + distance * np.array(direction)
    target = center_m + rng.uniform(-0.06, 0.06, 3) * diameter_m
    roll = np.deg2rad(rng.uniform(-settings.roll_deg, settings.roll_deg))
    T = transforms.look_at(eye, target)
    T[:3, :3] = T[:3, :3] @ _about_z(roll)

    width, height = settings.image_width, settings.image_height
    real_focal = rng.uniform(*settings.focal_px)
    tangent = np.tan(np.arcsin(0.5 * diameter_m / distance))
    filling = 0.5 * height * rng.uniform(*settings.fill) / tangent
    focal = max(min(filling, real_focal), 0.5 * height * min(LEAST_FILL, settings.fill[0]) / tangent)
    intrinsics = Intrinsics(width, height, focal, focal, (width - 1) / 2.0, (height - 1) / 2.0)
    return ExampleCamera(intrinsics, T, float(focal / real_focal))


def choose_cameras(
    settings: ExampleSettings,
    draw: Callable[[], ExampleCamera],
    scout: Scout,
    visible_share: Callable[[int], tuple[float, float]],
) -> list[ExampleCamera]:
    """The first `settings.views` drawn cameras that see the share of the object's pixels wanted of each view.

    Where too few do, those that come closest, as long as the visible part takes `min_visible_pixels` of the image.
    Cameras are tried one after another, so that fewer views are the first of more. Raises `InputError` if the object
    can hardly be seen at all.
    """
    chosen: list[ExampleCamera] = []
    fallback: list[tuple[float, int, ExampleCamera]] = []
    for start in range(0, MAX_CAMERAS, BATCH):
        cameras = [draw() for _ in range(BATCH)]
        pixels, share = _scouted(cameras, scout)
        for index, camera in enumerate(cameras):
            low, high = visible_share(len(chosen))
            amiss = max(low - share[index], share[index] - high)
            if pixels[index] < settings.min_visible_pixels:
                continue
            if amiss <= 0.0:
                chosen.append(camera)
                if len(chosen) == settings.views:
                    return chosen
            else:
                fallback.append((amiss, start + index, camera))
    missing = settings.views - len(chosen)
    if len(fallback) < missing:
        raise InputError(
            f"of {MAX_CAMERAS} cameras around the object {len(chosen) + len(fallback)} see it in at least "
            f"{100 * settings.min_visible_pixels:g} % of the image, and {settings.views} views are wanted"
        )
    return chosen + [camera for _, _, camera in sorted(fallback, key=lambda entry: entry[:2])[:missing]]


def _scouted(cameras: list[ExampleCamera], scout: Scout) -> tuple[np.ndarray, np.ndarray]:
    """(C,) share of the image that the visible part takes, and its share of the object's pixels."""
    rows, cols = SCOUT_SHAPE
    rays, eyes = [], []
    for camera in cameras:
        full = camera.intrinsics
        fx, fy = full.fx * cols / full.width, full.fy * rows / full.height
        coarse = Intrinsics(cols, rows, fx, fy, (cols - 1) / 2.0, (rows - 1) / 2.0)
        rays.append(pixel_rays(coarse).reshape(-1, 3) @ camera.T_world_camera[:3, :3].T.astype(np.float32))
        eyes.append(np.broadcast_to(camera.T_world_camera[:3, 3].astype(np.float32), rays[-1].shape))
    whole, visible = scout(np.concatenate(eyes), np.concatenate(rays))
    whole = whole.reshape(len(cameras), -1).sum(axis=1)
    visible = visible.reshape(len(cameras), -1).sum(axis=1)
    return visible / (rows * cols), visible / np.maximum(whole, 1)


def _about_z(angle: float) -> Float64Array:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def jittered_pose(T_world_camera: np.ndarray, rms_m: float, rms_deg: float, rng: np.random.Generator) -> Float64Array:
    """The pose (4, 4) displaced and turned at random: root mean square `rms_m` and `rms_deg`."""
    from scipy.spatial.transform import Rotation

    turn = Rotation.from_rotvec(rng.standard_normal(3) * np.deg2rad(rms_deg) / np.sqrt(3.0)).as_matrix()
    moved = np.array(T_world_camera, dtype=np.float64)
    moved[:3, :3] = moved[:3, :3] @ turn
    moved[:3, 3] += rng.standard_normal(3) * rms_m / np.sqrt(3.0)
    return moved
