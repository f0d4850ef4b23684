"""Cases of SceneGen's layout: training losses, and what its position vectors stand for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation
from torch import Tensor

from ...geometry import scene_poses, transforms
from ...objectives import PUBLISHED_SCENE, RunningWeight, SceneObjective, SceneTargets, estimated_x0, scene_losses
from ...objectives.scene_collision import asset_points, into_unit_cubes, placed
from ..golden import CaseResults, Difference, GoldenCase, Tolerance, compare_values

UPSAMPLING, OFFSET = 8, 0.4
"""Of the stand-in for a decoder that the case describes."""
R_YUP_ZUP = torch.from_numpy(scene_poses.S_YUP_ZUP[:3, :3])


def losses(case: GoldenCase) -> CaseResults:
    """Losses of in.v_pred and in.positions_pred: twice in a row with other data, and without collisions."""
    given, objective = case.inputs, _objective(case)
    velocity, poses = given["v_pred"], given["positions_pred"]
    config = case.description["config"]
    limits = (float(config["position_weight_min_ratio"]), float(config["position_weight_max_ratio"]))
    targets = SceneTargets(
        given["x_0"],
        given["noise"],
        given["t"],
        given["positions_gt"],
        torch.arange(len(poses), device=poses.device) == 0,
        len(poses),
        R_YUP_ZUP,
    )

    def decode(latent: Tensor) -> Tensor:
        flat = torch.einsum("c,bcijk->bijk", given["occ_projection"], latent)
        return (
            F.interpolate(flat[:, None], scale_factor=UPSAMPLING, mode="trilinear", align_corners=False)[:, 0] - OFFSET
        )

    weight = RunningWeight(limits=limits)
    first = scene_losses(velocity, poses, targets, decode, objective)
    first_weight = weight(first)
    second = scene_losses(velocity, poses, replace(targets, x0=1.1 * targets.x0), decode, objective)
    second_weight = weight(second)
    alone = scene_losses(velocity, poses, targets, decode, replace(objective, collision="none"))
    x_t = targets.noised(objective.sigma_min)
    x0 = estimated_x0(x_t, velocity, targets.t, objective.sigma_min)
    found = {
        "x_t": x_t,
        "x_0_pred": x0,
        "occ_logits": decode(x0),
        "mse": first.flow,
        "pos_loss": first.layout,
        "collision_ratio": first.collision_share,
        "pos_weight": torch.tensor(first_weight),
        "loss": first.total(first_weight),
        "second_call.pos_weight": torch.tensor(second_weight),
        "second_call.loss": second.total(second_weight),
        "nocollision.pos_loss": alone.layout,
        "nocollision.loss": alone.total(RunningWeight(limits=limits)(alone)),
        # The published code logs plain errors of the parts beside the losses.
        **dict(zip(("trans_loss", "rot_loss", "scale_loss"), first.errors, strict=True)),
    }
    return CaseResults({f"out.{name}": value for name, value in found.items()})


def _objective(case: GoldenCase) -> SceneObjective:
    config = case.description["config"]
    return replace(
        PUBLISHED_SCENE,
        delta_position=float(config["smooth_scale"]),
        delta_collision=float(config["collision_smooth_scale"]),
        weights=(float(config["trans_weight"]), float(config["rot_weight"]), float(config["scale_weight"])),
        collision_resolution=int(config["collision_resolution"]),
        sigma_min=float(config["sigma_min"]),
    )


def poses(case: GoldenCase) -> CaseResults:
    """Position vectors from poses in the world, the scene that they export to, and voxels placed by them."""
    given = {name: tensor.cpu().numpy() for name, tensor in case.inputs.items()}
    rotation = Rotation.from_euler("xyz", given["euler_xyz_deg"], degrees=True).as_matrix()
    parts = zip(given["scale"], rotation, given["translation"], strict=True)
    vectors = scene_poses.relative_poses(np.stack([transforms.rigid(s * R, t) for s, R, t in parts]))
    angles = Rotation.from_quat(vectors[:, [4, 5, 6, 3]]).as_euler("xyz", degrees=True)

    unit = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners = given["box_extents"][:, None] * unit
    # The published code builds its scene from float32 vectors.
    single = vectors.astype(np.float32)
    exported = scene_poses.fit_into_cube(scene_poses.similarities_from_poses(single), corners, centred=False)
    box_corners = np.einsum("aij,anj->ani", exported[:, :3, :3], corners) + exported[:, None, :3, 3]

    points = asset_points(torch.from_numpy(given["occ"].astype(np.float32)), at_corner=True)
    in_query = placed(points, torch.from_numpy(vectors), R_YUP_ZUP)
    cubes = into_unit_cubes(in_query, torch.zeros_like(points.row), 1)
    arrays = {
        "out.P_quat": vectors,
        "out.P_euler": np.concatenate([vectors[:, :3], angles, vectors[:, 7:]], axis=1),
        "out.scene_transforms": exported,
        "out.scene_vertices": box_corners.reshape(-1, 3),
    }
    found = {name: torch.from_numpy(array) for name, array in arrays.items()}
    # The published frame has its origin in a corner of the query's cube, ours in the middle.
    found |= {"out.voxel_points": in_query + 0.5, "out.voxel_points_normalised": cubes, "out.voxel_owner": points.row}
    return CaseResults(found, {"out.P_quat": _compare_poses})


def _compare_poses(ours: Tensor, theirs: Tensor, tolerance: Tolerance) -> Difference:
    """Position vectors (A, 8) whose quaternions may have either sign: both turn alike."""
    if ours.shape != theirs.shape:
        return compare_values(ours, theirs, tolerance)
    sign = torch.where((ours[:, 3:7] * theirs[:, 3:7]).sum(dim=1, keepdim=True) < 0, -1.0, 1.0)
    return compare_values(torch.cat([ours[:, :3], sign * ours[:, 3:7], ours[:, 7:]], dim=1), theirs, tolerance)
