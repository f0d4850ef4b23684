"""How much the assets of a scene collide, as a share of the voxels of a grid around all of them (SceneGen 3.3).

Assets are given as decoded occupancy, placed by position vectors [t, quat_wxyz, s] in the query's frame. The counted
share is the paper's number and has no gradient; the soft share replaces "some point of the asset lies in this voxel" by
how full trilinear splatting makes it, and has one, with respect to the poses and to the occupancy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..nn.rotations import quaternion_matrices

COLLISION_RESOLUTION = 64
MIN_SPAN = 1e-6
SCALE = 7
"""Place of the scale in a position vector; the quaternion lies between translation and scale."""


@dataclass(frozen=True)
class AssetPoints:
    """Occupied voxels of B assets as points.

    points  (P, 3) in the asset's own cube [-0.5, 0.5]³
    row     (P,) int64: asset of each point, ascending
    weight  (P,) how certainly the voxel is full, in (0.5, 1]; carries the gradient of the occupancy
    assets  B
    """

    points: Tensor
    row: Tensor
    weight: Tensor
    assets: int


def asset_points(logits: Tensor, *, at_corner: bool = False) -> AssetPoints:
    """Voxels with logit > 0 of (B, R, R, R) or (B, 1, R, R, R).

    at_corner: a voxel stands for its lowest corner, as in the published code, not for its centre.
    """
    if logits.ndim == 5 and logits.shape[1] == 1:
        logits = logits[:, 0]
    if logits.ndim != 4:
        raise InputError(f"occupancy must be (B, R, R, R) or (B, 1, R, R, R), got {tuple(logits.shape)}")
    index = torch.nonzero(logits > 0)
    size = logits.new_tensor(logits.shape[1:])
    points = (index[:, 1:] + (0.0 if at_corner else 0.5)) / size - 0.5
    return AssetPoints(points, index[:, 0], torch.sigmoid(logits[tuple(index.T)]), len(logits))


def placed(assets: AssetPoints, poses: Tensor, R_model_grid: Tensor | None = None) -> Tensor:
    """(P, 3) points in the query's frame: s · R(q) · R_model_grid · p + t, with quaternions brought to length one.

    poses (B, 8); R_model_grid (3, 3): from the axes of the voxel grid to those in which poses are stated; None: they
    are the same. Differentiable with respect to the poses.
    """
    if poses.shape != (assets.assets, SCALE + 1):
        raise InputError(f"poses must be ({assets.assets}, {SCALE + 1}), got {tuple(poses.shape)}")
    axes = poses[:, SCALE:, None] * quaternion_matrices(F.normalize(poses[:, 3:SCALE], dim=-1))
    if R_model_grid is not None:
        axes = axes @ R_model_grid.to(axes)
    local = assets.points.to(axes)
    return (axes[assets.row] @ local[:, :, None])[:, :, 0] + poses[assets.row, :3]


def into_unit_cubes(points: Tensor, scene: Tensor, scenes: int) -> Tensor:
    """(P, 3) points of each scene scaled by the longest side of their box and centred in [0, 1]³.

    scene (P,) int64: number of each point's scene. The box counts as given: no gradient passes through it.
    """
    spread = scene[:, None].expand(-1, 3)
    fixed = points.detach()
    low = fixed.new_full((scenes, 3), torch.inf).scatter_reduce(0, spread, fixed, "amin")
    high = fixed.new_full((scenes, 3), -torch.inf).scatter_reduce(0, spread, fixed, "amax")
    side = (high - low).amax(dim=1, keepdim=True).clamp_min(MIN_SPAN)
    return (points - ((low + high) / 2.0)[scene]) / side[scene] + 0.5


def counted_share(
    points: Tensor, row: Tensor, counted: Tensor, assets: int, resolution: int = COLLISION_RESOLUTION
) -> Tensor:
    """(S,) voxels with points of several assets over voxels with points of any; 0 for a scene without points.

    points (P, 3) in [0, 1]³, of asset `row` (P,); `assets` neighbouring rows are a scene; counted (S·A,) bool: assets
    that take part.
    """
    scenes, taken = len(counted) // assets, counted[row]
    cell = (points[taken] * (resolution - 1)).floor().long().clamp(0, resolution - 1)
    flat = (cell[:, 0] * resolution + cell[:, 1]) * resolution + cell[:, 2]
    own = torch.unique(row[taken] * resolution**3 + flat)
    place = own // (resolution**3 * assets) * resolution**3 + own % resolution**3
    count = torch.bincount(place, minlength=scenes * resolution**3).view(scenes, -1)
    return (count > 1).sum(dim=1) / ((count > 0).sum(dim=1) + 1e-8)


def soft_share(
    points: Tensor, row: Tensor, weight: Tensor, assets: int, scenes: int, resolution: int = COLLISION_RESOLUTION
) -> Tensor:
    """(S,) differentiable form of `counted_share` over all assets.

    Points spread their weight over the eight voxels around them; an asset fills a voxel by what it gets there, at most
    1. With these shares as independent chances, the result is the expected number of voxels that several assets fill
    over the expected number that any fills. Fringes of little weight hardly count, since chances multiply.
    """
    cells = resolution**3
    place, share = _eight_voxels(points, weight, resolution)
    flat = (row[None] * cells + place).reshape(-1)
    density = points.new_zeros(scenes * assets * cells).index_add(0, flat, share.reshape(-1))
    full = density.clamp_max(1.0).view(scenes, assets, cells)
    none, one = torch.ones_like(full[:, 0]), torch.zeros_like(full[:, 0])
    for own in full.unbind(dim=1):
        none, one = none * (1.0 - own), one * (1.0 - own) + none * own
    return (1.0 - none - one).sum(dim=1) / ((1.0 - none).sum(dim=1) + 1e-8)


def _eight_voxels(points: Tensor, weight: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """Flat index (8, P) and trilinear share (8, P) of the voxels around points (P, 3) in [0, 1]³."""
    u = points.clamp(0.0, 1.0) * (resolution - 1)
    base = u.detach().floor().clamp_max(resolution - 2)
    rest, base = u - base, base.long()
    corner = torch.cartesian_prod(*[torch.arange(2, device=points.device)] * 3)[:, None]
    share = torch.where(corner == 1, rest, 1.0 - rest).prod(dim=2) * weight
    cell = base + corner
    return (cell[..., 0] * resolution + cell[..., 1]) * resolution + cell[..., 2], share
