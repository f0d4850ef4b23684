"""Contact of imagined meshes with the plane that their objects rest on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..geometry import transforms
from ..types import Mesh, SupportPlane


def rest_on_plane(mesh: Mesh, support: SupportPlane, S_world_mesh: np.ndarray, depth: float) -> Mesh:
    """The mesh with what lies under the support plane by at most `depth` lifted onto the plane.

    S_world_mesh (4, 4): similarity of the mesh's frame to the world; `depth` in the mesh's own unit.
    """
    scale = float(np.linalg.norm(S_world_mesh[:3, 0]))
    height = support.height_m(transforms.apply(S_world_mesh, mesh.vertices.astype(np.float64))) / scale
    up = S_world_mesh[:3, :3].T @ support.normal / scale
    lift = np.where((height < 0) & (height >= -depth), -height, 0.0)
    return replace(mesh, vertices=(mesh.vertices + lift[:, None] * up).astype(np.float32))
