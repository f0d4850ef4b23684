"""Cases of data preparation: voxels of a mesh, cameras around an object."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...geometry import mesh_voxelization, transforms
from ...geometry import orbit_cameras as orbit
from ..golden import CaseResults, Difference, GoldenCase, Tolerance

GRAZE = 1e-9
"""The voxel case's tolerance in words: a cell that a triangle only grazes, by less than this, may differ."""


def voxels(case: GoldenCase) -> CaseResults:
    """Indices and centres of the voxels that the surface of the normalised mesh touches."""
    normalised = mesh_voxelization.normalise_vertices(case.inputs["vertices_raw"].cpu().numpy())
    # The case, like the published data, keeps normalised vertices as float32 values.
    vertices, faces = normalised.astype(np.float32), case.inputs["faces"].cpu().numpy()
    index = mesh_voxelization.occupied_indices(mesh_voxelization.voxelize_surface(vertices, faces))
    centers = mesh_voxelization.cell_centers(index).astype(np.float32)
    sure, possible = (mesh_voxelization.voxelize_surface(vertices, faces, grown=by) for by in (-GRAZE, GRAZE))

    def compare(ours: Tensor, theirs: Tensor, tolerance: Tolerance) -> Difference:
        found, wanted = (_cell_list(tensor, len(sure)) for tensor in (ours, theirs))
        return _compare_cells(found, wanted, possible & ~sure)

    tensors = {"out.voxel_indices": torch.from_numpy(index), "out.voxel_centres": torch.from_numpy(centers)}
    return CaseResults(tensors, dict.fromkeys(tensors, compare))


def _cell_list(cells: Tensor, resolution: int) -> np.ndarray:
    """(N, 3) float64 indices from indices, or from centres in [-0.5, 0.5]."""
    return ((cells.double() + 0.5) * resolution - 0.5 if cells.is_floating_point() else cells.double()).numpy()


def _compare_cells(ours: np.ndarray, theirs: np.ndarray, grazed: np.ndarray) -> Difference:
    """Two sorted lists of cells (N, 3), which may differ in `grazed` (R, R, R) ones only; max_abs counts the faults."""
    grids = []
    for cells in (ours, theirs):
        index = np.round(cells).astype(np.int64)
        grid = np.zeros_like(grazed)
        grid[tuple(np.clip(index, 0, len(grid) - 1).T)] = True
        if np.abs(cells - index).max(initial=0.0) > 1e-4 or not np.array_equal(index, np.argwhere(grid)):
            return Difference(float("inf"), float("inf"), False, "not a sorted list of cells of this grid")
        grids.append(grid)
    differing = grids[0] ^ grids[1]
    faults = int((differing & ~grazed).sum())
    remark = f"{int(differing.sum()) - faults} grazed cells differ" if differing.any() else ""
    return Difference(float(faults), 0.0, not faults, remark)


def cameras(case: GoldenCase) -> CaseResults:
    """Directions, poses, intrinsics and projections of the rendered views."""
    inputs = {name: tensor.cpu().numpy() for name, tensor in case.inputs.items()}
    count = len(inputs["radius"])
    directions = orbit.sphere_yaw_pitch(count, inputs["offset"], favour_above=True)
    poses = orbit.orbit_poses_opengl(directions, inputs["radius"])
    extrinsics = transforms.inverse(orbit.opencv_from_opengl(poses))
    intrinsics = orbit.normalised_intrinsics(inputs["fov"])
    uv, depth = orbit.project_normalised(inputs["points"], extrinsics, intrinsics)
    results = {
        "out.yaw_pitch_dataset": directions,
        "out.yaw_pitch_render_utils": orbit.sphere_yaw_pitch(count, inputs["offset"]),
        "out.hammersley3": orbit.hammersley(count, 3),
        "out.blender_c2w": poses,
        "out.extrinsics_opencv": extrinsics,
        "out.intrinsics_normalised": intrinsics,
        "out.uv": uv,
        "out.depth": depth,
    }
    return CaseResults({name: torch.from_numpy(array) for name, array in results.items()})
