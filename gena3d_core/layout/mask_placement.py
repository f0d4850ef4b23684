"""Where a mask says that an object is: its centre, brought back to the depth at which it stands, and its size."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..geometry import mesh as mesh_ops
from ..geometry import transforms
from ..geometry.camera import upright_axes
from ..types import Float64Array, Intrinsics, Mesh, SupportPlane


def place_at_mask(
    mesh: Mesh, mask: np.ndarray, T_world_camera: np.ndarray, intrinsics: Intrinsics, depth_m: float
) -> Float64Array:
    """`S_world_grid` (4, 4) of an upright mesh (grid frame: x right, y ahead, z up as the camera has them).

    At `depth_m` along the optical axis the box of its silhouette, seen from far away, shares centre and area with that
    of the mask (H, W) bool. Raises `InputError` for an empty mask, a flat mesh or a depth that is not positive.
    """
    if not mask.any() or not depth_m > 0:
        raise InputError(f"placing needs a mask with pixels and a positive depth, got {mask.sum()} and {depth_m}")
    R_world_grid = upright_axes(T_world_camera)
    low, high = mesh_ops.bounds(mesh_ops.transformed(mesh, transforms.rigid(T_world_camera[:3, :3].T @ R_world_grid)))
    rows, columns = np.nonzero(mask)
    size_px = np.array([np.ptp(columns) + 1.0, np.ptp(rows) + 1.0])
    focal = np.array([intrinsics.fx, intrinsics.fy])
    extent = (high - low)[:2].astype(np.float64)
    if not (extent > 0).all():
        raise InputError("a mesh without extent cannot be placed at a mask")
    scale = float(np.sqrt((size_px / focal * depth_m / extent).prod()))
    middle_px = np.array([columns.min() + columns.max(), rows.min() + rows.max()]) / 2.0
    ray = np.append((middle_px - [intrinsics.cx, intrinsics.cy]) / focal, 1.0)
    center_camera = ray * depth_m - scale * (low + high) / 2.0
    return transforms.rigid(scale * R_world_grid, transforms.apply(np.asarray(T_world_camera), center_camera))


def standing_depth_m(
    mask: np.ndarray, T_world_camera: np.ndarray, intrinsics: Intrinsics, support: SupportPlane
) -> float:
    """Depth along the optical axis at which the lowest pixels of a mask (H, W) bool meet the support.

    Raises `InputError` for an empty mask and where the camera does not see the support there.
    """
    if not mask.any():
        raise InputError("an empty mask stands nowhere")
    row = int(np.nonzero(mask.any(axis=1))[0].max())
    column = float(np.nonzero(mask[row])[0].mean())
    ray = np.array([(column - intrinsics.cx) / intrinsics.fx, (row + 0.5 - intrinsics.cy) / intrinsics.fy, 1.0])
    falling = -float(support.normal @ (T_world_camera[:3, :3] @ ray))
    height = float(support.height_m(T_world_camera[:3, 3]))
    if not (falling > 0 and height > 0):
        raise InputError("the camera does not look down on the support where the mask ends")
    return height / falling
