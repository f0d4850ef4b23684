"""One picture of a scene from a chosen side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..errors import InputError
from ..types import Mesh, SupportPlane, UInt8Array
from .cameras import orbit_camera
from .render import render_meshes


def scene_picture(
    meshes: Sequence[Mesh],
    support: SupportPlane | None,
    width: int = 1280,
    azimuth_deg: float = -60.0,
    elevation_deg: float = 30.0,
) -> UInt8Array:
    """(H, width, 3) RGB, 16:10, of `meshes` (world frame) from a direction. Raises `InputError` without meshes."""
    if not meshes:
        raise InputError("the scene has no objects to show")
    points = np.concatenate([mesh.vertices for mesh in meshes])
    T, intrinsics = orbit_camera(
        points, math.radians(azimuth_deg), math.radians(elevation_deg), width, round(width * 0.625)
    )
    return render_meshes(meshes, T, intrinsics, support)
