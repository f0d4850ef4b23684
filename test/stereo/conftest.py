"""Analytic scenes for stereo: planes and spheres with a solid texture, seen by exact cameras."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from gena3d_core.geometry import camera, transforms
from gena3d_core.types import Intrinsics, View

SMALL = Intrinsics(width=320, height=240, fx=270.0, fy=270.0, cx=158.5, cy=121.0)


def solid_texture(points_m: np.ndarray, seed: int = 3) -> np.ndarray:
    """(...,) grey values 0..255 of a solid texture at world points (..., 3): waves of 1.5 to 15 cm."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(40, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength_m = rng.uniform(0.015, 0.15, size=40)
    waves = np.sin(points_m @ (direction * (2 * np.pi / wavelength_m[:, None])).T + rng.uniform(0, 7, size=40))
    return np.clip(128.0 + 18.0 * waves.sum(axis=-1), 0, 255)


def plane_depth(view_rays: np.ndarray, T: np.ndarray, normal: np.ndarray, offset_m: float) -> np.ndarray:
    """Depth of the plane n·p = offset along rays with z = 1; NaN where missed."""
    toward = view_rays @ T[:3, :3].T @ normal
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (offset_m - T[:3, 3] @ normal) / toward
    return np.where(depth > 0, depth, np.nan)


def sphere_depth(view_rays: np.ndarray, T: np.ndarray, center_m: np.ndarray, radius_m: float) -> np.ndarray:
    """Depth of the sphere's near side along rays with z = 1; NaN where missed."""
    d = view_rays @ T[:3, :3].T
    o = T[:3, 3] - center_m
    a, b, c = (d * d).sum(-1), d @ o, o @ o - radius_m**2
    with np.errstate(invalid="ignore"):
        depth = (-b - np.sqrt(b * b - a * c)) / a
    return np.where(depth > 0, depth, np.nan)


@pytest.fixture(scope="session")
def analytic_view() -> Callable[..., View]:
    """Maker of a view with exact depth: planes [(normal, offset)], spheres [(center, radius)]."""

    def make(
        T_world_camera: np.ndarray,
        planes: Sequence[tuple] = (),
        spheres: Sequence[tuple] = (),
        intrinsics: Intrinsics = SMALL,
        name: str = "view",
        textured: bool = True,
    ) -> View:
        rays = camera.pixel_rays(intrinsics).astype(np.float64)
        surfaces = [plane_depth(rays, T_world_camera, np.asarray(n, dtype=float), d) for n, d in planes]
        surfaces += [sphere_depth(rays, T_world_camera, np.asarray(c, dtype=float), r) for c, r in spheres]
        depth_m = np.fmin.reduce(surfaces)
        points_m = transforms.apply(T_world_camera, rays * np.nan_to_num(depth_m)[..., None])
        gray = solid_texture(points_m) if textured else np.full(depth_m.shape, 140.0)
        gray = np.where(np.isfinite(depth_m), gray, 0.0)
        color = np.repeat(np.round(gray).astype(np.uint8)[..., None], 3, axis=-1)
        return View(color, intrinsics, T_world_camera, depth_m.astype(np.float32), name=name)

    return make
